"""One table of tolerances: (rtol, atol) of a kernel against the float64 reference, by dtype.

Half precision rounds each output once more than float32 arithmetic: one unit in the last place of the stored result.
"""

from __future__ import annotations

import torch

TOLERANCE = {
    torch.float64: (1e-12, 1e-12),
    torch.float32: (2e-6, 2e-6),
    torch.bfloat16: (2**-8, 2**-9),
    torch.float16: (2**-11, 2**-12),
}

INTERPRETED = {torch.bfloat16: 2**-7}
"""The least rtol in Triton's interpreter, which cuts the mantissa of a bfloat16 off instead of rounding it."""

EXCEPTIONS = {
    # With strong evidence the reference's lgamma terms cancel against each other; the kernel's do so on paper.
    ("evidential_loss", torch.float64): (1e-11, 1e-11),
    # The KL term of one voxel is what is left of terms of both signs; their mean over voxels shows none of it.
    ("evidential_loss.voxels", torch.float64): (1e-11, 1e-11),
    ("evidential_loss.voxels", torch.float32): (2e-6, 6e-6),
    # torch's float64 trigamma is good to about 1e-9 relative; SciPy's, against which the kernel's is tested, to 1e-15.
    ("evidential_loss.gradient", torch.float64): (1e-8, 1e-9),
    # A sum of terms of both signs, relative to the largest gradient.
    ("evidential_loss.gradient", torch.float32): (1e-5, 4e-6),
    ("evidential_loss.gradient", torch.bfloat16): (2**-7, 2e-4),
    ("evidential_loss.gradient", torch.float16): (2**-10, 2e-5),
    # A Gaussian of up to eleven taps an axis is rounded once more, in the kernel and in SciPy.
    ("gradient_magnitude.blurred", torch.float64): (1e-10, 1e-12),
    # Each distance is rounded to float32 once.
    ("boundary_distance", torch.float32): (3e-7, 0.0),
    # Means and percentiles of distances that a float32 holds.
    ("surface_distances", torch.float64): (1e-6, 1e-6),
    # The composition reads distances from a float32 map; the kernel has them in float64.
    ("uncertainty_supervision", torch.float64): (1e-7, 1e-9),
    ("uncertainty_supervision.gradient", torch.float64): (1e-7, 1e-8),
    # The same kernel, with a gradient through u added; a pair whose order of g or u is a rounding away changes sides.
    ("uncertainty_supervision.gradient", torch.float32): (1e-4, 1e-5),
    ("uncertainty_supervision.gradient", torch.bfloat16): (2**-5, 0.02),
    ("uncertainty_supervision.gradient", torch.float16): (2**-7, 0.005),
    # Its maps of u and g are rounded to float32, where the one kernel keeps them in registers: more pairs change sides.
    ("uncertainty_supervision.composed", torch.float64): (1e-7, 1e-8),
    ("uncertainty_supervision.composed", torch.float32): (1e-3, 1e-4),
    ("uncertainty_supervision.composed", torch.bfloat16): (2**-5, 0.02),
}


def tolerance(dtype: torch.dtype, what: str = "", *, interpreted: bool = False) -> dict[str, float]:
    rtol, atol = EXCEPTIONS.get((what, dtype), TOLERANCE[dtype])
    return {"rtol": max(rtol, INTERPRETED.get(dtype, 0.0)) if interpreted else rtol, "atol": atol}
