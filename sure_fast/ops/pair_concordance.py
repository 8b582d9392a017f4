"""Counts of concordant, discordant and tied pairs."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from .. import _backends, _checks, _cpu
from ..reference.pair_concordance import pair_concordance as _reference
from . import _calls
from ._calls import workspace

MOST_ELEMENTS = 2**31 - 1
"""Elements of a row that the kernels' 32-bit ranks can tell apart."""


def row_pairs_cpu_supports(a: Tensor, *_: object, **__: object) -> str | None:
    if a.device.type != "cpu":
        return f"a is on {a.device}, not on the CPU"
    if a.dim() and a.shape[-1] > MOST_ELEMENTS:
        return f"a row has {a.shape[-1]} elements, more than {MOST_ELEMENTS}"
    return None


def row_pairs_cuda_supports(a: Tensor, *_: object, **__: object) -> str | None:
    if a.dim() and a.shape[-1] > MOST_ELEMENTS:
        return f"a row has {a.shape[-1]} elements, more than {MOST_ELEMENTS}"
    return _calls.supports("a", a)


_backends.register("pair_concordance", cpu=row_pairs_cpu_supports, cuda=row_pairs_cuda_supports)


class PairConcordance(NamedTuple):
    """Numbers of unordered pairs, int64; the first five add up to n(n - 1)/2."""

    concordant: Tensor
    discordant: Tensor
    ties_a: Tensor
    """Tied in a, not in b."""
    ties_b: Tensor
    """Tied in b, not in a."""
    ties_both: Tensor
    close: Tensor
    """Of ties_a, those with |b_i - b_j| < tolerance."""


def rows(a: Tensor, b: Tensor, mask: Tensor | None) -> tuple[Tensor, Tensor, Tensor | None, torch.Size]:
    """Checked [..., n] arguments as float32 or float64 [rows, n], a bool mask or None, and the leading shape."""
    a, b = _checks.floating("a", a), _checks.floating("b", b)
    if a.dim() < 1:
        raise ValueError("a: expected [..., n], got a 0-dim tensor")
    if a.shape != b.shape:
        raise ValueError(f"b: expected the shape of a {_checks.shape_text(a.shape)}, got {_checks.shape_text(b.shape)}")
    _checks.same_device("b", b, "a", a)
    shape = a.shape[:-1]
    n, count = a.shape[-1], shape.numel()
    if mask is not None:
        if _checks.tensor("mask", mask).dtype != torch.bool or mask.shape != a.shape:
            raise ValueError(
                f"mask: expected bool {_checks.shape_text(a.shape)}, got {mask.dtype} {_checks.shape_text(mask.shape)}"
            )
        mask = mask.reshape(count, n)
    dtype = torch.float64 if torch.float64 in (a.dtype, b.dtype) else torch.float32
    a, b = (x.detach().to(dtype).reshape(count, n) for x in (a, b))
    return a, b, mask, shape


def row_pair_args(a: Tensor, b: Tensor, mask: Tensor | None) -> _cpu.RowPairArgs:
    """The CPU kernels' arguments of contiguous [rows, n] tensors."""
    most = a.shape[1] if mask is None else int(mask.sum(1).max())
    return _cpu.RowPairArgs(a, b, mask, most=most, threads=torch.get_num_threads())


@torch.library.custom_op("sure_fast::pair_concordance", mutates_args=(), device_types=("cpu", "cuda"))
def _op(a: Tensor, b: Tensor, mask: Tensor | None, tolerance: float, backend: str = "cpu") -> Tensor:
    counts = _empty(a)
    if a.numel() == 0:
        return counts.zero_()
    a, b, mask = a.contiguous(), b.contiguous(), None if mask is None else mask.contiguous()
    if backend == "cuda":
        library, cuda_args = _calls.library, _calls.library.RowPairArgs(a, b, mask)
        with _calls.stream(a) as stream:
            scratch = workspace(library.pair_concordance_workspace(cuda_args, stream), a)
            library.pair_concordance_forward(cuda_args, stream, tolerance, scratch, counts)
        return counts
    args = row_pair_args(a, b, mask)
    scratch = workspace(_cpu.pair_concordance_workspace(args))
    _cpu.pair_concordance_forward(args, tolerance, scratch, counts)
    return counts


@_op.register_fake
def _empty(a: Tensor, *_: object) -> Tensor:
    return a.new_empty((a.shape[0], 6), dtype=torch.int64)


def pair_concordance(
    a: Tensor, b: Tensor, *, mask: Tensor | None = None, tolerance: float = 0.0, backend: str | None = None
) -> PairConcordance:
    r"""Counts every unordered pair of elements by how it is ordered in a and in b.

    Math:
        Concordant: (a_i - a_j)(b_i - b_j) > 0; discordant: < 0; the others are tied in a, in b or in both. Counted by
        sorting and merging (Knight, JASA 61, 1966), all n(n - 1)/2 pairs, without a matrix.

    Args:
        a, b: [..., n] floating, one ranking a row.
        mask: bool [..., n], the elements that count; None: all.
        tolerance: differences in b below it are `close`, >= 0.

    Returns:
        PairConcordance(concordant, discordant, ties_a, ties_b, ties_both, close), int64 [...].

    Raises:
        TypeError, ValueError: wrong types, shapes or tolerance; a NaN among the elements that count (on the CPU; the
            cuda backend counts -1 in such a row).

    Grad:
        None.

    Notes:
        Exact and deterministic, O(n log n) time and O(n) memory a row. Fewer than two elements: all counts 0.

    Example:
        >>> import sure_fast, torch
        >>> out = sure_fast.pair_concordance(torch.tensor([1.0, 2.0, 3.0]), torch.tensor([1.0, 3.0, 2.0]))
        >>> out.concordant.item(), out.discordant.item()
        (2, 1)
    """
    a, b, mask, shape = rows(a, b, mask)
    tolerance = _checks.positive("tolerance", tolerance, zero=True)
    chosen = _backends.choose("pair_concordance", backend, a)
    looks = a.device.type == "cpu" and not torch.compiler.is_compiling()
    if chosen != "reference":
        counts = _op(a, b, mask, tolerance, chosen)
        spoiled = looks and counts.numel() > 0 and int(counts.min()) < 0
    else:
        spoiled = looks and bool(_nan(a, b, mask).any())
        mask = torch.ones_like(a, dtype=torch.bool) if mask is None else mask
        counts = torch.stack(_reference(a.double(), b.double(), mask=mask, tolerance=tolerance), -1)
    if spoiled:
        name = "a" if bool(_nan(a, a, mask).any()) else "b"
        raise ValueError(f"{name}: expected numbers, got NaN")
    return PairConcordance(*(count.reshape(shape) for count in counts.unbind(-1)))


def _nan(a: Tensor, b: Tensor, mask: Tensor | None) -> Tensor:
    spoiled = a.isnan() | b.isnan()
    return spoiled if mask is None else spoiled & mask
