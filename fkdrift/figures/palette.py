"""The colours and sizes that every figure shares."""

from __future__ import annotations

from typing import Any

LEARNED, EXACT, WALKERS, POTENTIAL = "#1b5e9e", "#c8500f", "#9dbfdd", "#6b6b6b"
PARTICLES = ("#1b5e9e", "#c8500f", "#2e7d4f", "#8a4b9e", "#b08a1e", "#3a9ea5", "#a53a5b", "#555555")
DPI, NOTEBOOK_DPI = 120, 72
STYLE: dict[Any, Any] = {
    "font.size": 9.5,
    "axes.titlesize": 10,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.edgecolor": "#444444",
    "axes.grid": True,
    "grid.color": "#e6e6e6",
    "grid.linewidth": 0.6,
    "axes.axisbelow": True,
    "legend.frameon": False,
    "legend.fontsize": 8.5,
    "lines.linewidth": 1.6,
    "xtick.color": "#444444",
    "ytick.color": "#444444",
    "image.cmap": "Blues",
}
DASHED: dict[str, Any] = {"color": EXACT, "ls": (0, (4, 2)), "lw": 1.4}


def labelled(what: str, unit: str | None) -> str:
    """The label of an axis."""
    return f"{what} in {unit}" if unit else what
