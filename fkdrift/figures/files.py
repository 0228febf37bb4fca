"""Figures as files."""

from __future__ import annotations

from collections.abc import Mapping
from io import BytesIO
from pathlib import Path

from matplotlib.figure import Figure
from PIL import Image

from fkdrift.figures.palette import DPI

N_COLOURS = 256
"""Of a file: it is a third of the size then, and there is no difference to see."""


def save_figures(figures: Mapping[str, Figure], folder: Path) -> None:
    """Write each figure to folder/name.png."""
    folder.mkdir(parents=True, exist_ok=True)
    for name, figure in figures.items():
        raw = BytesIO()
        figure.savefig(raw, format="png", dpi=DPI, facecolor="white")
        Image.open(raw).convert("RGB").quantize(N_COLOURS).save(folder / f"{name}.png", optimize=True)
