"""Plain PyTorch form of every op: the oracle of the kernels and the fallback on any other device."""
