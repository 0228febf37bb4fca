"""Computations that can be watched, stopped, saved, resumed and shown."""
