"""What a part of the campaign found: how many faults were tried, and what became of them."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Self

from fkdrift.errors import FkdriftError

OUTCOMES = ("refused", "right", "wrong", "lost")
EXAMPLES = 5


@dataclass
class Tally:
    """Counts of outcomes.

    refused: one line, with the remedy.  right: accepted, and the numbers are what they have to be.  wrong: another
    number, a traceback, code that was executed.  lost: a run that could not be gone on with.
    """

    name: str
    counts: Counter[str] = field(default_factory=Counter)
    examples: list[str] = field(default_factory=list)
    cpu_seconds: float = 0.0

    def add(self, outcome: str, what: object = "") -> None:
        assert outcome in OUTCOMES
        self.counts[outcome] += 1
        if outcome in ("wrong", "lost") and len(self.examples) < EXAMPLES:
            self.examples.append(f"{outcome}: {what}"[:400])

    def attempt(self, what: object, act: Callable[[], Any], right: Callable[[Any], bool]) -> None:
        """Count what `act` does: an error raised on purpose is a refusal, and its result has to be right."""
        try:
            found = right(act())
        except FkdriftError as error:
            readable = bool(str(error).strip()) and "Traceback" not in str(error)
            self.add("refused" if readable else "wrong", f"{what}: {error}")
        except Exception as error:  # what the campaign looks for
            self.add("wrong", f"{what}: {type(error).__name__}: {error}")
        else:
            self.add("right" if found else "wrong", f"{what}: another result")

    @classmethod
    def total(cls, parts: Sequence[Self]) -> Self:
        """All pieces of one part together."""
        counts = sum((part.counts for part in parts), Counter())
        examples = [example for part in parts for example in part.examples]
        return cls(parts[0].name, counts, examples, sum(part.cpu_seconds for part in parts))

    def plain(self) -> dict[str, Any]:
        """In values that JSON can hold, for `of`."""
        return {**vars(self), "counts": dict(self.counts)}

    @classmethod
    def of(cls, values: Mapping[str, Any]) -> Self:
        return cls(**{**values, "counts": Counter(values["counts"])})

    @property
    def tried(self) -> int:
        return sum(self.counts.values())

    @property
    def clean(self) -> bool:
        return not self.counts["wrong"] and not self.counts["lost"]


def table(tallies: list[Tally]) -> str:
    """The table of docs/reliability.md."""
    rows = ["| part | tried | refused | right | wrong | lost | CPU seconds |", "|---|---|---|---|---|---|---|"]
    for tally in tallies:
        numbers = " | ".join(f"{tally.counts[outcome]:,}" for outcome in OUTCOMES)
        rows.append(f"| {tally.name} | {tally.tried:,} | {numbers} | {tally.cpu_seconds:.0f} |")
    return "\n".join(rows)
