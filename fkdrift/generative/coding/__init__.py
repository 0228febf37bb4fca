"""Lossless bits-back coding with generative models."""
