"""Prints versions, instruction set, threads, and the backends of every op: python -m sure_fast.info"""

from __future__ import annotations

import importlib.metadata
import platform

from .engine.cli import Parser

PROGRAM = "sure_fast.info"


def version(package: str) -> str:
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return "not installed"


def report() -> str:
    import torch

    from . import __version__, _backends
    from ._cpu import best_isa, isa, openmp

    lines = [
        f"sure_fast   {__version__}",
        f"Python      {platform.python_version()} on {platform.system()} {platform.machine()}",
        *(f"{name:<11} {version(name)}" for name in ("torch", "numpy", "monai", "nibabel", "triton")),
        f"CPU         instruction set {isa()} (best here: {best_isa()}), "
        f"OpenMP {'yes' if openmp() else 'no'}, {torch.get_num_threads()} threads",
        f"CUDA        {cuda()}; {cuda_library()}",
        f"Triton      {triton()}",
        f"backend     {_backends.requested() or 'chosen by the arguments'}",
        "",
        f"{'op':<27} {'runs here on':<24} backends, preferred first",
        *(f"{op:<27} {here(op):<24} {', '.join(backends)}" for op, backends in _backends.registered().items()),
    ]
    return "\n".join(lines)


def here(op: str) -> str:
    """The op's backend for each kind of device of this machine."""
    import torch

    from .engine.backends import backend_on

    kinds = ["cpu", *(["cuda"] if torch.cuda.is_available() else [])]
    return ", ".join(f"{kind}: {backend_on(op, torch.device(kind))}" for kind in kinds)


def cuda() -> str:
    import torch

    if not torch.cuda.is_available():
        return "no device"
    return ", ".join(torch.cuda.get_device_name(i) for i in range(torch.cuda.device_count()))


def cuda_library() -> str:
    import torch

    from .ops import _calls

    if _calls.missing is not None:
        return _calls.missing
    devices = range(torch.cuda.device_count()) if torch.cuda.is_available() else ()
    reasons = [reason for index in devices if (reason := _calls.architecture(index)) is not None]
    return "; ".join(reasons) or f"kernels built for compute capability {_calls.built_for()}"


def triton() -> str:
    import torch

    from .ops import _triton

    if _triton.MISSING is not None:
        return f"no kernels: {_triton.MISSING}"
    if _triton.INTERPRETED:
        return "kernels are interpreted (TRITON_INTERPRET=1), also on CPU tensors where they are asked for"
    return "kernels for CUDA tensors" if torch.cuda.is_available() else "no kernels: there is no CUDA device"


def main(arguments: list[str] | None = None) -> None:
    Parser(prog=PROGRAM, description=__doc__).parse_args(arguments)
    print(report())


if __name__ == "__main__":
    from .engine import cli

    cli.run(PROGRAM, main)
