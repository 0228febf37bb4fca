"""Figures, with matplotlib's object interface; a notebook is told how to show them, which otherwise pyplot does."""

import sys

if "ipykernel" in sys.modules:
    from IPython import get_ipython
    from IPython.core.pylabtools import print_figure

    if (shell := get_ipython()) is not None:
        png = shell.display_formatter.formatters["image/png"]
        if not any(each.__name__ == "Figure" for each in png.type_printers):
            png.for_type_by_name("matplotlib.figure", "Figure", lambda figure: print_figure(figure, "png"))
