from collections.abc import Mapping

from torch import Tensor

EVIDENCE: tuple[str, ...]
KINDS: tuple[str, ...]

# Of csrc/math: the coefficients of its float polynomials, the highest power first, and other numbers in them.
COEFFICIENTS: Mapping[str, tuple[float, ...]]
LN2: tuple[float, float]
SQRT_HALF_BITS: int
MANTISSA_BITS: int
EXP_CLAMP: float

# Of csrc/math/distance.h: limits of distances, and squared distances in a byte.
SLACK: float
SQUARED_SLACK: float
BYTE_REACH: float
BEYOND: int
IGNORED: int

# Of csrc/args: sizes.
MOST_CUDA_CLASSES: int
SURFACE_TASK: int
SURFACE_BOX: int
SURFACE_RECORD: int

def squares_fit_bytes(limit: float, step: float) -> bool: ...
def steps_within(distance: float, most: int) -> int: ...
def squared_steps_within(distance: float) -> int: ...
def isa() -> str: ...
def best_isa() -> str: ...
def set_isa(name: str) -> None: ...
def openmp() -> bool: ...
def has_one_stride(t: Tensor) -> bool: ...
def special_function(name: str, x: Tensor, out: Tensor) -> None: ...

class BoundaryArgs:
    def __init__(
        self, label: Tensor, step: tuple[float, ...], limit: float, ignore: int | None, wide: bool, threads: int
    ) -> None: ...

def boundary_distance_workspace(args: BoundaryArgs) -> int: ...
def boundary_distance_forward(args: BoundaryArgs, scratch: Tensor, distance: Tensor) -> bool: ...
def boundary_distance_squared(args: BoundaryArgs, scratch: Tensor, squared: Tensor) -> bool: ...
def dirichlet_uncertainty_forward(logits: Tensor, evidence: str, threads: int, uncertainty: Tensor) -> None: ...
def dirichlet_uncertainty_backward(
    logits: Tensor, evidence: str, threads: int, slope: Tensor, gradient: Tensor
) -> None: ...

class EvidentialArgs:
    def __init__(
        self,
        logits: Tensor,
        target: Tensor,
        ignore: int | None,
        evidence: str,
        kind: str,
        regions: bool,
        weights: Tensor | None,
        threads: int,
        squared: Tensor | None,
        far_above: int,
    ) -> None: ...

def evidential_sums_size(classes: int) -> int: ...
def evidential_loss_forward(
    args: EvidentialArgs, sums: Tensor, uncertainty: Tensor | None, data: Tensor | None, kl: Tensor | None
) -> None: ...
def evidential_loss_backward(
    args: EvidentialArgs,
    coefficients: Tensor,
    uncertainty: Tensor | None,
    uncertainty_scale: float,
    data: Tensor | None,
    kl: Tensor | None,
    gradient: Tensor,
) -> None: ...

class GradientArgs:
    def __init__(
        self,
        image: Tensor,
        scale: tuple[float, ...],
        weight: tuple[float, ...],
        max_channels: bool,
        central: bool,
        threads: int,
    ) -> None: ...

def gradient_magnitude_forward(args: GradientArgs, out: Tensor) -> None: ...

class PairArgs:
    def __init__(
        self,
        uncertainty: Tensor,
        gradient: Tensor,
        distance: Tensor,
        label: Tensor | None,
        threshold: float,
        num_pairs: int,
        seed: int,
        normalize: bool,
        compared: int = 0,
        threads: int = 1,
    ) -> None: ...

def compact_chunks(n: int) -> int: ...
def gradient_uncertainty_count(args: PairArgs, counts: Tensor) -> None: ...
def gradient_uncertainty_workspace(args: PairArgs, most: int) -> int: ...
def gradient_uncertainty_forward(
    args: PairArgs, counts: Tensor, most: int, scratch: Tensor, loss: Tensor, slope: Tensor
) -> None: ...

class NoiseArgs:
    def __init__(
        self,
        logits: Tensor,
        noisy1: Tensor,
        noisy2: Tensor,
        evidence: str,
        clean_far: bool,
        distance: Tensor | None,
        squared: Tensor | None,
        threshold: float,
        centers: Tensor,
        valid: Tensor,
        level1: float,
        level2: float,
        threads: int,
    ) -> None: ...

def noise_uncertainty_forward(args: NoiseArgs, far: Tensor, terms: Tensor, slopes: Tensor) -> None: ...
def noise_uncertainty_backward(
    args: NoiseArgs, coefficients: Tensor, slopes: Tensor, clean: Tensor, noisy1: Tensor, noisy2: Tensor
) -> None: ...

DENSE_NOISE_SUMS: int

class DenseNoiseArgs:
    def __init__(
        self,
        uncertainty: Tensor,
        noisy1: Tensor,
        noisy2: Tensor | None,
        distance: Tensor,
        level1: float,
        level2: float,
        threshold: float,
        margin: float,
        detach: bool,
        threads: int,
    ) -> None: ...

def dense_noise_uncertainty_forward(args: DenseNoiseArgs, sums: Tensor) -> None: ...
def dense_noise_uncertainty_backward(
    args: DenseNoiseArgs, coefficients: Tensor, clean: Tensor, noisy1: Tensor, noisy2: Tensor | None
) -> None: ...

class RowPairArgs:
    def __init__(self, a: Tensor, b: Tensor, mask: Tensor | None, most: int = 0, threads: int = 1) -> None: ...

def pair_concordance_workspace(args: RowPairArgs) -> int: ...
def pair_concordance_forward(args: RowPairArgs, tolerance: float, scratch: Tensor, counts: Tensor) -> None: ...
def spearman_workspace(args: RowPairArgs) -> int: ...
def spearman_forward(args: RowPairArgs, scratch: Tensor, out: Tensor) -> None: ...

class NoisePatchArgs:
    def __init__(self, image: Tensor, noise: Tensor, centers: Tensor, valid: Tensor, threads: int = 1) -> None: ...

def add_noise_patches(args: NoisePatchArgs, images: Tensor) -> None: ...

class HardPatchArgs:
    def __init__(
        self,
        uncertainty: Tensor,
        noisy: Tensor,
        label: Tensor,
        distance: Tensor,
        patch: tuple[int, ...],
        num_classes: int,
        num_patches: int,
        max_distance: float,
        seed: Tensor,
        threads: int = 1,
    ) -> None: ...

def sample_hard_patches_workspace(args: HardPatchArgs) -> int: ...
def sample_hard_patches_forward(args: HardPatchArgs, scratch: Tensor, centers: Tensor, valid: Tensor) -> None: ...

class StatsArgs:
    def __init__(
        self,
        logits: Tensor,
        target: Tensor,
        ignore: int | None,
        evidence: str,
        bins: int,
        levels: int,
        threads: int,
    ) -> None: ...

def segmentation_stats_size(classes: int, bins: int, levels: int) -> int: ...
def segmentation_stats_forward(args: StatsArgs, records: Tensor) -> None: ...

class SurfaceArgs:
    def __init__(
        self,
        prediction: Tensor,
        target: Tensor,
        classes: int,
        ignore: int | None,
        step: tuple[float, ...],
        quantile: float,
        tolerance: float,
        threads: int = 1,
    ) -> None: ...

def surface_distances_boxes(args: SurfaceArgs, labels: Tensor, boxes: Tensor) -> tuple[int, int]: ...
def surface_distances_workspace(args: SurfaceArgs, largest: int) -> int: ...
def surface_distances_forward(
    args: SurfaceArgs, labels: Tensor, boxes: Tensor, largest: int, scratch: Tensor, records: Tensor
) -> None: ...

class BoundaryPairArgs:
    def __init__(
        self,
        logits: Tensor,
        evidence: str,
        image: GradientArgs,
        squared: Tensor,
        near: int,
        label: Tensor | None,
        num_pairs: int,
        seed: int,
        normalize: bool,
        threads: int,
    ) -> None: ...

def uncertainty_supervision_count(args: BoundaryPairArgs, counts: Tensor) -> None: ...
def uncertainty_supervision_workspace(args: BoundaryPairArgs, most: int) -> int: ...
def uncertainty_supervision_forward(
    args: BoundaryPairArgs, counts: Tensor, most: int, scratch: Tensor, loss: Tensor, slope: Tensor
) -> None: ...
