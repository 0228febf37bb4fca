"""Diffusions conditioned on measurements: propagators, transition paths, trajectory inference."""
