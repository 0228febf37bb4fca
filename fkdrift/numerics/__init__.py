"""Numerical tools without physics: estimates with errors, geometry, small networks, log weights, Fisher products."""
