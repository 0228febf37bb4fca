"""Wavefunctions and learned drifts: networks, flows, the local energy, Metropolis-adjusted steps."""
