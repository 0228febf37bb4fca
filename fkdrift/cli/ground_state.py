"""`fkdrift solve`: the ground state of a potential."""

from __future__ import annotations

from fkdrift.cli.console import finish, refuse_to_replace
from fkdrift.cli.options import Parameters, Potential, Request, computing
from fkdrift.cli.subject import potential_and_settings
from fkdrift.runs.settings import Settings
from fkdrift.settings import fields_of


@computing(fields_of(Settings))
def solve(request: Request, potential: Potential = None, param: Parameters = None) -> None:
    """Find the ground state of a potential.

    Options win over the --config file, and the file over the defaults.  Ctrl-C saves what there is, to be resumed.
    """
    refuse_to_replace(request)
    loaded, settings = potential_and_settings(potential, param, Settings, request)
    from fkdrift.runs.ground_state import solve as run

    finish(run(loaded, settings=settings, out=request.out, progress=request.progress), request)
