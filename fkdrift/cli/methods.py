"""`fkdrift bridge`, `fkdrift pimc`, ...: a command for each file in `fkdrift.runs.methods`.

A method, and torch with it, is imported only for its own command.
"""

from __future__ import annotations

from typing import Any

from fkdrift.cli.console import finish, refuse_to_replace
from fkdrift.cli.options import Parameters, Potential, Request, computing, made_command
from fkdrift.cli.subject import potential_and_settings
from fkdrift.runs.methods import METHODS
from fkdrift.settings import fields_of


def method_command(name: str) -> Any:
    """The command of one method."""
    settings_class = METHODS.settings(name)

    @computing(fields_of(settings_class))
    def compute(request: Request, potential: Potential = None, param: Parameters = None) -> None:
        refuse_to_replace(request)
        loaded, settings = potential_and_settings(potential, param, settings_class, request)
        from fkdrift.runs.driver import drive, made

        run = made(lambda: METHODS.find(name)(loaded, settings), loaded.name, settings, request.progress)
        finish(drive(run, out=request.out, progress=request.progress), request)

    return made_command(name, compute, METHODS.summary(name))
