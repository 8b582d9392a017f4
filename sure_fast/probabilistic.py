"""The probabilistic U-Net: a network whose segmentation depends on a latent variable drawn for the whole image."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

LATENT = 6
"""Numbers of the latent variable, as published (arXiv 1806.05034)."""


class Gaussian(nn.Module):
    """Mean and log standard deviation [N, latent] of a Gaussian that follows from an image: an encoder and its mean."""

    def __init__(
        self, dims: int, in_channels: int, channels: Sequence[int], strides: Sequence[Sequence[int]], latent: int
    ) -> None:
        from monai.networks.blocks import Convolution

        super().__init__()
        steps = [(1,) * dims, *(tuple(step) for step in strides)]
        inputs = (in_channels, *channels)
        blocks = [
            # a norm of single images would take out what tells one image from another
            Convolution(dims, inputs[k], inputs[k + 1], strides=steps[k], norm=None)
            for k in range(len(channels))
        ]
        self.encoder = nn.Sequential(*blocks)
        self.head = nn.Linear(channels[-1], 2 * latent)

    def forward(self, image: Tensor) -> tuple[Tensor, Tensor]:
        mean, log_std = self.head(self.encoder(image).flatten(2).mean(2)).chunk(2, 1)
        return mean, log_std.clamp(-6.0, 3.0)  # so that no exp overflows


class ProbabilisticUNet(nn.Module):
    r"""Any network, its features joined by a latent variable.

    Math:
        :math:`z \sim N(\mu, \sigma^2)` of the image alone (prior P) or, in training, of the image and its label
        (posterior Q), one for the whole image; logits = 1-wide convolutions of the features and z at every voxel.
        Kohl et al., NeurIPS 2018 (arXiv 1806.05034).

    Args:
        features: the network, image [N, in_channels, \*S] -> [N, width, \*S].
        dims, in_channels, num_classes: of the image and the logits. width: channels of the features.
        channels, strides: of the encoders of both Gaussians, as of the network.
        latent: numbers of z.

    Notes:
        An image [N, in_channels, \*S] gives logits [N, num_classes, \*S] with z = μ + σ·`noise` of the prior: with
        `noise` None in training a new draw, in evaluation the mean. An image with its one-hot label behind it,
        [N, in_channels + num_classes, \*S], gives them with a draw of the posterior and one channel more, which holds
        KL(Q ‖ P) of its image at every voxel.

    Example:
        >>> import torch
        >>> net = ProbabilisticUNet(torch.nn.Conv2d(1, 4, 1), 2, 1, 3, width=4, channels=(4, 8), strides=[(2, 2)])
        >>> net(torch.rand(2, 1, 8, 8)).shape, net(torch.rand(2, 1 + 3, 8, 8)).shape
        (torch.Size([2, 3, 8, 8]), torch.Size([2, 4, 8, 8]))
    """

    def __init__(
        self,
        features: nn.Module,
        dims: int,
        in_channels: int,
        num_classes: int,
        *,
        width: int,
        channels: Sequence[int],
        strides: Sequence[Sequence[int]],
        latent: int = LATENT,
    ) -> None:
        super().__init__()
        convolution = nn.Conv2d if dims == 2 else nn.Conv3d
        self.in_channels, self.latent = in_channels, latent
        self.features = features
        self.prior = Gaussian(dims, in_channels, channels, strides, latent)
        self.posterior = Gaussian(dims, in_channels + num_classes, channels, strides, latent)
        self.head = nn.Sequential(
            convolution(width + latent, width, 1), nn.ReLU(), convolution(width, width, 1), nn.ReLU(),
            convolution(width, num_classes, 1),
        )  # fmt: skip
        self.noise: Tensor | None = None
        """Of the latent variable in units of its deviation, [latent]; a prediction sets it."""

    def forward(self, image: Tensor) -> Tensor:
        own = image[:, : self.in_channels]
        mean, log_std = self.prior(own)
        kl = None
        if image.shape[1] > self.in_channels:
            of_prior = mean, log_std
            mean, log_std = self.posterior(image)
            kl = _divergence(mean, log_std, *of_prior)
        noise = torch.zeros_like(mean)
        if self.noise is not None:
            noise = noise + self.noise.to(mean)
        elif self.training:
            noise = torch.randn_like(mean)
        z = mean + log_std.exp() * noise
        features = self.features(own)
        at_voxels = z.reshape(*z.shape, *[1] * (features.dim() - 2)).expand(-1, -1, *features.shape[2:])
        logits = self.head(torch.cat([features, at_voxels.to(features)], 1))
        if kl is None:
            return logits
        return torch.cat(
            [logits, kl.to(logits).reshape(-1, *[1] * (logits.dim() - 1)).expand(-1, 1, *logits.shape[2:])], 1
        )


def _divergence(mean: Tensor, log_std: Tensor, prior_mean: Tensor, prior_log_std: Tensor) -> Tensor:
    """KL(N(mean, std²) ‖ N(prior_mean, prior_std²)) of each image [N]."""
    ratio = (2 * (log_std - prior_log_std)).exp()
    distance = ((mean - prior_mean) / prior_log_std.exp()).square()
    return 0.5 * (ratio + distance - 1 - 2 * (log_std - prior_log_std)).sum(1)
