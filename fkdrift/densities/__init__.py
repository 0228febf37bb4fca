"""Normalised densities: conditional kernels, normalizing flows, and densities known in closed form."""
