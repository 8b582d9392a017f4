"""The loss in a plain PyTorch loop, on 3D phantoms: python examples/pytorch_loop.py"""

import tempfile

import torch
from torch.utils.data import DataLoader

import sure_fast
from sure_fast.data import SegmentationDataset, discover, phantom
from sure_fast.metrics import compute_dice
from sure_fast.models import build_model

EPOCHS = 10


def main() -> None:
    torch.manual_seed(0)
    with tempfile.TemporaryDirectory() as folder:
        cases = discover(phantom.write(f"{folder}/phantoms", num_cases=6, shape=(32, 32, 16), spacing_mm=(3, 3, 5)))
        dataset = SegmentationDataset(list(cases), (32, 32, 16), augment="nnunet")
    model = build_model(3, in_channels=1, num_classes=4, channels=(8, 16, 32))
    optimizer = torch.optim.Adam(model.parameters(), 3e-3)
    loss_fn = sure_fast.UncertaintySupervisedLoss(num_epochs=EPOCHS, start_epoch=5)

    for epoch in range(EPOCHS):
        dataset.set_epoch(epoch)
        for batch in DataLoader(dataset, batch_size=2):
            image, label = batch["image"], batch["label"]
            noise = loss_fn.noise_of_step(image, epoch=epoch)
            out = loss_fn(model(noise.beside(image)), label, image, epoch=epoch, noise=noise)
            optimizer.zero_grad()
            out.total.backward()
            optimizer.step()
        print(f"epoch {epoch}", *(f"{name} {value.item():.4f}" for name, value in out._asdict().items()))

    model.eval()
    with torch.no_grad():
        logits = model(image)
    dice = compute_dice(logits.argmax(1), label, 4)[0]
    uncertainty = sure_fast.dirichlet_uncertainty(logits)
    print("mean Dice", round(dice.nanmean().item(), 3), "mean uncertainty", round(uncertainty.mean().item(), 3))


if __name__ == "__main__":
    main()
