from torch import Tensor

from ._cpu import HardPatchArgs as HardPatchArgs  # the constructors are the CPU's
from ._cpu import NoisePatchArgs as NoisePatchArgs
from ._cpu import PairArgs as PairArgs
from ._cpu import RowPairArgs as RowPairArgs
from ._cpu import SurfaceArgs as SurfaceArgs

# Compute capabilities, 90 for 9.0: those with machine code, and the one whose PTX the drivers of later GPUs compile.
SASS: tuple[int, ...]
PTX: int

# CUDA versions of the driver, 0 without one, and of the library: 1000 major + 10 minor.
def versions() -> tuple[int, int]: ...

class Stream:
    def __init__(self, handle: int, multiprocessors: int) -> None: ...

def gradient_uncertainty_workspace(args: PairArgs, stream: Stream) -> int: ...
def gradient_uncertainty_forward(
    args: PairArgs, stream: Stream, scratch: Tensor, loss: Tensor, slope: Tensor
) -> None: ...
def pair_concordance_workspace(args: RowPairArgs, stream: Stream) -> int: ...
def pair_concordance_forward(
    args: RowPairArgs, stream: Stream, tolerance: float, scratch: Tensor, counts: Tensor
) -> None: ...
def spearman_workspace(args: RowPairArgs, stream: Stream) -> int: ...
def spearman_forward(args: RowPairArgs, stream: Stream, scratch: Tensor, out: Tensor) -> None: ...
def sample_hard_patches_workspace(args: HardPatchArgs, stream: Stream) -> int: ...
def sample_hard_patches_forward(
    args: HardPatchArgs, stream: Stream, scratch: Tensor, centers: Tensor, valid: Tensor
) -> None: ...
def add_noise_patches(args: NoisePatchArgs, stream: Stream, images: Tensor) -> None: ...
def surface_boxes(args: SurfaceArgs, stream: Stream, labels: Tensor, boxes: Tensor, bad: Tensor) -> None: ...
def surface_list_workspace(args: SurfaceArgs, stream: Stream, number: int, voxels: int) -> int: ...
def surface_list(
    args: SurfaceArgs,
    stream: Stream,
    labels: Tensor,
    tasks: Tensor,
    number: int,
    voxels: int,
    scratch: Tensor,
    begins: Tensor,
) -> None: ...
def surface_measure_workspace(args: SurfaceArgs, stream: Stream, number: int, voxels: int, listed: int) -> int: ...
def surface_measure(
    args: SurfaceArgs,
    stream: Stream,
    tasks: Tensor,
    number: int,
    voxels: int,
    rows: int,
    listed: int,
    lists: Tensor,
    begins: Tensor,
    scratch: Tensor,
    records: Tensor,
) -> None: ...
