"""Plain PyTorch copies of images with noise patches."""

from __future__ import annotations

import torch
from torch import Tensor


def add_noise_patches(image: Tensor, centers: Tensor, valid: Tensor, noise: Tensor) -> Tensor:
    """[M·N, K, *S]: M copies of image [N, K, *S], copy m with noise m of [M, *patch] added at every valid center;
    docs/method.md, "Noise–uncertainty loss"."""
    patch_size = noise.shape[1:]
    inside = [torch.arange(size, device=image.device) - size // 2 for size in patch_size]
    offsets = torch.stack(torch.meshgrid(*inside, indexing="ij"), -1).reshape(-1, len(patch_size))
    voxels = centers[:, :, None, :] + offsets
    flat = torch.zeros(voxels.shape[:-1], dtype=torch.int64, device=image.device)
    for axis, size in enumerate(image.shape[2:]):
        flat = flat * size + voxels[..., axis].clamp(0, size - 1)
    images = image.repeat(len(noise), *[1] * (image.dim() - 1))
    index = flat.flatten(1)[:, None].expand(-1, image.shape[1], -1)
    for copy, patch in zip(images.flatten(2).unflatten(0, (len(noise), len(image))), noise, strict=True):
        # a patch that does not exist adds 0 somewhere
        values = patch.reshape(1, 1, -1) * valid[:, :, None].to(image.dtype)
        copy.scatter_add_(2, index, values.expand(flat.shape).flatten(1)[:, None].expand(index.shape))
    return images
