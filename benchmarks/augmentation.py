"""Milliseconds that the augmentation of a crop takes, by its size: python -m benchmarks.augmentation

The mean over 40 crops of one channel, in one process, of the presets, and of rotating every crop in nnU-Net's range.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch

from sure_fast.data.augment import Augmentation, nnunet

SIZES = ((32, 40, 28), (96, 96, 96), (128, 128), (256, 256))
CROPS = 40


def milliseconds(augment: str | list[Any], patch_size: Sequence[int]) -> float:
    change = Augmentation(augment, patch_size)
    shape = [size + 2 * margin for size, margin in zip(patch_size, change.margin, strict=True)]
    image = np.random.default_rng(0).standard_normal((1, *shape), dtype=np.float32)
    label = np.zeros(shape, np.int64)
    change(image.copy(), label.copy(), CROPS)  # what is loaded and allocated once
    started = time.perf_counter()
    for seed in range(CROPS):
        change(image.copy(), label.copy(), seed)
    return 1e3 * (time.perf_counter() - started) / CROPS


def main() -> None:
    print(f"{torch.get_num_threads()} threads\n")
    print("| Crop | `nnunet` | rotation of every crop | `mirror` |\n|---|---|---|---|")
    for size in SIZES:
        rotation = nnunet(size)[0]["RandAffined"]
        every = [{"RandAffined": {**rotation, "prob": 1.0}}]
        columns = [milliseconds(augment, size) for augment in ("nnunet", every, "mirror")]
        shown = f"{size[0]}³" if size == (96, 96, 96) else " × ".join(map(str, size))
        print(f"| {shown} | " + " | ".join(f"{value:.3g}" for value in columns) + " |")


if __name__ == "__main__":
    main()
