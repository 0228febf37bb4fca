"""Faults on purpose: nothing wrong, nothing lost, nothing executed (docs/reliability.md)."""
