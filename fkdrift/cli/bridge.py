"""`fkdrift bridge`: paths between two points."""

from __future__ import annotations

from fkdrift.cli.console import finish, refuse_to_replace
from fkdrift.cli.options import Parameters, Potential, Request, computing
from fkdrift.cli.subject import potential_and_settings
from fkdrift.runs.settings import BridgeSettings
from fkdrift.settings import fields_of


@computing(fields_of(BridgeSettings))
def bridge(request: Request, potential: Potential = None, param: Parameters = None) -> None:
    """Paths between two points in a given time, and how probable they are: a learned Feynman-Kac bridge."""
    refuse_to_replace(request)
    loaded, settings = potential_and_settings(potential, param, BridgeSettings, request)
    from fkdrift.runs.bridge import Bridge
    from fkdrift.runs.driver import drive

    finish(drive(Bridge(loaded, settings), out=request.out, progress=request.progress), request)
