"""Exact energy levels and propagators with numpy and scipy; nothing here needs torch's networks or is random."""
