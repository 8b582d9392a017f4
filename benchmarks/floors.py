"""The least time a kernel could take: its bytes over the measured copy rate, or its transcendental calls over their
measured rate, whichever is more. What the sorting ops move is counted with their passes.
"""

from __future__ import annotations

from typing import NamedTuple

MACHINE = "machine"
COPIED = 256 * 2**20
"""Bytes of the copied array; it is read and written."""
LENGTH, REPEATS = 4096, 200
FORMULAS = ("softplus", "sigmoid", "digamma", "trigamma", "entropic", "entropic_slope")
"""Of `sigmoid` the kernel computes softplus too."""


class Floor(NamedTuple):
    megabytes: float
    calls: dict[str, float]
    """Millions, by formula."""


def per_voxel(voxels: float, bytes_: float, **calls: float) -> Floor:
    millions = voxels / 1e6
    return Floor(millions * bytes_, {name: millions * number for name, number in calls.items()})


def evidential(voxels: float, classes: int) -> Floor:
    """Forward C softplus, C + 1 entropic, one digamma; backward the same of their derivatives."""
    return per_voxel(
        voxels, 3 * 4 * classes + 2 * 8, softplus=classes, entropic=classes + 1, digamma=1, sigmoid=classes,
        entropic_slope=classes + 1, trigamma=1,
    )  # fmt: skip


def pairs(elements: float, levels: int) -> Floor:
    """u, g, d, the slope twice and the gradient; two sorts of three passes over key and payload; 24 bytes dealt."""
    return per_voxel(elements, 24 + 2 * 3 * 16 + levels * 48)


def step(voxels: float, classes: int, far: float) -> Floor:
    """Evidential terms; both noisy logits forward and backward where far; u of the clean and the mined logits."""
    base = evidential(voxels, classes)
    more = per_voxel(
        voxels, 4 * classes * (2 + 6) + 60, softplus=classes * (2 + 2 * far), sigmoid=classes * 2 * far
    )  # fmt: skip
    calls = {name: base.calls.get(name, 0.0) + more.calls.get(name, 0.0) for name in FORMULAS}
    return Floor(base.megabytes + more.megabytes, calls)


CUBE = 128**3
FLOORS = {
    "boundary_distance [1, 128, 128, 128] max_distance=4.0": per_voxel(CUBE, 12),
    "boundary_distance [1, 128, 128, 128] max_distance=None": per_voxel(CUBE, 12),
    "dirichlet_uncertainty [2, 4, 96, 96, 96]": per_voxel(2 * 96**3, 20, softplus=4),
    "evidential_loss forward + backward [24, 4, 128, 128]": evidential(24 * 128**2, 4),
    "evidential_loss forward + backward [2, 4, 96, 96, 96]": evidential(2 * 96**3, 4),
    "gradient_magnitude [1, 1, 128, 128, 128]": per_voxel(CUBE, 8),
    "gradient_magnitude [24, 1, 128, 128]": per_voxel(24 * 128**2, 8),
    "gradient_uncertainty_loss forward + backward, 2 × 6000 boundary voxels": pairs(12_000, 2),
    "gradient_uncertainty_loss forward + backward, 1 × 1000000 boundary voxels": pairs(1e6, 4),
    "noise_uncertainty_loss forward + backward [2, 3, 96, 96, 96]": per_voxel(
        2 * 96**3, 8 + 3 * 3 * 4 * 3, softplus=4.5, sigmoid=4.5
    ),
    "pair_concordance [200000]": per_voxel(2e5, 16 + 2 * 3 * 24 + 3 * 8),
    "sample_hard_patches [24, 128, 128], 4 classes": per_voxel(24 * 128**2, 20),
    "segmentation_stats [1, 4, 128, 128, 128]": per_voxel(CUBE, 24, softplus=4),
    "spearman [200000]": per_voxel(2e5, 16 + 2 * 3 * 24),
    "surface_distances [1, 128, 128, 128], 4 classes": per_voxel(CUBE, 16),
    "training step [24, 1, 128, 128], 4 classes": step(24 * 128**2, 4, 0.46),
    "training step [2, 1, 96, 96, 96], 3 classes": step(2 * 96**3, 3, 0.34),
}


def table(groups: dict[str, list[dict]]) -> str:
    """Markdown: every group of FLOORS that was measured, against what the machine did in the same run."""
    machine = {e["extra_info"]["implementation"]: e["stats"]["median"] for e in groups[MACHINE]}
    rate = 2 * COPIED / machine["copy"]
    each = {name: machine[name] / (LENGTH * REPEATS) for name in FORMULAS}
    lines = [
        f"Copy {rate / 1e9:.1f} GB/s (read + write); one thread, ns a value: "
        + ", ".join(f"{name} {seconds * 1e9:.2f}" for name, seconds in each.items())
        + ".",
        "",
        "| op and input | MB | memory ms | arithmetic ms | measured ms | × floor | GB/s a thread |",
        "| --- | ---: | ---: | ---: | ---: | ---: | ---: |",
    ]
    for group, floor in FLOORS.items():
        ours = next(e for e in groups[group] if e["extra_info"]["implementation"] == "sure_fast")
        memory = floor.megabytes * 1e6 / rate
        threads = ours["extra_info"]["threads"]
        arithmetic = sum(n * 1e6 * each[name] for name, n in floor.calls.items()) / threads
        median = ours["stats"]["median"]
        cells = [f"{memory * 1e3:.2f}", f"{arithmetic * 1e3:.2f}" if floor.calls else "–", f"{median * 1e3:.2f}"]
        cells += [f"{median / max(memory, arithmetic):.1f}", f"{floor.megabytes / 1e3 / median / threads:.1f}"]
        lines.append(f"| {group} | {floor.megabytes:.1f} | {' | '.join(cells)} |")
    return "\n".join(lines)
