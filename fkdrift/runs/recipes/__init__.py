"""Models that `fkdrift learn` can train: one file each, found by its name.

A file `my_model.py` here, with a `RECIPE` (see `fkdrift.runs.recipes.recipe`), is the command `fkdrift learn my-model`;
the first line of its docstring is the command's help.
"""

from fkdrift.runs.discovery import Folder

MODELS = Folder(__name__, "RECIPE", "model", others=("recipe",))
