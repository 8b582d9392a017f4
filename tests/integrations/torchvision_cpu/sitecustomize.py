"""For PYTHONPATH, where PyPI's torchvision, built for CUDA, stands beside a CPU build of torch: its compiled half does not
load, and its import ends at the first operator missing. nnU-Net imports it and calls none of its operators."""

import torch

torch.library.define("torchvision::nms", "(Tensor dets, Tensor scores, float iou_threshold) -> Tensor")
