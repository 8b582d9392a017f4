"""Distances between the surface elements that marching cubes lays between the voxels of two masks.

Every corner where voxels meet holds the surface element that separates those of the mask from the others, with a length
in 2D and an area in 3D: the definition of Nikolov et al. (arXiv 1809.04430), in which a surface counts by its size and
not by its number of voxels.
"""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from functools import cache

import torch
from torch import Tensor

from ..ops._nearest import nearest_along

Corner = tuple[int, ...]
Point = tuple[float, ...]


@cache
def elements_of_codes(dims: int) -> tuple[tuple[tuple[Point, ...], ...], ...]:
    """For every set of the 2^dims voxels around a corner the polygons that cut it off, in units of a voxel."""
    corners = tuple(itertools.product((0, 1), repeat=dims))
    codes = []
    for code in range(1 << len(corners)):
        inside = {corner for bit, corner in enumerate(corners) if code >> bit & 1}
        # a mask and its complement have one surface: the fewer voxels are cut off
        fewer = inside if 2 * len(inside) <= len(corners) else set(corners) - inside
        codes.append(tuple(_polygons(fewer, dims)))
    return tuple(codes)


def _polygons(inside: set[Corner], dims: int) -> list[tuple[Point, ...]]:
    """Segments in 2D; in 3D the loops of the segments on the six faces."""
    if dims == 2:
        return list(_segments(inside, ((0, 0), (0, 1), (1, 1), (1, 0))))
    segments: list[tuple[Point, ...]] = []
    for axis, side in itertools.product(range(3), (0, 1)):
        ring = []
        for a, b in ((0, 0), (0, 1), (1, 1), (1, 0)):
            corner = [a, b]
            corner.insert(axis, side)
            ring.append(tuple(corner))
        segments += _segments(inside, tuple(ring))
    loops = []
    while segments:
        loop = list(segments.pop())
        while loop[-1] != loop[0]:
            following = next(segment for segment in segments if loop[-1] in segment)
            segments.remove(following)
            loop.append(following[0] if following[1] == loop[-1] else following[1])
        loops.append(tuple(loop[:-1]))
    return loops


def _segments(inside: set[Corner], ring: tuple[Corner, ...]) -> list[tuple[Point, ...]]:
    """Lines between the middles of the edges of a square where inside and outside meet; of two inside corners across
    from each other each is cut off by itself."""
    crossed = [tuple((x + y) / 2 for x, y in zip(ring[k - 1], ring[k], strict=True))
               for k in range(4) if (ring[k - 1] in inside) != (ring[k] in inside)]  # fmt: skip
    if len(crossed) < 4:
        return [tuple(crossed)] if crossed else []
    # the middles are in the order of the ring, each before its corner: those on both sides of an inside corner
    return [(crossed[k], crossed[(k + 1) % 4]) for k in range(4) if ring[k] in inside]


def _area(points: Tensor) -> float:
    """Of a polygon [n, 3], flat or not: that of the triangles which share the one corner that makes it largest."""
    areas = []
    for k in range(len(points)):
        sides = points.roll(-k, 0)[1:] - points[k]
        areas.append(float(torch.linalg.cross(sides[:-1], sides[1:]).norm(dim=1).sum()) / 2)
    return max(areas)


def sizes_of_codes(spacing: Sequence[float]) -> Tensor:
    """Length or area of the elements of every code, float64 [2^(2^dims)], in the unit of the spacing."""
    scale = torch.tensor(spacing, dtype=torch.float64)
    sizes = []
    for polygons in elements_of_codes(len(spacing)):
        total = 0.0
        for polygon in polygons:
            points = torch.tensor(polygon, dtype=torch.float64) * scale
            total += float((points[1] - points[0]).norm()) if len(spacing) == 2 else _area(points)
        sizes.append(total)
    return torch.tensor(sizes, dtype=torch.float64)


def _codes(mask: Tensor) -> Tensor:
    """int64, for every corner of the voxels of mask [*S] which of those around it are inside; [S + 1]."""
    padded = torch.nn.functional.pad(mask.to(torch.int64), [1, 1] * mask.dim())
    code = torch.zeros([n + 1 for n in mask.shape], dtype=torch.int64, device=mask.device)
    for bit, corner in enumerate(itertools.product((0, 1), repeat=mask.dim())):
        window = tuple(slice(k, k + n + 1) for k, n in zip(corner, mask.shape, strict=True))
        code += padded[window] << bit
    return code


def _distance_to(points: Tensor, spacing: Sequence[float]) -> Tensor:
    """float64, from every place of a grid to the nearest of the bool `points`."""
    squared = torch.zeros(points.shape, dtype=torch.float64, device=points.device).masked_fill(~points, torch.inf)
    for axis, step in enumerate(spacing):
        squared = nearest_along(squared, axis, step)
    return squared.sqrt()


def element_distances(a: Tensor, b: Tensor, spacing: Sequence[float]) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Of the surfaces of two masks [*S]: the distance from each element to the nearest of the other, and its size.

    Returns:
        (distances of a, sizes of a, distances of b, sizes of b), float64, each surface by rising distance; +inf where
        the other one has none.
    """
    occupied = (a | b).nonzero()
    if len(occupied):  # nothing of either surface lies elsewhere
        box = tuple(slice(int(low), int(high) + 1)
                    for low, high in zip(occupied.amin(0), occupied.amax(0), strict=True))  # fmt: skip
        a, b = a[box], b[box]
    table = sizes_of_codes(spacing).to(a.device)
    codes = [_codes(mask) for mask in (a, b)]
    surfaces = [table[code] > 0 for code in codes]
    results = []
    for own, other in ((0, 1), (1, 0)):
        distance = _distance_to(surfaces[other], spacing)[surfaces[own]]
        distance, order = distance.sort(stable=True)
        results += [distance, table[codes[own]][surfaces[own]][order]]
    return results[0], results[1], results[2], results[3]


def percentile_by_size(distance: Tensor, size: Tensor, percent: float) -> Tensor:
    """The smallest of the rising distances up to which `percent` of the surface lies."""
    share = size.cumsum(0) / size.sum()
    index = torch.searchsorted(share, torch.tensor(percent / 100.0, dtype=torch.float64, device=share.device))
    return distance[index.clamp(max=len(distance) - 1)]
