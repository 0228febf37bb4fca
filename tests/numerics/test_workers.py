"""What workers have together is what one process has: sums, gathered arrays, gradients, resampled populations."""

import math
from functools import cache

import pytest
import torch
from forked import with_workers

import fkdrift as fk
from fkdrift.numerics.resampling import systematic
from fkdrift.numerics.workers import ALONE, Workers, balanced, stream
from fkdrift.paths.process import Process
from fkdrift.training.energy_gradients import MetropolisSamples
from fkdrift.wavefunction.neural import NeuralWavefunction


def generator(seed=0):
    return torch.Generator().manual_seed(seed)


def test_alone_everything_is_returned_as_it_is():
    x = torch.arange(6.0).reshape(3, 2)
    for same in (ALONE.sum(x), ALONE.average(x, 3), ALONE.gather(x), ALONE.own(x), ALONE.first(x)):
        assert same is x
    assert ALONE.any(True, False) == (True, False)
    assert ALONE.accumulated(x, x + 1, 3).equal(x + 1)
    assert ALONE.messages == 0


@pytest.mark.parametrize("n", [2, 5, 1024, 1025, 1026])
@pytest.mark.parametrize("size", [1, 2, 3])
def test_shares_are_all_of_them_in_order(n, size):
    workers = Workers()
    workers.size, found = size, []
    for workers.rank in range(size):
        found += range(n)[workers.share(n)]
        assert len(range(n)[workers.share(n)]) == workers.count(n)
    assert found == list(range(n))


def test_streams_differ():
    assert len({stream(seed, rank) for seed in range(30) for rank in range(30)}) == 900


@pytest.mark.parametrize("size", [2, 3, 4])
def test_copies_stay_where_they_can(size):
    """As many as there are both copies and places in a process, and the same copies as before."""
    n = 50
    chosen = systematic(3 * torch.randn(20, n, generator=generator()), generator(1))
    placed = balanced(chosen, size)
    assert placed.sort(1).values.equal(chosen.sort(1).values)
    workers = Workers()
    workers.size = size
    stay, could = 0, 0
    for workers.rank in range(size):
        mine = workers.share(n)
        here = (chosen >= mine.start) & (chosen < mine.stop)
        could += here.sum(1).clamp_max(mine.stop - mine.start).sum()
        stay += ((placed[:, mine] >= mine.start) & (placed[:, mine] < mine.stop)).sum()
    assert stay == could


def shared(workers):
    """Everything that two or three workers do with arrays."""
    x = torch.arange(14.0).reshape(7, 2)
    mine = workers.own(x)
    source = balanced(systematic(torch.randn(4, 7, generator=generator()), generator(2)), workers.size)
    populations = torch.arange(28.0).reshape(4, 7)
    here = workers.own(populations, 1)
    moved = workers.exchange({"a": here, "b": here[..., None] > 12}, source)
    workers.messages = 0
    workers.average(mine.mean(0), len(mine))
    return {
        "average": workers.average(mine.mean(0), len(mine)),
        "gathered": workers.gather(mine),
        "other axis": workers.gather(workers.own(x.T, 1), 1),
        "integers": workers.gather(workers.own(torch.arange(7))),
        "sum": workers.sum(mine.sum(0)),
        "first": workers.first(torch.tensor([float(workers.rank)])),
        "any": workers.any(workers.rank == 1, False),
        "accumulated": workers.accumulated(torch.ones(2), 1 + mine.mean(0), len(mine)),
        "exchanged": workers.gather(moved["a"], 1).equal(populations.gather(1, source)),
        "exchanged flags": workers.gather(moved["b"], 1)[..., 0].equal(populations.gather(1, source) > 12),
    }


def test_three_workers_have_together_what_one_has():
    x = torch.arange(14.0).reshape(7, 2)
    for found in with_workers(3, shared):
        torch.testing.assert_close(found["average"], x.mean(0))
        torch.testing.assert_close(found["accumulated"], 1 + x.mean(0))
        assert found["gathered"].equal(x)
        assert found["other axis"].equal(x.T)
        assert found["integers"].equal(torch.arange(7))
        assert found["sum"].equal(x.sum(0))
        assert found["first"].item() == 0
        assert found["any"] == (True, False)
        assert found["exchanged"]
        assert found["exchanged flags"]


@cache
def helium():
    """The system, made once for all processes."""
    return fk.System(fk.load_potential("helium"), torch.float64)


def trained(workers):
    """The gradient, the Fisher product, and an update, without moving the walkers."""
    system = helium()
    with torch.random.fork_rng():
        torch.manual_seed(0)
        psi = NeuralWavefunction(system, width=8)
        for p in psi.parameters():
            p.data += 0.1 * torch.randn_like(p)
    process = Process(psi, system, workers)
    walkers = workers.own(system.initial_walkers(128, generator()))
    source = _Still(n_moves=1)
    method = fk.NaturalGradient(process, source, time_scale=system.time_scale)
    found = source.gradient(process, method.parameters, system.time_scale, walkers, 0, generator())
    direction = torch.randn(len(found.gradient), generator=generator(), dtype=torch.float64)
    product = found.metric(direction)
    update = method.update(walkers, 0, generator())
    theta = torch.nn.utils.parameters_to_vector(method.parameters).detach()
    return {
        "energies": update.energies,
        "gradient": found.gradient,
        "noise": found.noise,
        "Fisher product": product,
        "step": method.delta,
        "parameters": theta,
        "excess": torch.tensor(update.estimated_excess),
    }


class _Still(MetropolisSamples):
    """Metropolis steps of length zero: the walkers stay."""

    def gradient(self, process, parameters, time_scale, walkers, index, generator):
        self.move_dt = torch.zeros((), dtype=walkers.dtype)
        return super().gradient(process, parameters, time_scale, walkers, index, generator)


def test_the_same_walkers_in_two_processes_give_the_same_update():
    """To rounding, which conjugate gradients enlarge; parameters in both processes to the last bit."""
    alone = trained(Workers())
    first, second = with_workers(2, trained)
    for name, value in alone.items():
        atol = 1e-6 if name in ("step", "parameters") else 1e-12
        torch.testing.assert_close(first[name], value, rtol=1e-12, atol=atol, msg=name)
    assert first["parameters"].equal(second["parameters"])
    assert math.isfinite(alone["excess"])
