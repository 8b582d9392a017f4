.PHONY: build test bench lint format docs

build:
	pip install -c constraints.txt -e ".[dev]"

test:
	pytest

bench:
	mkdir -p benchmarks/results
	pytest benchmarks --benchmark-only --benchmark-columns=median,iqr,rounds --benchmark-json=benchmarks/results/cpu.json
	python -m benchmarks.report benchmarks/results/cpu.json --write README.md

lint:
	ruff check .
	ruff format --check .
	mypy
	clang-format --dry-run --Werror $$(git ls-files 'csrc/*.h' 'csrc/*.cpp' 'csrc/*.cu')

format:
	ruff check --fix .
	ruff format .
	clang-format -i $$(git ls-files 'csrc/*.h' 'csrc/*.cpp' 'csrc/*.cu')

docs:
	pytest --doctest-modules sure_fast --ignore=sure_fast/kernels
	python -m benchmarks.report benchmarks/results/cpu.json --write README.md
