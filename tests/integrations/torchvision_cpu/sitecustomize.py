"""For PYTHONPATH where PyPI's torchvision, built for CUDA, stands beside a CPU build of torch.

Its compiled half does not load, and its import ends at the first operator missing. nnU-Net imports it and calls none.
"""

import torch

for name in ("nms", "qnms"):
    torch.library.define(f"torchvision::{name}", "(Tensor dets, Tensor scores, float iou_threshold) -> Tensor")
