"""The steps of the method in the style of the published code, as slow as it is there: NumPy, SciPy and scikit-image on
the CPU, Python loops over patch candidates and over chunks of materialised pairs. Written from the paper's description.
"""

from __future__ import annotations

import numpy as np
import torch
from scipy.ndimage import distance_transform_edt
from skimage.segmentation import find_boundaries

CHUNK = 20_000
MOST_PAIRS = 10**7


def distance_maps(label: torch.Tensor, classes: int) -> torch.Tensor:
    maps = []
    for image in label.numpy():
        boundary = np.zeros(image.shape, dtype=bool)
        for value in range(1, classes):
            boundary |= find_boundaries(image == value, connectivity=image.ndim, mode="thick")
        maps.append(distance_transform_edt(~boundary))
    return torch.from_numpy(np.stack(maps))


def gradient_maps(image: torch.Tensor) -> torch.Tensor:
    maps = [np.sqrt(sum(g**2 for g in np.gradient(x))) for x in image[:, 0].numpy()]
    return torch.from_numpy(np.stack(maps)) + 1e-8


def gradient_loss(u: torch.Tensor, g: torch.Tensor, d: torch.Tensor) -> torch.Tensor:
    """Sampled pairs of every image, chunk by chunk; one mean over all violating pairs."""
    losses = []
    for k in range(len(u)):
        near = d[k] <= 1
        a, b = u[k][near], g[k][near].float()
        n = len(a)
        i, j = torch.randint(0, n, (2, min(MOST_PAIRS, n * (n - 1) // 2)))
        total, count = a.new_zeros(()), 0
        for start in range(0, len(i), CHUNK):
            first, second = i[start : start + CHUNK], j[start : start + CHUNK]
            v = (b[first] - b[second]) * (a[first] - a[second])
            total = total + v[v > 0].sum()
            count += int((v > 0).sum())
        losses.append(total / max(count, 1))
    return torch.stack(losses).mean()


def hard_patches(u, noisy, label, d, *, classes: int, size: int, number: int) -> list[list[tuple[int, ...]]]:
    """One Python check after the other, until enough candidates do not overlap."""
    random = np.random.default_rng(0)
    hard = (noisy - u <= 0).numpy()
    drawn = []
    for k in range(len(u)):
        centers: list[tuple[int, ...]] = []
        for c in range(classes):
            candidates = np.argwhere(hard[k] & (label[k].numpy() == c))
            random.shuffle(candidates)
            wanted = len(centers) + number
            for candidate in candidates:
                place = tuple(int(x) for x in candidate)
                inside = all(size // 2 <= x < s - size // 2 for x, s in zip(place, label.shape[1:], strict=True))
                apart = all(max(abs(x - y) for x, y in zip(place, other, strict=True)) >= size for other in centers)
                if inside and apart and (c > 0 or d[k][place] < 4):
                    centers.append(place)
                if len(centers) == wanted:
                    break
        drawn.append(centers)
    return drawn


def noise_loss(u, u1, u2, d, centers, levels) -> torch.Tensor:
    """The order, distance and far terms, patch by patch."""
    wrong: list[list[torch.Tensor]] = [[], [], []]
    distance = u.new_zeros(())
    for k in range(len(u)):
        for place in centers[k]:
            if d[k][place] > 4:
                continue
            a, b, c = u[k][place].detach(), u1[k][place], u2[k][place]
            sets = ((c - b) * (levels[1] - levels[0]), (b - a) * levels[0], (c - a) * levels[1])
            for found, w in zip(wrong, sets, strict=True):
                if w < 0:
                    found.append(-w)
        for noisy in (u1, u2):
            values = []
            for i, first in enumerate(centers[k]):
                for second in centers[k][i + 1 :]:
                    changes = [
                        noisy[k][p] - u[k][p].detach() if d[k][p] <= 4 else u.new_zeros(()) for p in (first, second)
                    ]
                    v = (d[k][first] - d[k][second]) * (changes[0] - changes[1])
                    if v > 0:
                        values.append(v)
            distance = distance + (torch.stack(values).mean() if values else 0.0) / len(u)
    order = sum((torch.stack(found).mean() for found in wrong if found), start=u.new_zeros(()))
    far = d > 4
    return order + distance + (u + u1 + u2)[far].mean()
