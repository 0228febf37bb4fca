"""Every error fkdrift raises on purpose.

Two families: `InputError` (also a ValueError) when what was asked for cannot be done as asked, and
`ComputationError` (also a RuntimeError) when a computation failed on the way; the latter carries what was
reached in `partial`.  Messages say what was wrong, the value, what is allowed, and what to do.
"""

from __future__ import annotations

from collections.abc import Iterable
from importlib import import_module
from types import ModuleType


class FkdriftError(Exception):
    """Base of all errors raised on purpose."""


class InputError(FkdriftError, ValueError):
    """The request cannot be carried out as given; the message says what to change."""


class UnknownPotential(InputError):
    """No plug-in, file, formula or table goes by this name."""


class BadParameter(InputError):
    """A parameter is unknown, missing, or outside its range."""


class BadFormula(InputError):
    """A formula uses something other than the allowed variables, functions and operators."""


class BadTable(InputError):
    """A tabulated potential cannot be read, or is not a regular grid."""


class OutsideTable(InputError):
    """A tabulated potential was evaluated outside the range of its grid."""


class Unbound(InputError):
    """The potential has no normalisable ground state that could be found."""


class Metastable(Unbound):
    """A well that is closed only by a barrier: what sits in it escapes, so there is no ground state."""


class TooLarge(InputError):
    """A calculation would need more memory than is sensible; the message has the estimate."""


class NoExactSolution(InputError):
    """No exact method covers this system."""


class NoGradient(InputError, RuntimeError):
    """A potential that has values only was asked for its gradient."""


class BadConfig(InputError):
    """A configuration file or a saved run cannot be read."""


class CannotWrite(InputError):
    """A run's folder cannot be written; what was there before is still there."""


class CorruptStream(InputError):
    """A compressed file is foreign, truncated or damaged; nothing of it was decoded."""


class WrongModel(InputError):
    """A compressed file was written with another model than the one given."""


class MissingExtra(InputError):
    """An optional package is not installed; the message has the command that installs it."""


class ComputationError(FkdriftError, RuntimeError):
    """A computation failed on the way; `partial` holds what had been reached, or None."""

    def __init__(self, message: str, partial: object = None) -> None:
        super().__init__(message)
        self.partial = partial


class DivergedPath(ComputationError):
    """Walkers left every sensible range; the message says when, how many and what to try."""


class StarvedStack(ComputationError):
    """A bits-back coder ran out of bits to draw latents from."""


class NotConverged(ComputationError):
    """An exact calculation did not reach its tolerance within its limits."""


class OutOfTime(NotConverged):
    """An exact calculation was stopped by its time limit; `partial` holds what had been reached, or None."""


def require_extra(module: str, extra: str) -> ModuleType:
    """An optional module, imported when it is needed.

    Raises:
        MissingExtra: its package is not installed.
    """
    try:
        return import_module(module)
    except ModuleNotFoundError:
        package = module.partition(".")[0]
        raise MissingExtra(
            f"this needs the package {package}: pip install 'fkdrift[{extra}]' -c constraints.txt"
        ) from None


def did_you_mean(name: str, known: Iterable[str], n: int = 1, cutoff: float = 0.6) -> str:
    """The n closest of the known names as a question with a space after it; nothing where none is close."""
    import difflib  # here: it is needed in messages only

    close = difflib.get_close_matches(name, list(known), n=n, cutoff=cutoff)
    return f"did you mean {' or '.join(close)}? " if close else ""
