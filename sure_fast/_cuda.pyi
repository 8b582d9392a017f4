class Queue:
    def __init__(self, stream: int, multiprocessors: int) -> None: ...

class PairLossArgs:
    def __init__(
        self,
        uncertainty: int,
        gradient: int,
        dtype: int,
        distance: int,
        distance_dtype: int,
        label: int,
        label_dtype: int,
        rows: int,
        n: int,
        threshold: float,
        num_pairs: int,
        seed: int,
        compared: int,
    ) -> None: ...

class RowPairArgs:
    def __init__(self, a: int, b: int, dtype: int, mask: int, rows: int, n: int) -> None: ...

def special_function(queue: Queue, which: int, wide: bool, x: int, count: int, out: int) -> None: ...
def gradient_uncertainty_workspace(args: PairLossArgs, queue: Queue) -> int: ...
def gradient_uncertainty_forward(args: PairLossArgs, queue: Queue, scratch: int, loss: int, slope: int) -> None: ...
def pair_concordance_workspace(args: RowPairArgs, queue: Queue) -> int: ...
def pair_concordance_forward(args: RowPairArgs, queue: Queue, tolerance: float, scratch: int, counts: int) -> None: ...
def spearman_workspace(args: RowPairArgs, queue: Queue) -> int: ...
def spearman_forward(args: RowPairArgs, queue: Queue, scratch: int, out: int) -> None: ...

class HardPatchArgs:
    def __init__(
        self,
        uncertainty: int,
        noisy: int,
        dtype: int,
        label: int,
        label_dtype: int,
        distance: int,
        distance_dtype: int,
        size: tuple[int, ...],
        patch: tuple[int, ...],
        dims: int,
        num_classes: int,
        num_patches: int,
        max_distance: float,
        seed: int,
    ) -> None: ...

def sample_hard_patches_workspace(args: HardPatchArgs, queue: Queue) -> int: ...
def sample_hard_patches_forward(args: HardPatchArgs, queue: Queue, scratch: int, centers: int, valid: int) -> None: ...
def sample_hard_patches_images(
    queue: Queue,
    image: int,
    noise: int,
    dtype: int,
    size: tuple[int, ...],
    patch: tuple[int, ...],
    copies: int,
    centers: int,
    valid: int,
    places: int,
    dims: int,
    images: int,
) -> None: ...

class SurfaceArgs:
    def __init__(
        self,
        prediction: int,
        prediction_dtype: int,
        target: int,
        target_dtype: int,
        classes: int,
        ignore: int | None,
        size: tuple[int, ...],
        step: tuple[float, ...],
        planar: bool,
        quantile: float,
        tolerance: float,
    ) -> None: ...

def surface_boxes(args: SurfaceArgs, queue: Queue, labels: int, boxes: int, bad: int) -> None: ...
def surface_list_workspace(args: SurfaceArgs, queue: Queue, number: int, voxels: int) -> int: ...
def surface_list(
    args: SurfaceArgs, queue: Queue, labels: int, tasks: int, number: int, voxels: int, scratch: int, begins: int
) -> None: ...
def surface_measure_workspace(args: SurfaceArgs, queue: Queue, number: int, voxels: int, listed: int) -> int: ...
def surface_measure(
    args: SurfaceArgs,
    queue: Queue,
    tasks: int,
    number: int,
    voxels: int,
    rows: int,
    listed: int,
    lists: int,
    begins: int,
    scratch: int,
    records: int,
) -> None: ...
