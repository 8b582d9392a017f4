"""The loss in MONAI's SupervisedTrainer, with sliding windows afterwards: python examples/monai_trainer.py"""

import torch
from monai.data import DataLoader, Dataset
from monai.engines import SupervisedTrainer
from monai.handlers import StatsHandler
from monai.inferers import SlidingWindowInferer
from monai.networks.nets import UNet
from monai.transforms import Compose, EnsureChannelFirstd, NormalizeIntensityd, RandFlipd, RandSpatialCropd

import sure_fast
from sure_fast.data import phantom
from sure_fast.integrations.monai import TrainerLoss

EPOCHS = 4


def main() -> None:
    torch.manual_seed(0)
    volumes = [phantom.generate(seed, shape=(32, 32, 16), spacing_mm=(3, 3, 5)) for seed in range(4)]
    items = [{"image": v.image.astype("float32"), "label": v.label.astype("int64")} for v in volumes]
    keys = ["image", "label"]
    transforms = Compose(
        [
            EnsureChannelFirstd(keys, channel_dim="no_channel"),
            NormalizeIntensityd("image"),
            RandSpatialCropd(keys, roi_size=(24, 24, 16), random_size=False),
            RandFlipd(keys, prob=0.5, spatial_axis=0),
        ]
    )
    network = UNet(3, in_channels=1, out_channels=4, channels=(8, 16, 32), strides=(2, 2), norm="instance")
    loss = TrainerLoss(sure_fast.UncertaintySupervisedLoss(num_epochs=EPOCHS, start_epoch=2))
    trainer = SupervisedTrainer(
        device="cpu",
        max_epochs=EPOCHS,
        train_data_loader=DataLoader(Dataset(items, transforms), batch_size=2),
        network=network,
        optimizer=torch.optim.Adam(network.parameters(), 3e-3),
        loss_function=loss,
        train_handlers=[loss, StatsHandler(output_transform=lambda _: loss.terms["total"].item(), tag_name="loss")],
    )
    trainer.run()
    print({name: round(value.item(), 4) for name, value in loss.terms.items()})

    image = NormalizeIntensityd("image")({"image": torch.as_tensor(items[0]["image"])[None]})["image"][None]
    with torch.no_grad():
        logits = SlidingWindowInferer((24, 24, 16), overlap=0.5, mode="gaussian")(image, network.eval())
    print("mean uncertainty", round(sure_fast.dirichlet_uncertainty(logits).mean().item(), 3))


if __name__ == "__main__":
    main()
