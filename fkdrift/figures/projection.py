"""The projection of an energy: against projection time, against the step, and how equal the weights were."""

from __future__ import annotations

import numpy as np
from matplotlib.figure import Figure

from fkdrift.estimators.projection import ProjectedEnergy, Trace
from fkdrift.figures.palette import DASHED, LEARNED, POTENTIAL, WALKERS


def projection_figure(found: ProjectedEnergy, trace: Trace, exact: float | None = None) -> Figure:
    """Three panels from one projection.

    Args:
        found, trace: what a `Projection` found, and how.
        exact: E_0, where it is known.

    Example:
        >>> from fkdrift.estimators.projection import Projection
        >>> system = fk.System(fk.load_potential("harmonic"))
        >>> process, walkers = fk.Process(fk.NeuralWavefunction(system), system), system.initial_walkers(64, g)
        >>> projection = Projection(process, walkers, time_scale=1.0, gap=7.0, n_steps=4, n_settling=2)
        >>> while projection.n_blocks < 3:
        ...     projection.advance(g)
        >>> len(projection_figure(projection.energy(), projection.trace(), exact=0.5).axes)
        3
    """
    figure = Figure(figsize=(10.5, 3.3), layout="constrained")
    time, step, share = figure.subplots(1, 3)
    t, E, dE = (np.array(x) for x in (trace.time, trace.energy, trace.error))
    time.fill_between(t, E - dE, E + dE, color=WALKERS, alpha=0.5, lw=0)
    time.plot(t, E, color=LEARNED, label="each block, longest step")
    time.axhline(found.energy.mean, color=POTENTIAL, lw=1.0, label=f"projected {found.energy}")
    if found.variational is not None:
        time.axhline(found.variational.mean, color=POTENTIAL, ls=":", lw=1.0, label=f"variational {found.variational}")
    time.set(xlabel="projection time", ylabel="energy $E$", title="projection")
    dt = np.array(found.time_steps)
    for estimates, label, colour in (
        (found.by_time_step, "mixed", LEARNED),
        (found.growth_by_time_step, "growth", POTENTIAL),
    ):
        means, errors = [E.mean for E in estimates], [E.error for E in estimates]
        step.errorbar(dt, means, errors, fmt="o", ms=4, capsize=2, color=colour, label=label)
    fine = np.linspace(0, 1.05 * dt.max(), 100)
    step.plot(fine, found.energy.mean + found.fit.slope * fine + found.fit.curvature * fine**2, color=WALKERS, lw=1.2)
    step.errorbar([0], [found.energy.mean], [found.energy.error], fmt="s", ms=4, capsize=2, color=LEARNED)
    step.set(xlabel="time step", ylabel="energy $E$", title="extrapolation to zero step")
    share.plot(t, trace.effective_share, color=LEARNED)
    share.set(
        xlabel="projection time", ylabel="smallest effective share", title="how equal the weights are", ylim=(0, 1.05)
    )
    for axes in (time, step):
        axes.ticklabel_format(useOffset=False)
        if exact is not None:
            axes.axhline(exact, **DASHED, label=f"exact {exact:.7g}")
        axes.legend()
    return figure
