"""Figures as files."""

from __future__ import annotations

from collections.abc import Mapping
from io import BytesIO
from pathlib import Path

import numpy as np
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from PIL import Image

from fkdrift.figures.palette import DPI

N_COLOURS = 256
"""Of a file: it is a third of the size then, and there is no difference to see."""


def save_figures(figures: Mapping[str, Figure], folder: Path) -> None:
    """Write each figure to folder/name.png."""
    folder.mkdir(parents=True, exist_ok=True)
    for name, figure in figures.items():
        (folder / f"{name}.png").write_bytes(encoded(figure))


def encoded(figure: Figure, dpi: int = DPI) -> bytes:
    """A figure as the contents of a PNG file."""
    shown, resolution, small = figure.canvas, figure.dpi, BytesIO()
    canvas = FigureCanvasAgg(figure)  # `savefig` would draw twice, and compress what is quantised afterwards
    try:
        figure.dpi = dpi
        canvas.draw()
    finally:
        figure.dpi = resolution
        figure.set_canvas(shown)
    pixels = Image.fromarray(np.asarray(canvas.buffer_rgba())).convert("RGB")
    pixels.quantize(N_COLOURS).save(small, format="png")
    return small.getvalue()
