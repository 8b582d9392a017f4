"""Found by nnU-Net, which imports the files of this folder by their bare names."""

from sure_fast.integrations.nnunet.trainer import nnUNetTrainerSURE

__all__ = ["nnUNetTrainerSURE"]
