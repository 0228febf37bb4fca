"""Pictures; the only package that imports matplotlib.  A notebook is told how to show them, as pyplot would."""

import sys

if "ipykernel" in sys.modules:
    from IPython import get_ipython

    def _in_a_notebook(figure: object) -> bytes:
        from fkdrift.figures.files import encoded
        from fkdrift.figures.palette import NOTEBOOK_DPI

        return encoded(figure, NOTEBOOK_DPI)  # type: ignore[arg-type]

    if (shell := get_ipython()) is not None:
        png = shell.display_formatter.formatters["image/png"]
        if not any(each.__name__ == "Figure" for each in png.type_printers):
            png.for_type_by_name("matplotlib.figure", "Figure", _in_a_notebook)
