"""Triton kernels, installed as sure_fast.kernels."""
