"""What can be computed of a potential beside its ground state: one file each, found by its name.

A file `my_method.py` here, with a `METHOD` that is a `fkdrift.runs.of_potential.OfPotential`, is the command
`fkdrift my-method` with an option for each of its settings; the first line of its docstring is the command's help.
A file `my_method_settings.py` beside it with its settings, as `SETTINGS`, makes `fkdrift my-method --help` instant.
"""

from fkdrift.runs.discovery import Folder

METHODS = Folder(__name__, "METHOD", "method")
