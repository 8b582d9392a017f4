"""Prints the folder for nnUNet_extTrainer."""

from . import TRAINERS

if __name__ == "__main__":
    print(TRAINERS)
