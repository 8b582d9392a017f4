"""The project's own rules: one op, one name, everywhere."""

from __future__ import annotations

import ast
import inspect
import itertools
import re
from pathlib import Path

import pytest

import sure_fast
from sure_fast import _backends
from sure_fast.methods import METHODS

ROOT = Path(__file__).parent.parent
OPS = _backends.registered()
COMMANDS = ("train.py", "evaluate.py", "predict.py", "view.py", "compare.py", "info.py")
SOURCES = {"cpu": "csrc/cpu/{}.cpp", "cuda": "csrc/cuda/{}.cu", "triton": "kernels/{}.py"}


@pytest.mark.parametrize("op", OPS)
def test_every_op_has_its_files(op):
    wanted = ["sure_fast/ops/{}.py", "sure_fast/reference/{}.py", "tests/ops/test_{}.py", "benchmarks/bench_{}.py"]
    wanted = [path.format(op) for path in wanted]
    wanted += [SOURCES[backend].format(op) for backend in OPS[op] if backend != "reference"]
    missing = [path for path in wanted if not (ROOT / path).is_file()]
    assert not missing


@pytest.mark.parametrize("module", ["cpu", "cuda"])
@pytest.mark.parametrize("op", OPS)
def test_every_compiled_op_has_one_binding(op, module):
    """That of its name, or of what it shares with another op."""
    if module not in OPS[op]:
        return
    folder = ROOT / "csrc/bindings" / module
    of = {other: [] for other in OPS}
    for file in folder.glob("*.cpp"):
        text = file.read_text()
        for other in OPS:
            if f'#include "{module}/{other}.h"' in text or f'm.def("{other}_' in text:
                of[other].append(file.stem)
    assert of[op] == [op] or sum(bindings == of[op] for bindings in of.values()) > 1, of[op]


@pytest.mark.parametrize("pattern", SOURCES.values())
def test_every_kernel_says_in_a_few_lines_what_it_does(pattern):
    for file in (ROOT / pattern).parent.glob(f"*{Path(pattern).suffix}"):
        if file.name == "__init__.py":
            continue
        text = file.read_text()
        if file.suffix == ".py":
            header = (ast.get_docstring(ast.parse(text)) or "").splitlines()
        else:
            header = list(itertools.takewhile(lambda line: line.startswith("//"), text.splitlines()))
        assert 1 <= len(header) <= 12, (file, len(header))


@pytest.mark.parametrize("op", OPS)
def test_every_backend_of_an_op_is_tested(op):
    """The fixtures of tests/ops/backends.py give a test every backend that is registered, unless `@on` narrows them."""
    tree = ast.parse((ROOT / "tests" / "ops" / f"test_{op}.py").read_text())
    fixtures = {}
    for node in tree.body:
        if isinstance(node, ast.FunctionDef) and not any(ast.unparse(d).startswith("on(") for d in node.decorator_list):
            fixtures[node.name] = {argument.arg for argument in node.args.args}
    against_the_reference = [name for name in fixtures if name.startswith(("test_kernel_agrees", "test_kernel_is_the"))]
    assert any(fixtures[name] & {"kernel", "variant"} for name in against_the_reference)
    assert "variant" in fixtures["test_same_bits_however_it_runs"]
    assert "backend" in fixtures["test_errors_name_the_argument"]


def test_every_kernel_file_belongs_to_a_registered_op():
    for backend, pattern in SOURCES.items():
        folder, suffix = (ROOT / pattern).parent, Path(pattern).suffix
        for file in folder.glob(f"*{suffix}"):
            # what kernels share, the scalar formulas of the CPU for tests, and what CUDA the library is of
            if not file.stem.startswith("_") and file.stem not in ("special_functions", "versions"):
                assert backend in OPS[file.stem]


@pytest.mark.parametrize("op", OPS)
def test_every_op_is_public_and_documented(op):
    function = getattr(sure_fast, op)
    assert op in sure_fast.__all__
    assert list(inspect.signature(function).parameters)[-1] == "backend"
    text = inspect.getdoc(function)
    for section in ("Math:", "Args:", "Returns:", "Raises:", "Grad:", "Notes:", "Example:"):
        assert section in text, section


def test_files_stay_readable():
    for pattern in (
        "sure_fast/**/*.py",
        "csrc/**/*.h",
        "csrc/**/*.cpp",
        "csrc/**/*.cu",
        "kernels/*.py",
        "tests/**/*.py",
    ):
        for file in ROOT.glob(pattern):
            assert len(file.read_text().splitlines()) <= 520, file
            if file.suffix != ".py":
                continue
            for node in ast.walk(ast.parse(file.read_text())):
                if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef) and node.end_lineno:
                    text = ast.get_docstring(node, clean=False) or ""
                    lines = node.end_lineno - node.lineno + 1 - (len(text.splitlines()) if text else 0)
                    assert lines <= 65, (file, node.name, lines)


def test_rooms_know_only_what_they_may():
    allowed = {
        "ops": {"ops", "reference", "kernels", "_checks", "_backends", "_cpu", "_cuda", "_distributed"},
        "metrics": {"metrics", "ops", "_checks"},
        "losses": {"losses", "ops", "_checks", "_distributed"},
    }
    for room, others in allowed.items():
        for file in (ROOT / "sure_fast" / room).glob("*.py"):
            for dots, name in re.findall(r"^\s*from (\.+)(\w*)", file.read_text(), re.M):
                assert len(dots) == 1 or not name or name in others, (file, name)
    for file in (ROOT / "sure_fast").rglob("*.py"):
        if file.parent.name not in ("engine", "comparison") and file.name not in (*COMMANDS, "__main__.py"):
            assert not re.search(r"^\s*from \.+engine", file.read_text(), re.M), file
        if file.parent.name != "comparison" and file.name != "compare.py":
            assert not re.search(r"^\s*from \.+comparison", file.read_text(), re.M), file


def imports_of(file):
    """(dots, module, names) of the relative imports that run; those for types alone do not."""
    tree = ast.parse(file.read_text())
    types = [node for node in ast.walk(tree) if isinstance(node, ast.If) and ast.unparse(node.test) == "TYPE_CHECKING"]
    left_out = {id(node) for block in types for node in ast.walk(block)}
    for node in ast.walk(tree):
        if isinstance(node, ast.ImportFrom) and id(node) not in left_out:
            yield node.level, node.module or "", [alias.name for alias in node.names]
        elif isinstance(node, ast.Import):
            yield from ((0, alias.name, []) for alias in node.names)


def test_the_reference_is_an_oracle_of_its_own():
    """It shares no line with what it is held against, and serves it as a fallback alone."""
    for file in (ROOT / "sure_fast" / "reference").glob("*.py"):
        for dots, module, _ in imports_of(file):
            assert dots <= 1, (file, module)
            assert dots == 1 or not module.startswith("sure_fast"), (file, module)
    for file in (ROOT / "sure_fast").rglob("*.py"):
        if file.parent.name == "reference":
            continue
        for dots, module, names in imports_of(file):
            if "reference" in module.split(".") or "reference" in names:
                assert file.parent.name == "ops", file
                assert (dots, module, names) == (2, f"reference.{file.stem}", [file.stem]), file


def test_methods_are_listed_once():
    """Nothing but the records lists the methods."""
    for file in (ROOT / "sure_fast").rglob("*.py"):
        names = [name for name in METHODS if f'"{name}": ' in file.read_text()]
        assert len(names) < 4 or file.name == "methods.py", (file, names)


def test_commands_are_thin():
    for name in COMMANDS:
        text = (ROOT / "sure_fast" / name).read_text()
        assert len(text.splitlines()) <= 150, name
        assert not re.search(rf"from \.({'|'.join(c.removesuffix('.py') for c in COMMANDS)}) import", text), name
