"""Every notebook in examples/ runs, one of them in a kernel, and the numbers asserted in its last cell are found.

python tests/test_notebooks.py [NAME ...]        run notebooks; keep what they show in their files and in docs/figures/
"""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

nbformat = pytest.importorskip("nbformat")
nbclient = pytest.importorskip("nbclient")
InteractiveShell = pytest.importorskip("IPython").InteractiveShell
Config = pytest.importorskip("traitlets.config").Config

EXAMPLES = Path(__file__).parents[1] / "examples"
NOTEBOOKS = sorted(EXAMPLES.glob("*.ipynb"))
SECONDS, QUICK = 120, "own_potential"
FIGURES = {"generative_physics": "phonons", "bits_back_entropy": "entropy_of_configurations"}
"""Notebooks whose variable `figure` is one of the docs'."""
SAVE = """
from pathlib import Path
from fkdrift.figures.files import save_figures
save_figures({{{name!r}: figure}}, Path("{folder}"))
"""
LARGEST = 150_000
"""Bytes of a notebook with what it shows."""


def execute(path: Path, folder: Path, last: str = "") -> nbformat.NotebookNode:
    """A notebook as it is after all its cells have run in a folder, and then a last one."""
    notebook = nbformat.read(path, as_version=4)
    notebook.cells += [nbformat.v4.new_code_cell(last)] if last else []
    resources = {"metadata": {"path": str(folder)}}
    return nbclient.NotebookClient(notebook, timeout=SECONDS, kernel_name="python3", resources=resources).execute()


def test_a_kernel_runs_a_notebook(tmp_path):
    execute(EXAMPLES / f"{QUICK}.ipynb", tmp_path)


@pytest.mark.slow
@pytest.mark.parametrize("path", [path for path in NOTEBOOKS if path.stem != QUICK], ids=lambda path: path.stem)
def test_a_notebook_runs(path, tmp_path, monkeypatch):
    """Cell by cell in a shell of its own, which has no kernel to start."""
    monkeypatch.chdir(tmp_path)
    shell = InteractiveShell(config=Config(HistoryManager={"enabled": False}))
    for cell in nbformat.read(path, as_version=4).cells:
        if cell.cell_type == "code":
            shell.run_cell(cell.source).raise_error()


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_a_notebook_shows_little_and_asserts_numbers(path):
    cells = [cell for cell in nbformat.read(path, as_version=4).cells if cell.cell_type == "code"]
    assert path.stat().st_size < LARGEST
    assert any(cell.outputs for cell in cells), f"run: python {Path(__file__).name} {path.stem}"
    assert "assert " in cells[-1].source
    errors = [
        out for cell in cells for out in cell.outputs if out.output_type == "error" or out.get("name") == "stderr"
    ]
    assert errors == []


if __name__ == "__main__":
    for path in NOTEBOOKS:
        if len(sys.argv) == 1 or path.stem in sys.argv[1:]:
            name, folder = FIGURES.get(path.stem), path.parents[1] / "docs" / "figures"
            done = execute(path, path.parent, SAVE.format(name=name, folder=folder) if name else "")
            done.cells = done.cells[:-1] if name else done.cells
            for cell in done.cells:
                cell.metadata.pop("execution", None)
                if cell.cell_type == "code":
                    cell.outputs = [out for out in cell.outputs if out.get("name") != "stderr"]
            nbformat.write(done, path)
            print(f"{path}  {path.stat().st_size:,} bytes")
