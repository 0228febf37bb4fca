"""The phases that runs are made of: train, sample until an error is reached, compute something once."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any, Protocol

import torch
from torch import Tensor, nn

from fkdrift.numerics.estimates import Estimate
from fkdrift.numerics.workers import ALONE, Workers
from fkdrift.runs.belonging import State, check_state
from fkdrift.runs.run import Phase
from fkdrift.training.adam import Adam
from fkdrift.training.loop import Optimiser, Step, converged, fit

MINIMUM_BLOCKS = 32
"""Sampled before an error bar is reliable: part of it comes from rare walkers in the tails (docs/validation.md)."""
N_CHECKS, FEWEST_BETWEEN_CHECKS = 40, 25
"""Of a model of data on those held back, over the whole training, and the fewest updates between two."""
ROUNDING_ERRORS = 2
"""An error bar that small is reached, whatever was asked for: more samples would not make it smaller."""


class Training(Phase):
    """Updates of an optimiser.

    Args:
        method: how to improve the model.
        walkers: starting positions (batch, particle, dim); for a model of data an empty tensor.
        n_updates: at most.
        tolerance: stop once the estimated excess energy is below this.
        share: see `Phase`.
        once: whether what comes after belongs to the trained model, so that training, once ended, does not go on.
        settled: whether there is no more to be had, asked before every update.
        workers: that share the walkers.
    """

    name = "training"

    def __init__(
        self,
        method: Optimiser,
        walkers: Tensor,
        *,
        n_updates: int,
        tolerance: float = 0.0,
        share: float = 1.0,
        once: bool = False,
        settled: Callable[[], bool] = lambda: False,
        workers: Workers = ALONE,
    ) -> None:
        self.method, self.walkers, self.n_updates, self.tolerance = method, walkers, n_updates, tolerance
        self.share, self.once, self.settled, self.workers = share, once, settled, workers
        self.n_made, self.ended = 0, False
        self.energy: Estimate | None = None

    @property
    def step(self) -> int:
        return self.n_made

    @property
    def walker_steps(self) -> int:
        return getattr(self.method, "n_moves", 0) * len(self.walkers) * self.workers.size

    @property
    def planned(self) -> int:
        ended = self.ended or self.settled() or converged(self.method, self.tolerance, self.n_made)
        return self.n_made if ended else self.n_updates

    def advance(self, generator: torch.Generator) -> None:
        n = self.n_made
        (step,) = fit(self.method, self.walkers, n_updates=n + 1, generator=generator, first=n)
        self._take(step)

    def _take(self, step: Step) -> None:
        self.n_made, self.walkers, self.energy = step.index, step.update.walkers.detach(), step.energy
        self.standard_deviation, self.estimated_excess = step.standard_deviation, step.update.estimated_excess

    def finish(self) -> None:
        if self.once and not self.ended:
            self.method.finish()
            self.ended = True

    def results(self) -> dict[str, Any]:
        return {}

    def state_dict(self) -> State:
        return {
            "method": self.method.state_dict(),
            "walkers": self.workers.gather(self.walkers),
            "n_updates": self.n_made,
            "ended": self.ended,
            "energy": None if self.energy is None else [self.energy.mean, self.energy.error],
            "standard_deviation": self.standard_deviation,
        }

    def load_state_dict(self, state: State) -> None:
        self.method.load_state_dict(state["method"])
        self.walkers = self.workers.own(state["walkers"]).to(self.walkers)
        self.n_made, self.ended = state["n_updates"], state["ended"]
        self.energy = None if state["energy"] is None else Estimate(*state["energy"])
        self.standard_deviation = state["standard_deviation"]


class ValidatedTraining(Training):
    """Training of a model of data that is watched on data held back: the best state is kept, and it stops by itself.

    When it has ended the model has the weights of its best check, or their exponential average; those of the last
    update are kept beside them, and training that goes on goes on from there.

    Args:
        method: how to improve the model.
        model: what is trained.
        n_updates: at most.
        validate: the quantity on the data held back, always at the same noise; None: nothing is held back.
        patience: checks without a new best until it stops.
        average: decay of an exponential average of the weights, which is then what is checked and kept; 0 for none.
        workers: that share the data of an update; each checks by itself.

    Attributes:
        curve: rows (update, quantity, error, wall seconds), one for each check.
    """

    method: Adam

    def __init__(
        self,
        method: Adam,
        model: nn.Module,
        *,
        n_updates: int,
        validate: Callable[[], Estimate] | None,
        patience: int,
        average: float = 0.0,
        workers: Workers = ALONE,
    ) -> None:
        super().__init__(method, torch.empty(0), n_updates=n_updates, workers=workers)
        self.model, self.validate, self.patience, self.average = model, validate, patience, average
        self.curve: list[list[float]] = []
        self.averaged: State = self._weights() if average else {}
        self.best: State = {}
        self.last: State = {}

    @property
    def stopped(self) -> bool:
        """Whether the quantity has not fallen for so long that it is not expected to."""
        return len(self.curve) - 1 - self._best_check >= self.patience

    @property
    def _best_check(self) -> int:
        return min(range(len(self.curve)), key=lambda k: self.curve[k][1], default=0)

    @property
    def planned(self) -> int:
        return self.n_made if self.stopped else super().planned

    def advance(self, generator: torch.Generator) -> None:
        if self.last:
            self.model.load_state_dict(self.last)
            self.last = {}
        self.method.spent = self.spent
        super().advance(generator)
        if self.averaged:
            decay = min(self.average, (1 + self.n_made) / (10 + self.n_made))  # the first weights are soon forgotten
            for name, value in self.model.state_dict().items():
                if value.is_floating_point():
                    self.averaged[name].lerp_(value, 1 - decay)
        every = max(FEWEST_BETWEEN_CHECKS, self.n_updates // N_CHECKS)
        if self.validate is not None and (self.n_made % every == 0 or self.n_made == self.n_updates):
            self._check(self.validate)

    def _check(self, validate: Callable[[], Estimate]) -> None:
        """Validate the weights that would be kept now, and keep them if they are the best."""
        now = self._weights()
        self.model.load_state_dict(self.averaged or now)
        found = validate()
        self.curve.append([float(self.n_made), found.mean, found.error, self.wall_seconds])
        if self._best_check == len(self.curve) - 1:
            self.best = self._weights()
        self.model.load_state_dict(now)

    def finish(self) -> None:
        super().finish()
        if (kept := self.best or self.averaged) and not self.last:
            self.last = self._weights()
            self.model.load_state_dict(kept)

    def results(self) -> dict[str, Any]:
        if not self.curve:
            return {}
        step, mean, error, _ = self.curve[self._best_check]
        found = {"mean": mean, "error": error if math.isfinite(error) else None, "n_updates": int(step)}
        return {"validation": {**found, "stopped": self.stopped}}

    def _weights(self) -> State:
        return {name: value.detach().clone() for name, value in self.model.state_dict().items()}

    def state_dict(self) -> State:
        curve = torch.tensor(self.curve, dtype=torch.float64).reshape(-1, 4)
        kept = {"averaged": self.averaged, "best": self.best, "last": self.last}
        return {**super().state_dict(), "curve": curve, **kept}

    def load_state_dict(self, state: State) -> None:
        super().load_state_dict(state)
        self.curve[:] = state["curve"].tolist()
        like = self.model.state_dict()
        for name in ("averaged", "best", "last"):
            if state[name]:
                check_state(state[name], like, name)
            setattr(self, name, {key: value.to(like[key].device) for key, value in state[name].items()})


class Sampler(Protocol):
    """What averages over blocks of trajectories or samples.

    Attributes:
        n_blocks: blocks counted; negative while equilibrating.
    """

    n_blocks: int

    def advance(self, generator: torch.Generator) -> object:
        """Make one block."""

    def state_dict(self) -> State: ...

    def load_state_dict(self, state: State) -> None: ...


class Sampling(Phase):
    """Blocks of a sampler that is made when the phase begins, from what the phases before it left.

    Args:
        name: see `Phase`.
        make: the sampler.
        energy: what it has found so far, asked only once there is a counted block.
        results: its entries of result.json.
        n_blocks: to be counted.
        atol: if given, as many blocks instead as the standard error needs to fall below this.
        most: blocks, whatever the error is; None for no limit.
        rounding: relative rounding error of the energy, below which no error bar can fall.
        share: see `Phase`.
    """

    def __init__(
        self,
        name: str,
        make: Callable[[], Any],
        *,
        energy: Callable[[Any], Estimate],
        results: Callable[[Any], dict[str, Any]],
        n_blocks: int,
        atol: float | None = None,
        most: int | None = None,
        rounding: float = 0.0,
        share: float = 1.0,
    ) -> None:
        self.most, self.rounding = most, rounding
        self.name, self.make, self.n_blocks, self.atol, self.share = name, make, n_blocks, atol, share
        self._energy, self._results = energy, results
        self.sampler: Any = None
        self._found: Estimate | None = None

    @property
    def step(self) -> int:
        return 0 if self.sampler is None else self.sampler.n_blocks

    @property
    def walker_steps(self) -> int:
        return getattr(self.sampler, "walker_steps", 0)

    @property
    def energy(self) -> Estimate | None:  # type: ignore[override]
        if self._found is None and self.step > 0:
            self._found = self._energy(self.sampler)
        return self._found

    @property
    def planned(self) -> int:
        if self.atol is None:
            return self.n_blocks
        n, E = self.step, self.energy
        if E is None or n < MINIMUM_BLOCKS:
            return MINIMUM_BLOCKS if self.most is None else min(MINIMUM_BLOCKS, self.most)
        atol = max(self.atol, ROUNDING_ERRORS * self.rounding * abs(E.mean))
        needed = n if E.error <= atol else n + max(1, round(n * ((E.error / atol) ** 2 - 1)))
        return needed if self.most is None else min(needed, max(n, self.most))

    def advance(self, generator: torch.Generator) -> None:
        if self.sampler is None:
            self.sampler = self.make()
        self.sampler.advance(generator)
        self._found = None

    def results(self) -> dict[str, Any]:
        return self._results(self.sampler) if self.step > 0 else {}

    def state_dict(self) -> State:
        return {} if self.sampler is None else self.sampler.state_dict()

    def load_state_dict(self, state: State) -> None:
        if state:
            self.sampler, self._found = self.make(), None
            check_state(state, self.sampler.state_dict(), self.name)
            self.sampler.load_state_dict(state)


class Once(Phase):
    """Something computed once at the end and kept with the state; what it takes is not counted as time of the run.

    Args:
        name: see `Phase`.
        compute: its entries of result.json.
        of: a number that tells whether the entries still belong to the run; they are computed again when it changes.
    """

    share = None

    def __init__(self, name: str, compute: Callable[[], dict[str, Any]], of: Callable[[], int] = lambda: 0) -> None:
        self.name, self._compute, self._of = name, compute, of
        self._found: dict[str, Any] = {}
        self._made_of: int | None = None

    @property
    def step(self) -> int:
        return int(self._made_of == self._of())

    @property
    def planned(self) -> int:
        return 1

    def advance(self, generator: torch.Generator) -> None:
        self._found, self._made_of = self._compute(), self._of()

    def results(self) -> dict[str, Any]:
        return self._found if self.step else {}

    def state_dict(self) -> State:
        return {"found": self._found, "of": self._made_of}

    def load_state_dict(self, state: State) -> None:
        check_state(state["of"], 0 if state["of"] is not None else None, f"{self.name}.of")
        self._found, self._made_of = state["found"], state["of"]
