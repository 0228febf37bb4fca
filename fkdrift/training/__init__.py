"""What improves a wavefunction, a drift or a generative model."""
