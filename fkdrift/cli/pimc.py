"""`fkdrift pimc`: thermal averages by path integral Monte Carlo."""

from __future__ import annotations

from fkdrift.cli.console import finish, refuse_to_replace
from fkdrift.cli.options import Parameters, Potential, Request, computing
from fkdrift.cli.subject import potential_and_settings
from fkdrift.runs.settings import PimcSettings
from fkdrift.settings import fields_of


@computing(fields_of(PimcSettings))
def pimc(request: Request, potential: Potential = None, param: Parameters = None) -> None:
    """Thermal averages (energy, specific heat, density, g(r)) of particles or bosons by path integral Monte Carlo."""
    refuse_to_replace(request)
    loaded, settings = potential_and_settings(potential, param, PimcSettings, request)
    from fkdrift.runs.driver import drive
    from fkdrift.runs.pimc import Pimc

    finish(drive(Pimc(loaded, settings), out=request.out, progress=request.progress), request)
