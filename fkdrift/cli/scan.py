"""`fkdrift scan`: ground states along parameters of a potential."""

from __future__ import annotations

from typing import Annotated, Any

import typer

from fkdrift.cli.console import finish, refuse_to_replace
from fkdrift.cli.options import Potential, Request, computing
from fkdrift.cli.subject import described, load
from fkdrift.errors import BadParameter
from fkdrift.hamiltonian.names import refuse_unknown, refuse_unknown_parameters
from fkdrift.runs.scan_settings import ScanSettings
from fkdrift.settings import fields_of

RANGE_SLACK = 1e-9
"""Of a step: what rounding may take away from the end of a range."""
MOST_VALUES = 1_000_000
"""Of one range; how many points a whole scan may have is said by `ParameterScan`."""

Values = Annotated[
    list[str] | None,
    typer.Option("--param", "-P", help="START:STOP:STEP or A,B,C to scan over; one value stays.", metavar="K=V"),
]


@computing(fields_of(ScanSettings))
def scan(request: Request, potential: Potential = None, param: Values = None) -> None:
    """Find ground states along parameters of a potential: binding curves, E(g), dE/dparameter.

    A point goes on from the wavefunction of its neighbour.  Ctrl-C saves what there is, to be resumed.
    """
    refuse_to_replace(request)
    name, kept, (over, written) = described(potential, request.config, "scan", "settings")
    settings = ScanSettings.from_values({**written, **request.given})
    fixed, scanned = read_values(param or [])
    over = {**{k: v for k, v in over.items() if kept is not None}, **scanned}
    if not over:
        raise BadParameter("what is to be scanned? Give --param NAME=START:STOP:STEP, or NAME=A,B,C")
    refuse_unknown(name)
    refuse_unknown_parameters(name, over)
    some = {key: values[0] for key, values in over.items()}
    loaded = load(name, fixed, {**(kept or {}), **some})
    from fkdrift.runs.driver import drive
    from fkdrift.runs.scan import ParameterScan

    finish(drive(ParameterScan(loaded, over, settings), out=request.out, progress=request.progress), request)


def read_values(param: list[str]) -> tuple[list[str], dict[str, list[Any]]]:
    """What stays, as it was written, and what is scanned, with its values.

    Raises:
        BadParameter: a range or a list cannot be read.
    """
    fixed, over = [], {}
    for assignment in param:
        name, _, text = (part.strip() for part in assignment.partition("="))
        if text.startswith(("(", "[")) or not ("," in text or text.count(":") == 2):
            fixed.append(assignment)
        else:
            over[name] = _range(assignment, text) if ":" in text else [_number(assignment, t) for t in text.split(",")]
    return fixed, over


def _range(assignment: str, text: str) -> list[Any]:
    """START:STOP:STEP with both ends, if the step meets the second one."""
    first, last, step = (_number(assignment, part) for part in text.split(":"))
    n = (last - first) / step if step else -1.0
    if n >= MOST_VALUES:
        raise BadParameter(f"{assignment!r} has more than {MOST_VALUES:,} values: take a longer STEP")
    if not n >= 0:
        raise BadParameter(f"{assignment!r} has no values: STEP has to lead from START to STOP")
    return [round(first + k * step, 12) for k in range(int(n + RANGE_SLACK) + 1)]


def _number(assignment: str, text: str) -> int | float:
    try:
        return int(text) if text.strip().lstrip("+-").isdigit() else float(text)
    except ValueError:
        raise BadParameter(f"cannot read {assignment!r}: write NAME=START:STOP:STEP, or NAME=A,B,C") from None
