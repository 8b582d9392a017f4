"""nnU-Net's trainer with the evidential loss and supervised uncertainty."""

from __future__ import annotations

from nnunetv2.training.nnUNetTrainer.nnUNetTrainer import nnUNetTrainer

from sure_fast.losses.noise_uncertainty import check_share
from sure_fast.losses.schedule import START_SHARE
from sure_fast.losses.supervised import GAMMA

from .loss import NNUNetLoss


class nnUNetTrainerSURE(nnUNetTrainer):
    """nnU-Net as it is, but for the loss; class attributes are its settings, to be changed in a subclass.

    The network's outputs are evidence: its arg max (of regions z > 0) is the segmentation, as nnU-Net predicts it, and
    `sure_fast.dirichlet_uncertainty` of the logits is u; `python -m sure_fast.integrations.nnunet predict` writes both.
    """

    beta = 0.1
    """Weight of L_gu, found on validation cases of hippocampus (docs/results.md); more brings no better order here."""
    gamma = GAMMA
    """Weight of L_nu; 0 saves its noisy copy of the batch."""
    noisy_share = 1.0
    """Share of the images that get a noisy copy; with 0.25 a step costs 1.25 plain ones instead of 2."""
    start = START_SHARE
    """Share of the epochs before the uncertainty is supervised."""
    annealing = 0.2
    """Share of the epochs until the KL term has its full weight."""
    loss_scale = 0.1
    """Makes data and Dice term, weighted 10 each, of the size of nnU-Net's own, to which its learning rate is set."""

    def _build_loss(self) -> NNUNetLoss:
        channels = self.dataset_json.get("channel_names", self.dataset_json.get("modality"))
        return NNUNetLoss(
            num_epochs=self.num_epochs,
            start_epoch=int(self.start * self.num_epochs),
            beta=self.beta,
            gamma=self.gamma,
            noisy_share=self.noisy_share,
            annealing_epochs=int(self.annealing * self.num_epochs),
            scale=self.loss_scale,
            level_weights=self._level_weights(),
            regions=self.label_manager.has_regions,
            ignore_label=self.label_manager.ignore_label,
            image_channels=len(channels),
            ddp=self.is_ddp,
        )

    def _level_weights(self) -> list[float] | None:
        """nnU-Net's: halving, without the coarsest, which DDP wants used all the same."""
        if not self.enable_deep_supervision:
            return None
        weights = [0.5**k for k in range(len(self._get_deep_supervision_scales()))]
        weights[-1] = 1e-6 if self.is_ddp and not self._do_i_compile() else 0.0
        return [w / sum(weights) for w in weights]

    def on_train_epoch_start(self) -> None:
        super().on_train_epoch_start()
        self.loss.epoch = self.current_epoch
        # of the epoch alone, so that a run that goes on counts as one that never stopped
        calls = self.current_epoch * self.num_iterations_per_epoch
        self.loss.supervised.shared = calls % check_share(self.noisy_share)[1]

    def train_step(self, batch: dict) -> dict:
        data = batch["data"].to(self.device, non_blocking=True)
        with self.loss.supervising(data) as images:
            return super().train_step({**batch, "data": images})
