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

from sure_fast import _checks
from sure_fast.data.errors import DataError
from sure_fast.data.writing import save_nifti

CLASS_NAMES = {0: "background", 1: "right ventricle", 2: "myocardium", 3: "left ventricle"}
SHAPE = (64, 64, 16)
SPACING_MM = (1.5, 1.5, 5.0)
SUPERSAMPLING = (2, 2, 3)  # points a voxel and axis, for partial volume
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
        spacing_mm: voxel size.

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
        affine[:3, 3] = -affine[:3, :3] @ (np.array(size) - 1) / 2  # the middle at 0
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
        stored = json.loads((root / "dataset.json").read_text(encoding="utf-8")).get("phantom")
    except (OSError, ValueError, AttributeError):
        stored = None
    if stored != recipe:
        what = "other files" if stored is None else f"phantoms made with {stored}"
        raise DataError(f"{root}: expected no folder, an empty one, or phantoms made with {recipe}, got {what}")
    return True


def _checked(
    shape: Sequence[int], spacing_mm: Sequence[float]
) -> tuple[tuple[int, int, int], tuple[float, float, float]]:
    size = tuple(shape)
    if len(size) != 3 or not all(isinstance(n, (int, np.integer)) and n >= SMALLEST for n in size):
        raise DataError(f"shape: expected three whole numbers >= {SMALLEST}, got {shape!r}")
    spacing = tuple(float(s) for s in spacing_mm)
    if len(spacing) != 3 or not _checks.are_sizes(spacing):
        raise DataError(f"spacing_mm: expected three numbers from 1e-12 to 1e12, got {spacing_mm!r}")
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


class _Waves:
    """A smooth random field on planes: cosines of random direction, wavelength and phase; variance about 1."""

    def __init__(self, random: np.random.Generator, wavelength_mm: tuple[float, float], count: int = 10) -> None:
        direction = random.uniform(0, 2 * np.pi, count)
        number = 2 * np.pi / random.uniform(*wavelength_mm, count)
        self.kx, self.ky = number * np.cos(direction), number * np.sin(direction)
        self.kz = random.normal(0, 1, count) * number
        self.phase = random.uniform(0, 2 * np.pi, count)

    def plane(self, x: np.ndarray, y: np.ndarray, z: float) -> np.ndarray:
        """The field at x [X], y [Y] and one z, all in mm: [X, Y]."""
        first = np.exp(1j * (np.outer(x, self.kx) + self.kz * z + self.phase)).astype(np.complex64)
        second = np.exp(1j * np.outer(self.ky, y)).astype(np.complex64)
        return (first @ second).real * np.float32(np.sqrt(2 / len(self.kx)))


class _Around:
    """Functions of the angle, read from a table: a plane asks for a dozen, each costs an index instead of cosines."""

    STEPS = 2048
    ANGLES = np.linspace(-np.pi, np.pi, STEPS, endpoint=False, dtype=np.float32)

    def __init__(self, px: np.ndarray, py: np.ndarray) -> None:
        turn = np.arctan2(py, px) * np.float32(self.STEPS / (2 * np.pi)) + self.STEPS / 2
        self.index = turn.astype(np.int32) % self.STEPS

    def read(self, table: np.ndarray) -> np.ndarray:
        """table [STEPS], made from ANGLES, at every point of the plane."""
        return table.astype(np.float32, copy=False)[self.index]


def _bump(center: float, width: float) -> np.ndarray:
    """Table: 1 at an angle, falling smoothly to 0 around it (von Mises form); width in radians."""
    return np.exp((np.cos(_Around.ANGLES - center) - 1) / width**2)


def _edge(distance: np.ndarray, width: np.ndarray | float) -> np.ndarray:
    """0 outside (distance < 0) to 1 inside over about 4 widths: 1 / (1 + exp(−d/w))."""
    return 0.5 + 0.5 * np.tanh(distance * (0.5 / width))


class _Heart:
    """The geometry of one heart, in mm. Angle 0 points along +x, away from the right ventricle; −y is the front."""

    def __init__(
        self, random: np.random.Generator, size: tuple[int, int, int], spacing: tuple[float, float, float]
    ) -> None:
        self.size, self.spacing = size, spacing
        field = [n * s for n, s in zip(size, spacing, strict=True)]
        self.scale = min(1.0, min(field[:2]) / 96)  # the heart with its right ventricle needs 96 mm
        self.length = min(field[2] * random.uniform(0.88, 1.0), 105.0)
        self.base = (field[2] - self.length) * random.uniform(0.2, 0.8)  # from the face of the first slice
        self.septum = np.pi + random.uniform(-0.5, 0.5)
        self.r_endo = random.uniform(17.0, 21.5)
        self.wall = random.uniform(7.0, 10.0)
        self.right_size = random.uniform(21, 26), random.uniform(26, 31)
        self.terms: list[float] = random.normal(0, 1, 8).tolist()  # Python floats keep the planes in float32
        self.tissue = _Tissue(random, self.septum)

    def rasterize(self) -> tuple[np.ndarray, np.ndarray]:
        """Signal (float32, about 0 to 1) and label (uint8), slice by slice to keep the fine grid small."""
        signal = np.empty(self.size, dtype=np.float32)
        label = np.empty(self.size, dtype=np.uint8)
        nx, ny, nz = self.size
        fx, fy, fz = SUPERSAMPLING
        dx, dy, dz = self.spacing
        x = ((np.arange(nx * fx) + 0.5) / fx * dx - nx * dx / 2).astype(np.float32) / self.scale
        y = ((np.arange(ny * fy) + 0.5) / fy * dy - ny * dy / 2).astype(np.float32) / self.scale
        for k in range(nz):
            votes = np.zeros((len(CLASS_NAMES), nx, ny), dtype=np.int32)
            total = np.zeros((nx, ny), dtype=np.float32)
            for sub in range(fz):
                depth = float((k + (sub + 0.5) / fz) * dz - self.base) / self.length
                fine, classes = self._plane(x, y, depth)
                total += fine.reshape(nx, fx, ny, fy).sum(axis=(1, 3))
                for c, vote in enumerate(votes):
                    vote += (classes == c).reshape(nx, fx, ny, fy).sum(axis=(1, 3))
            signal[:, :, k] = total / (fx * fy * fz)
            # First heart or not, then which part: a plain majority would open the wall in slices that are half outside.
            heart = 2 * votes[0] <= fx * fy * fz
            label[:, :, k] = np.where(heart, 1 + votes[1:].argmax(axis=0), 0)
        return signal, label

    def _plane(self, x: np.ndarray, y: np.ndarray, depth: float) -> tuple[np.ndarray, np.ndarray]:
        """Signal and class on one fine plane; depth 0 at the base, 1 at the apex, beyond them no ventricle."""
        t = self.terms
        inside = min(max(depth, 0.0), 1.0)
        # The long axis is bent and oblique, so the center wanders from slice to slice.
        px = (x - (8.5 + 2.5 * t[0] * (inside - 0.4) + 2.0 * t[1] * inside**2))[:, None]
        py = (y - (2.5 * t[2] * (inside - 0.4) - 2.0 * t[3] * inside**2))[None, :]
        radius, around = np.hypot(px, py), _Around(px, py)
        theta = _Around.ANGLES
        profile = max(1 - inside**2.6, 0.0) ** 0.5
        cavity = max(1 - min(inside / 0.93, 1.0) ** 2.6, 0.0) ** 0.5  # the cavity ends before the muscle does
        outline = 1 + 0.035 * (
            t[4] * np.cos(2 * theta + 0.8 * inside)
            + 0.7 * t[5] * np.cos(3 * theta + 1.7 * inside)
            + 0.25 * t[6] * np.cos(5 * theta - 2.0 * inside)
        )
        endo = self.r_endo * cavity * outline
        wall = self.wall * (0.55 + 0.45 * profile) * (1 + 0.13 * np.cos(theta - self.septum + t[7]))
        d_endo = around.read(endo) - radius
        d_epi = around.read(endo + wall * min(1.0, 2.2 * profile)) - radius

        # Right ventricle: an ellipse beside the septum, cut by the left ventricle's outline; gone before the apex.
        right = max(1 - (inside / 0.84) ** 2.2, 0.0) ** 0.5 if inside < 0.84 else 0.0
        cos, sin = float(np.cos(self.septum)), float(np.sin(self.septum))
        offset = (self.r_endo + self.wall) * (0.25 + 0.58 * right)
        u, v = (px * cos + py * sin) - offset, py * cos - px * sin
        half_u = self.right_size[0] * right + 1e-3
        half_v = self.right_size[1] * right * (1 - 0.15 * np.tanh(v / 15)) + 1e-3
        rho = np.hypot(u / half_u, v / half_v)
        d_right = (1 - rho) * np.minimum(half_u, half_v)  # near the contour about the distance in mm

        present = 0.0 <= depth < 1.0
        classes = np.zeros(radius.shape, dtype=np.uint8)
        if present:
            classes[d_right > 0] = 1
            classes[d_epi > 0] = 2
            classes[d_endo > 0] = 3
        signal = self.tissue.surroundings(x, y, depth * self.length)
        if present:
            self.tissue.add_heart(signal, x, y, depth * self.length, around, d_endo, d_epi, d_right)
            if 0.25 < depth < 0.75:
                self.tissue.add_papillary(signal, px, py, 0.66 * float(endo.mean()))
        elif depth < 0:
            # Beyond the base lie atria and great vessels: blood without a wall to segment.
            self.tissue.add_vessels(signal, d_epi)
        return signal, classes


class _Tissue:
    """Intensities (1 = bright blood of a balanced steady-state image) and edge widths, varying along the contours."""

    def __init__(self, random: np.random.Generator, septum: float) -> None:
        self.blood = random.uniform(0.78, 0.9)
        self.right_blood = self.blood * random.uniform(0.82, 0.97)
        self.muscle = random.uniform(0.22, 0.30)
        slow_flow = random.uniform(0.35, 0.5) * _bump(random.uniform(-np.pi, np.pi), 0.8)
        enhanced = random.uniform(0.12, 0.24) * _bump(random.uniform(-np.pi, np.pi), 0.7)
        self.slow_flow, self.muscle_around = slow_flow, self.muscle + enhanced
        # Width of the endocardial, epicardial and right ventricular edge, in mm: sharp but for one arc each.
        self.widths = [0.35 + random.uniform(1.3, 2.4) * _bump(random.uniform(-np.pi, np.pi), 0.75) for _ in range(3)]
        self.fat = 0.9 * _bump(septum + random.uniform(0.7, 1.3), random.uniform(0.5, 0.8))
        self.papillary = septum + np.pi + np.array([-0.95, 0.95]) + random.normal(0, 0.15, 2)
        self.papillary_radius = random.uniform(2.6, 3.8, 2)
        self.liver = random.uniform(0.34, 0.46)
        self.chest = random.uniform(33, 38)
        self.tilt = septum - np.pi
        self.trabeculae = _Waves(random, (9, 16))
        self.vessels = _Waves(random, (9, 18))
        self.outline = _Waves(random, (45, 90), count=6)

    def surroundings(self, x: np.ndarray, y: np.ndarray, z: float) -> np.ndarray:
        """Lung beside the free wall, liver below, chest wall with fat in front: each meets the heart along an arc."""
        cos, sin = float(np.cos(self.tilt)), float(np.sin(self.tilt))
        lateral = x[:, None] * cos + y[None, :] * sin
        front = x[:, None] * sin - y[None, :] * cos
        wave = self.outline.plane(x, y, z)
        vessels = self.vessels.plane(x, y, z)
        lung = 0.06 + 0.06 * np.maximum(vessels, 0) ** 2
        soft = 0.20 + 0.05 * wave
        signal = lung + (soft - lung) * _edge(3 * wave - lateral - 10, 2.0)
        liver = self.liver * (1 - 0.10 * np.maximum(vessels, 0))
        signal += (liver - signal) * _edge(-front - 16 - 0.25 * lateral + 0.06 * z + 3 * wave, 1.2)
        depth_in = front + 0.006 * lateral**2 - self.chest + 0.8 * wave  # the rib cage is curved
        chest = 0.30 + 0.5 * _edge(depth_in - 5, 0.9)  # muscle first, then fat
        signal += (chest - signal) * _edge(depth_in, 1.0)
        return signal

    def add_vessels(self, signal: np.ndarray, d_epi: np.ndarray) -> None:
        signal += (0.62 * self.blood - signal) * _edge(d_epi - 4, 1.6)

    def add_heart(
        self,
        signal: np.ndarray,
        x: np.ndarray,
        y: np.ndarray,
        z: float,
        around: _Around,
        d_endo: np.ndarray,
        d_epi: np.ndarray,
        d_right: np.ndarray,
    ) -> None:
        endo_width, epi_width, right_width = (around.read(table) for table in self.widths)
        # Fat in a sector of the grooves around both ventricles.
        signal += (0.80 - signal) * around.read(self.fat) * _edge(np.maximum(d_epi, d_right) + 4.5, 0.8)
        # Right ventricle: a thin free wall, then blood crossed by trabeculae.
        signal += (1.15 * self.muscle - signal) * _edge(d_right + 2.2, 0.5)
        blood = self.right_blood * (1 - 0.10 * np.maximum(self.trabeculae.plane(x, y, z), 0))
        signal += (blood - signal) * _edge(d_right, right_width)
        # Left ventricle: muscle brighter in one sector, blood near the wall darker in another.
        signal += (around.read(self.muscle_around) - signal) * _edge(d_epi, epi_width)
        blood = self.blood * (1 - around.read(self.slow_flow) * _edge(5.0 - d_endo, 2.5))
        signal += (blood - signal) * _edge(d_endo, endo_width)

    def add_papillary(self, signal: np.ndarray, px: np.ndarray, py: np.ndarray, distance: float) -> None:
        """Two dark columns in the cavity; the label counts them as blood pool, as ACDC's does."""
        for at, size in zip(self.papillary.tolist(), self.papillary_radius.tolist(), strict=True):
            away = np.hypot(px - distance * float(np.cos(at)), py - distance * float(np.sin(at)))
            signal += (self.muscle - signal) * 0.9 * _edge(size - away, 0.5)
