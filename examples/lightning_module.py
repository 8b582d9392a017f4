"""The loss in a LightningModule: python examples/lightning_module.py"""

import lightning
import torch
from torch.utils.data import DataLoader

import sure_fast
from sure_fast.data import phantom
from sure_fast.metrics import compute_dice
from sure_fast.models import build_model

EPOCHS = 4


class Segmentation(lightning.LightningModule):
    """MONAI's U-Net with supervised uncertainty."""

    def __init__(self, num_classes: int = 4) -> None:
        super().__init__()
        self.network = build_model(3, in_channels=1, num_classes=num_classes, channels=(8, 16, 32))
        self.loss_fn = sure_fast.UncertaintySupervisedLoss(num_epochs=EPOCHS, start_epoch=2)
        self.num_classes = num_classes

    def training_step(self, batch, _):
        image, label = batch
        noise = self.loss_fn.noise_of_step(image, epoch=self.current_epoch)
        logits = self.network(noise.beside(image))
        out = self.loss_fn(logits, label, image, epoch=self.current_epoch, noise=noise)
        self.log_dict({f"train/{name}": value for name, value in out._asdict().items()})
        return out.total

    def validation_step(self, batch, _):
        image, label = batch
        logits = self.network(image)
        self.log("val/dice", compute_dice(logits.argmax(1), label, self.num_classes)[0].nanmean(), prog_bar=True)
        self.log("val/uncertainty", sure_fast.dirichlet_uncertainty(logits).mean(), prog_bar=True)

    def configure_optimizers(self):
        return torch.optim.Adam(self.parameters(), 3e-3)


def main() -> None:
    lightning.seed_everything(0)
    volumes = [phantom.generate(seed, shape=(32, 32, 16), spacing_mm=(3, 3, 5)) for seed in range(6)]
    images = [torch.as_tensor(v.image, dtype=torch.float32)[None] for v in volumes]
    data = [
        ((image - image.mean()) / image.std(), torch.as_tensor(v.label, dtype=torch.long))
        for image, v in zip(images, volumes, strict=True)
    ]
    trainer = lightning.Trainer(max_epochs=EPOCHS, accelerator="cpu", logger=False, enable_checkpointing=False)
    trainer.fit(Segmentation(), DataLoader(data[:4], batch_size=2, shuffle=True), DataLoader(data[4:]))
    print({name: round(value.item(), 4) for name, value in trainer.callback_metrics.items()})


if __name__ == "__main__":
    main()
