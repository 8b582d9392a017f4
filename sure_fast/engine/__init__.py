"""Configuration, training loop, checkpoints, evaluation and pictures; used by the command lines only."""
