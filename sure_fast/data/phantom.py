"""An embedded data set: cardiac short-axis volumes made of formulas, for trials and tests without real data."""

from __future__ import annotations

import json
import os
import shutil
import tempfile
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from sure_fast.data.errors import DataError
from sure_fast.data.writing import save_nifti

CLASS_NAMES = {0: "background", 1: "right ventricle", 2: "myocardium", 3: "left ventricle"}
SHAPE = (64, 64, 16)
SPACING_MM = (1.5, 1.5, 5.0)
SUPERSAMPLING = (3, 3, 3)  # points a voxel and axis, for partial volume
SMALLEST = 8  # voxels an axis: below it the structures vanish
VERSION = 1  # raised when the same seed gives other volumes


@dataclass
class Phantom:
    """One volume.

    Args:
        image: int16 [X, Y, Z], as a scanner stores it, >= 0.
        label: uint8 [X, Y, Z]; classes are `CLASS_NAMES`, those of ACDC.
        spacing_mm: voxel size; Z runs from base to apex.
    """

    image: np.ndarray
    label: np.ndarray
    spacing_mm: tuple[float, float, float]


def generate(
    seed: int | Sequence[int] = 0,
    shape: Sequence[int] = SHAPE,
    spacing_mm: Sequence[float] = SPACING_MM,
) -> Phantom:
    r"""Make one short-axis volume with right ventricle, myocardium and left ventricle.

    Math:
        Structures are level sets in mm of radius functions R(θ, z) with low Fourier terms. Tissue intensities are mixed
        by edge profiles 1 / (1 + exp(−d/w)), d the distance to the contour; w varies with the angle, so part of each
        wall is sharp and part blurred. Blood, muscle and surroundings vary along the contour too (lung, liver and fat
        outside; a slow-flow and an enhanced sector inside): the contrast of an edge runs from strong to nearly none.
        The voxel is the mean over `SUPERSAMPLING` points, times a smooth bias field, plus texture; noise is Rician:
        sqrt((s + σ n₁)² + (σ n₂)²), n ~ N(0, 1).

    Args:
        seed: integer >= 0, or several; the volume is a function of it, the shape and the spacing.
        shape: X, Y, Z, each at least 8. The heart is drawn to scale, and smaller where it would not fit.
        spacing_mm: voxel size, > 0.

    Returns:
        A `Phantom`.

    Raises:
        DataError: shape or spacing that are none.

    Example:
        >>> volume = generate(3, shape=(32, 32, 8))
        >>> volume.image.shape, sorted(set(volume.label.flat))
        ((32, 32, 8), [np.uint8(0), np.uint8(1), np.uint8(2), np.uint8(3)])
    """
    size, spacing = _checked(shape, spacing_mm)
    random = np.random.default_rng(seed)
    heart = _Heart(random, size, spacing)
    signal, label = heart.rasterize()
    # Texture is fine grain that the tissue carries; the bias field is the coil's and multiplies all.
    grain = _smooth_field(random, size, spacing, wavelength_mm=(7.0, 30.0))
    bias = _smooth_field(random, size, spacing, wavelength_mm=(120.0, 260.0), waves=6)
    signal = signal * (1 + 0.07 * grain) * np.exp(random.uniform(0.10, 0.18) * bias)
    sigma = random.uniform(0.02, 0.04)
    noise = random.standard_normal((2, *size), dtype=np.float32) * sigma
    magnitude = np.hypot(signal + noise[0], noise[1])
    gain = np.exp(random.uniform(np.log(250), np.log(1800)))  # scanners have no common unit
    image = np.clip(np.rint(magnitude * gain), 0, 32767).astype(np.int16)
    return Phantom(image, label, spacing)


def write(
    root: str | os.PathLike[str],
    num_cases: int = 24,
    seed: int = 0,
    shape: Sequence[int] = SHAPE,
    spacing_mm: Sequence[float] = SPACING_MM,
    progress: Callable[[Iterable[int]], Iterable[int]] | None = None,
) -> Path:
    """Write a data set of phantoms in the layout of the Medical Segmentation Decathlon.

    Args:
        root: the folder to make; its parents are made too.
        num_cases: at least 1; case i is `generate((seed, i), shape, spacing_mm)`.
        seed: integer >= 0.
        shape, spacing_mm: as for `generate`.
        progress: wraps the iteration over the cases, such as `tqdm.tqdm`.

    Returns:
        `root`, with dataset.json, imagesTr/ and labelsTr/.

    Raises:
        DataError: a bad argument, or `root` holds something else than this very data set.

    Notes:
        Built beside `root` and moved there in one step: it is there whole or not at all. When `root` already holds the
        phantoms that these arguments give, they are kept as they are.
    """
    root = Path(root)
    size, spacing = _checked(shape, spacing_mm)
    for name, value, least in (("num_cases", num_cases, 1), ("seed", seed, 0)):
        if isinstance(value, bool) or not isinstance(value, (int, np.integer)) or value < least:
            raise DataError(f"{name}: expected a whole number >= {least}, got {value!r}")
    recipe = {
        "version": VERSION,
        "num_cases": int(num_cases),
        "seed": int(seed),
        "shape": list(size),
        "spacing_mm": list(spacing),
    }
    if _holds(root, recipe):
        return root
    root.parent.mkdir(parents=True, exist_ok=True)
    building = Path(tempfile.mkdtemp(prefix=f".{root.name}-", dir=root.parent))
    try:
        affine = np.diag([-spacing[0], -spacing[1], spacing[2], 1.0])
        affine[:3, 3] = [spacing[0] * (size[0] - 1) / 2, spacing[1] * (size[1] - 1) / 2, -spacing[2] * (size[2] - 1) / 2]
        pairs = []
        for index in range(num_cases) if progress is None else progress(range(num_cases)):
            volume = generate((seed, index), size, spacing)
            name = f"phantom_{index:03d}.nii.gz"
            save_nifti(building / "imagesTr" / name, volume.image, affine)
            save_nifti(building / "labelsTr" / name, volume.label, affine)
            pairs.append({"image": f"./imagesTr/{name}", "label": f"./labelsTr/{name}"})
        content = {
            "name": "Phantom",
            "description": "Simulated cardiac short-axis volumes",
            "tensorImageSize": "3D",
            "modality": {"0": "MRI"},
            "labels": {str(number): name for number, name in CLASS_NAMES.items()},
            "numTraining": int(num_cases),
            "numTest": 0,
            "training": pairs,
            "test": [],
            "phantom": recipe,
        }
        (building / "dataset.json").write_text(json.dumps(content, indent=1) + "\n", encoding="utf-8")
        building.chmod(0o755)  # mkdtemp makes it private
        if root.is_dir():
            root.rmdir()  # empty, as _holds has seen
        building.rename(root)
    except BaseException:
        shutil.rmtree(building, ignore_errors=True)
        raise
    return root


def _holds(root: Path, recipe: dict[str, object]) -> bool:
    """Whether root is this data set already; an empty or missing folder is not, anything else is an error."""
    if not root.exists() or (root.is_dir() and not any(root.iterdir())):
        return False
    try:
        found = json.loads((root / "dataset.json").read_text(encoding="utf-8")).get("phantom")
    except (OSError, ValueError, AttributeError):
        found = None
    if found != recipe:
        what = "other files" if found is None else f"phantoms made with {found}"
        raise DataError(f"{root}: expected no folder, an empty one, or phantoms made with {recipe}, got {what}")
    return True


def _checked(
    shape: Sequence[int], spacing_mm: Sequence[float]
) -> tuple[tuple[int, int, int], tuple[float, float, float]]:
    size = tuple(shape)
    if len(size) != 3 or not all(isinstance(n, (int, np.integer)) and n >= SMALLEST for n in size):
        raise DataError(f"shape: expected three whole numbers >= {SMALLEST}, got {shape!r}")
    spacing = tuple(float(s) for s in spacing_mm)
    if len(spacing) != 3 or not all(0 < s < float("inf") for s in spacing):
        raise DataError(f"spacing_mm: expected three numbers > 0, got {spacing_mm!r}")
    return (int(size[0]), int(size[1]), int(size[2])), (spacing[0], spacing[1], spacing[2])


def _smooth_field(
    random: np.random.Generator,
    size: Sequence[int],
    spacing: Sequence[float],
    wavelength_mm: tuple[float, float],
    waves: int = 40,
) -> np.ndarray:
    """A smooth random field, mean 0 and variance 1: cosines of random direction, wavelength and phase."""
    direction = random.standard_normal((waves, 3))
    direction /= np.linalg.norm(direction, axis=1, keepdims=True)
    number = 2 * np.pi / random.uniform(*wavelength_mm, (waves, 1))
    vectors = direction * number
    factors = [
        np.exp(1j * np.outer(vectors[:, axis], np.arange(n) * step)).astype(np.complex64)
        for axis, (n, step) in enumerate(zip(size, spacing, strict=True))
    ]
    factors[0] *= np.exp(1j * random.uniform(0, 2 * np.pi, (waves, 1))).astype(np.complex64)
    plane = (factors[0][:, :, None] * factors[1][:, None, :]).reshape(waves, -1)  # the exponential is separable
    field = (plane.T @ factors[2]).real * np.sqrt(2 / waves)
    return field.reshape(size).astype(np.float32)


def _bump(angle: np.ndarray, center: float, width: float) -> np.ndarray:
    """1 at an angle, falling smoothly to 0 around it (von Mises form); width in radians."""
    return np.exp((np.cos(angle - center) - 1) / width**2)


def _edge(distance: np.ndarray, width: np.ndarray | float) -> np.ndarray:
    """0 outside (distance < 0) to 1 inside over about 4 widths."""
    return 1 / (1 + np.exp(np.clip(-distance / width, -30, 30)))


class _Heart:
    """The geometry and tissues of one heart. Angles: 0 towards +x; the septum faces the right ventricle."""

    def __init__(
        self, random: np.random.Generator, size: tuple[int, int, int], spacing: tuple[float, float, float]
    ) -> None:
        self.size, self.spacing, self.random = size, spacing, random
        field = [n * s for n, s in zip(size, spacing, strict=True)]
        self.scale = min(1.0, min(field[:2]) / 96)  # the heart with its right ventricle needs 96 mm
        self.length = min(field[2] * random.uniform(0.88, 1.0), 105.0)
        self.base = (field[2] - self.length) * random.uniform(0.2, 0.8)  # mm from the first slice's face
        self.septum = np.pi + random.uniform(-0.5, 0.5)
        self.r_endo = random.uniform(17.5, 22.5)
        self.wall = random.uniform(7.5, 10.5)
        self.terms = random.normal(0, 1, (5, 2))

    def rasterize(self) -> tuple[np.ndarray, np.ndarray]:
        """Signal (float32, about 0 to 1) and label (uint8), slice by slice to keep the fine grid small."""
        signal = np.empty(self.size, dtype=np.float32)
        label = np.empty(self.size, dtype=np.uint8)
        nx, ny, nz = self.size
        fx, fy, fz = SUPERSAMPLING
        dx, dy, dz = self.spacing
        x = ((np.arange(nx * fx) + 0.5) / fx * dx - nx * dx / 2).astype(np.float32) / self.scale
        y = ((np.arange(ny * fy) + 0.5) / fy * dy - ny * dy / 2).astype(np.float32) / self.scale
        tissue = _Tissue(self.random, self.septum)
        for k in range(nz):
            votes = np.zeros((4, nx, ny), dtype=np.float32)
            total = np.zeros((nx, ny), dtype=np.float32)
            for sub in range(fz):
                depth = ((k + (sub + 0.5) / fz) * dz - self.base) / self.length
                fine, classes = self._plane(x[:, None], y[None, :], depth, tissue)
                total += fine.reshape(nx, fx, ny, fy).mean(axis=(1, 3))
                blocks = classes.reshape(nx, fx, ny, fy)
                for c in range(4):
                    votes[c] += (blocks == c).sum(axis=(1, 3))
            signal[:, :, k] = total / fz
            label[:, :, k] = votes.argmax(axis=0)
        return signal, label

    def _plane(self, x: np.ndarray, y: np.ndarray, depth: float, tissue: _Tissue) -> tuple[np.ndarray, np.ndarray]:
        """Signal and class on one fine plane; depth 0 at the base, 1 at the apex, beyond them no ventricle."""
        t = self.terms
        inside = min(max(depth, 0.0), 1.0)
        # The long axis is bent and oblique, so the center wanders from slice to slice.
        cx = 7.5 + 2.5 * t[0, 0] * (inside - 0.4) + 2.0 * t[0, 1] * inside**2
        cy = 2.5 * t[1, 0] * (inside - 0.4) - 2.0 * t[1, 1] * inside**2
        px, py = x - cx, y - cy
        radius, angle = np.hypot(px, py), np.arctan2(py, px)
        profile = np.sqrt(max(1 - inside**2.6, 0.0))
        cavity = np.sqrt(max(1 - min(inside / 0.93, 1.0) ** 2.6, 0.0))  # the cavity ends before the muscle does
        shape = 1 + 0.035 * (
            t[2, 0] * np.cos(2 * angle + 0.8 * inside)
            + t[2, 1] * np.cos(3 * angle + 1.7 * inside)
            + 0.5 * t[3, 0] * np.cos(5 * angle - 2.0 * inside)
        )
        endo = self.r_endo * cavity * shape
        wall = self.wall * (0.55 + 0.45 * profile) * (1 + 0.13 * np.cos(angle - self.septum + t[3, 1]))
        present = 0.0 <= depth < 1.0
        epi = np.where(profile > 0, endo + wall * min(1.0, 2.2 * profile), 0.0)
        d_endo, d_epi = endo - radius, epi - radius

        # Right ventricle: an ellipse beside the septum, cut by the left ventricle's outline; gone before the apex.
        right = np.sqrt(max(1 - (inside / 0.82) ** 2.2, 0.0)) if inside < 0.82 else 0.0
        along, across = -np.sin(self.septum), np.cos(self.septum)
        offset = (self.r_endo + self.wall) * (0.25 + 0.6 * right)
        u = (px - offset * np.cos(self.septum)) * np.cos(self.septum) + (py - offset * np.sin(self.septum)) * np.sin(
            self.septum
        )
        v = px * along + py * across
        half_u = (20 + 1.5 * t[4, 0]) * right + 1e-3
        half_v = (26 + 2.0 * t[4, 1]) * right * (1 - 0.12 * np.tanh(v / 15)) + 1e-3
        rho = np.hypot(u / half_u, v / half_v)
        d_right = (1 - rho) * np.minimum(half_u, half_v)  # near the contour about the distance in mm

        classes = np.zeros(radius.shape, dtype=np.uint8)
        if present:
            classes[(d_right > 0) & (d_epi <= 0)] = 1
            classes[d_epi > 0] = 2
            classes[d_endo > 0] = 3
        return tissue.mix(x, y, radius, angle, depth, present, d_endo, d_epi, d_right, endo), classes


class _Tissue:
    """Intensities (1 = bright blood of a balanced steady-state image) and edge widths, varying along the contours."""

    def __init__(self, random: np.random.Generator, septum: float) -> None:
        self.septum = septum
        self.blood = random.uniform(0.78, 0.9)
        self.right_blood = self.blood * random.uniform(0.82, 0.97)
        self.muscle = random.uniform(0.24, 0.32)
        self.slow_flow = random.uniform(-np.pi, np.pi), random.uniform(0.35, 0.5)
        self.enhanced = random.uniform(-np.pi, np.pi), random.uniform(0.12, 0.24)
        self.blurred = random.uniform(-np.pi, np.pi, 3)
        self.blur_mm = random.uniform(1.3, 2.4, 3)
        self.papillary = septum + np.pi + np.array([-0.95, 0.95]) + random.normal(0, 0.15, 2)
        self.papillary_radius = random.uniform(2.6, 3.8, 2)
        self.liver = random.uniform(0.26, 0.36)
        self.wobble = random.uniform(0, 2 * np.pi, 8)
        self.fat = septum + random.uniform(0.7, 1.3), random.uniform(0.5, 0.8)
        self.chest = random.uniform(33, 38)

    def mix(
        self,
        x: np.ndarray,
        y: np.ndarray,
        radius: np.ndarray,
        angle: np.ndarray,
        depth: float,
        present: bool,
        d_endo: np.ndarray,
        d_epi: np.ndarray,
        d_right: np.ndarray,
        endo: np.ndarray,
    ) -> np.ndarray:
        signal = self._surroundings(x, y, depth)
        width = [0.35 + blur * _bump(angle, at, 0.75) for at, blur in zip(self.blurred, self.blur_mm, strict=True)]
        if not present:
            # Beyond the base lie atria and great vessels: blood without a wall to segment; beyond the apex, nothing.
            if depth < 0:
                signal += (0.62 * self.blood - signal) * _edge(d_epi - 4, 1.6)
            return signal
        # Epicardial fat in a sector, in the grooves around both ventricles.
        rim = _bump(angle, self.fat[0], self.fat[1])
        fat = rim * _edge(np.maximum(d_epi, d_right) + 4.5, 0.8)
        signal += (0.80 - signal) * fat
        # Right ventricle with a thin free wall, then its blood, crossed by faint trabeculae.
        signal += (1.15 * self.muscle - signal) * _edge(d_right + 2.2, 0.5)
        trabeculae = 1 - 0.16 * np.cos(0.62 * x + self.wobble[0]) * np.cos(0.55 * y + self.wobble[1])
        signal += (self.right_blood * trabeculae - signal) * _edge(d_right, width[2])
        # Left ventricle: muscle brighter in one sector, blood darker in another.
        muscle = self.muscle + self.enhanced[1] * _bump(angle, self.enhanced[0], 0.7)
        signal += (muscle - signal) * _edge(d_epi, width[1])
        near_wall = _edge(5.0 - d_endo, 2.5)
        blood = self.blood * (1 - self.slow_flow[1] * _bump(angle, self.slow_flow[0], 0.8) * near_wall)
        for at, size in zip(self.papillary, self.papillary_radius, strict=True):
            if 0.25 < depth < 0.75:  # the papillary muscles count as blood pool in the label, as in ACDC
                place = 0.68 * float(endo.mean())
                away = np.hypot(radius * np.cos(angle) - place * np.cos(at), radius * np.sin(angle) - place * np.sin(at))
                blood = blood + (muscle - blood) * 0.9 * _edge(size - away, 0.5)
        signal += (blood - signal) * _edge(d_endo, width[0])
        return signal

    def _surroundings(self, x: np.ndarray, y: np.ndarray, depth: float) -> np.ndarray:
        """Lung beside the free wall, liver below, chest wall with fat in front: each meets the heart along an arc."""
        w = self.wobble
        side = np.array([-np.cos(self.septum), -np.sin(self.septum)])
        lateral = x * side[0] + y * side[1]
        front = -x * side[1] + y * side[0]
        wave = 3 * np.sin(0.09 * front + w[2]) + 2 * np.sin(0.17 * front + w[3] + 2 * depth)
        below = _edge(-front - 14 - 4 * np.sin(0.07 * lateral + w[4]) + 6 * depth, 1.2)
        vessels = np.cos(0.45 * x + w[5]) * np.cos(0.38 * y + w[6]) * np.cos(5 * depth + w[7])
        lung = 0.07 + 0.09 * np.maximum(vessels, 0)
        soft = 0.22 + 0.05 * np.sin(0.12 * lateral + w[6])
        ground = lung + (soft - lung) * _edge(-lateral - 12 + wave, 2.0)
        ground = ground + (self.liver * (1 + 0.12 * vessels) - ground) * below
        depth_in = front - self.chest + 0.5 * wave
        wall = 0.30 + 0.5 * _edge(depth_in - 5, 0.9)  # muscle first, then fat
        return (ground + (wall - ground) * _edge(depth_in, 1.0)).astype(np.float32)
