"""Every wavefunction and drift through everything that consumes one.

What has a log psi works everywhere; what has none works where trajectories are enough, and is refused with a remedy
where they are not.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator

import pytest
import torch
from torch import Tensor, nn

from fkdrift.errors import InputError
from fkdrift.estimators.local_energy import StationarySampler
from fkdrift.estimators.path_action import PathSampler
from fkdrift.hamiltonian.system import System
from fkdrift.hamiltonian.trial_function import Derivatives
from fkdrift.numerics.differentiation import curvatures
from fkdrift.numerics.networks import seeded
from fkdrift.paths.evolution import evolve
from fkdrift.paths.process import Process
from fkdrift.training.energy_gradients import GradientSource, IndependentSamples, MetropolisSamples, Pathwise
from fkdrift.training.loop import Optimiser, fit
from fkdrift.training.natural_gradient import NaturalGradient
from fkdrift.training.pathwise import pathwise_adam
from fkdrift.wavefunction import metropolis
from fkdrift.wavefunction.flow import FlowWavefunction, importance_energy
from fkdrift.wavefunction.flow_start import make_flow
from fkdrift.wavefunction.local_energy import local_energy, log_psi
from fkdrift.wavefunction.neural import NeuralVectorField, NeuralWavefunction
from fkdrift.wavefunction.protocol import AutogradWavefunction, Wavefunction
from tests.systems import gaussian_start, generator

F64 = torch.float64
STRENGTH = 0.1


@pytest.fixture(autouse=True)
def _networks_of_one_seed() -> Iterator[None]:
    """Networks begin with parameters from torch's global generator: the same for every order of the tests."""
    with seeded(0):
        yield


def system() -> System:
    return gaussian_start("henon_heiles")


def quartic(r: Tensor) -> Tensor:
    """f = -a |r|^4 over the particle."""
    return -STRENGTH * r.square().sum((-2, -1)).square()


class OwnWavefunction(nn.Module):
    """A user's module: it inherits nothing of the package, and has the members of the protocol."""

    def __init__(self, system: System) -> None:
        super().__init__()
        self.strength = nn.Parameter(torch.tensor(STRENGTH, dtype=F64))
        self.trial_function, self.numbers_per_walker = system.trial_function, 4
        self.variance = system.sigma.square()

    def forward(self, r: Tensor) -> Tensor:
        return self.variance * self.value_and_gradient(r)[1]

    def log_jastrow(self, r: Tensor) -> Tensor:
        return -self.strength * r.square().sum((-2, -1)).square()

    def log_psi(self, r: Tensor) -> Tensor:
        return self.log_jastrow(r) + self.trial_function(r)

    def value_and_gradient(self, r: Tensor) -> tuple[Tensor, Tensor]:
        return self.log_jastrow(r), -4 * self.strength * r.square().sum((-2, -1), keepdim=True) * r

    def derivatives(self, r: Tensor) -> Derivatives:
        square = r.square().sum(-1)
        dim = r.shape[-1]
        return Derivatives(*self.value_and_gradient(r), self.variance[:, 0] * -4 * self.strength * (dim + 2) * square)

    def sample(self, n: int, generator: torch.Generator) -> None:
        return None


def shaken(drift: nn.Module) -> nn.Module:
    """Its parameters moved a little, so that nothing is zero."""
    for parameter in drift.parameters():
        with torch.no_grad():
            parameter += 0.05 * torch.randn(parameter.shape, generator=generator(3), dtype=F64)
    return drift


def flow(system: System) -> nn.Module:
    return FlowWavefunction(make_flow(system, width=8), system)


WAVEFUNCTIONS: dict[str, Callable[[System], nn.Module]] = {
    "network": lambda system: NeuralWavefunction(system, width=6),
    "flow": flow,
    "autograd": lambda system: AutogradWavefunction(quartic, system),
    "own module": OwnWavefunction,
}
FREE: dict[str, Callable[[System], Callable[[Tensor], Tensor]]] = {
    "vector field": lambda system: shaken(NeuralVectorField(system, width=6)),
    "plain function": lambda system: lambda r: -0.1 * r,
}


@pytest.fixture(params=list(WAVEFUNCTIONS))
def process(request: pytest.FixtureRequest) -> Process:
    """One whose drift has a log psi."""
    made = system()
    return Process(shaken(WAVEFUNCTIONS[request.param](made)), made)


@pytest.fixture(params=list(WAVEFUNCTIONS))
def untrained(request: pytest.FixtureRequest) -> Process:
    """One at the start of training: near the trial function."""
    made = system()
    return Process(WAVEFUNCTIONS[request.param](made), made)


@pytest.fixture(params=list(FREE))
def free(request: pytest.FixtureRequest) -> Process:
    """One whose drift has none."""
    made = system()
    return Process(FREE[request.param](made), made)


def positions(n: int = 6) -> Tensor:
    return system().initial_walkers(n, generator(1))


def test_members(process: Process) -> None:
    """f, its derivatives, v and log psi belong together."""
    psi, made, r = process.drift, process.reference, positions()
    assert isinstance(psi, Wavefunction)
    f, gradient, second = curvatures(psi.log_jastrow, r)
    weighted = (made.sigma.square() * second).sum((-2, -1))
    value, by_reverse = psi.value_and_gradient(r)
    derivatives = psi.derivatives(r)
    for ours, exact in ((value, f), (derivatives.value, f), (by_reverse, gradient), (derivatives.gradient, gradient)):
        torch.testing.assert_close(ours, exact)
    torch.testing.assert_close(derivatives.laplacian.sum(-1), weighted)
    torch.testing.assert_close(psi(r), made.sigma.square() * gradient)
    torch.testing.assert_close(psi.log_psi(r), f + made.trial_function(r))


def test_local_energy(process: Process) -> None:
    """(H psi) / psi from log psi alone."""
    r = positions(40)
    _, gradient, second = curvatures(process.drift.log_psi, r)
    exact = process.reference.potential(r) - (process.sigma.square() * (gradient.square() + second)).sum((-2, -1)) / 2
    torch.testing.assert_close(local_energy(process, r), exact)


def test_log_psi(process: Process) -> None:
    r = positions()
    torch.testing.assert_close(log_psi(process, process.reference, r), process.drift.log_psi(r).detach())


def test_log_psi_of_a_free_drift(free: Process) -> None:
    assert log_psi(free, free.reference, positions()).shape == (6,)


def test_independent_samples(process: Process) -> None:
    sample = process.drift.sample(5, generator())
    assert sample is None or sample.shape == (5, *process.reference.shape)
    assert (sample is not None) == isinstance(process.drift, FlowWavefunction)


def test_trajectories(process: Process) -> None:
    """Euler-Maruyama, and the path action with the boundary term of log psi."""
    check_trajectories(process)


def test_trajectories_of_a_free_drift(free: Process) -> None:
    check_trajectories(free)


def check_trajectories(process: Process) -> None:
    path = evolve(process, positions(), n_steps=4, dt=0.05, generator=generator())
    assert path.end.shape == positions().shape
    sampler = PathSampler(process, positions(), dt=0.1, n_steps=4, n_equilibration=1)
    for _ in range(3):
        sampler.advance(generator())
    energy = sampler.energy()
    same = energy.corrected.mean == pytest.approx(energy.action.mean, abs=1e-12)
    assert same != isinstance(process.drift, Wavefunction)


def test_stationary_energy(process: Process) -> None:
    """Metropolis-adjusted steps and the local energy agree with the exact mean by quadrature of |psi|^2."""
    made = process.reference
    axis = torch.linspace(-6, 6, 161, dtype=F64)
    grid = torch.cartesian_prod(axis, axis).reshape(-1, *made.shape)
    with torch.no_grad():
        weight = (2 * process.drift.log_psi(grid)).softmax(0)
        exact = (weight * local_energy(process, grid)).sum().item()
        draws = grid[weight.multinomial(400, replacement=True, generator=generator(2))]
    sampler = StationarySampler(process, draws, time_scale=made.time_scale, n_equilibration=2)
    g = generator(4)
    for _ in range(10):
        sampler.advance(g)
    assert abs(sampler.energy().energy.deviation(exact)) < 4


def test_importance_energy(process: Process) -> None:
    """Samples of a flow weigh any other psi."""
    energy = importance_energy(process, flow(system()), 500, generator())
    assert energy.effective_samples > 100
    assert 0.9 < energy.mean < 1.6


@pytest.mark.parametrize("source", [lambda: MetropolisSamples(2), lambda: Pathwise(4)], ids=["metropolis", "pathwise"])
def test_natural_gradient(untrained: Process, source: Callable[[], GradientSource]) -> None:
    """From local energies at Metropolis samples, or pathwise, for whatever has parameters."""
    process, made = untrained, untrained.reference
    if not list(process.drift.parameters()):
        with pytest.raises(InputError, match="no parameters to train"):
            NaturalGradient(process, time_scale=made.time_scale)
        return
    check_training(process, NaturalGradient(process, source(), time_scale=made.time_scale))


def test_independent_samples_need_a_flow(untrained: Process) -> None:
    if isinstance(untrained.drift, FlowWavefunction):
        check_training(untrained, NaturalGradient(untrained, IndependentSamples(256), time_scale=1.0))
    elif list(untrained.drift.parameters()):
        with pytest.raises(InputError, match="use MetropolisSamples"):
            NaturalGradient(untrained, IndependentSamples(), time_scale=1.0)


def test_natural_gradient_of_a_free_drift(free: Process) -> None:
    """Pathwise by default; what needs log psi says so, and what has no parameters too."""
    if not isinstance(free.drift, nn.Module):
        with pytest.raises(InputError, match="no parameters to train"):
            NaturalGradient(free, time_scale=1.0)
        return
    check_training(free, NaturalGradient(free, time_scale=1.0))
    with pytest.raises(InputError, match="needs log psi"):
        NaturalGradient(free, MetropolisSamples(), time_scale=1.0)


def test_adam_on_paths(untrained: Process) -> None:
    if list(untrained.drift.parameters()):
        check_training(untrained, pathwise_adam(untrained, n_steps=4, dt=(0.1, 0.05), n_updates=2))


def check_training(process: Process, method: Optimiser) -> None:
    """Two updates change the parameters and leave them, and the energies, finite."""
    before = nn.utils.parameters_to_vector(process.drift.parameters()).detach().clone()
    *_, step = fit(method, positions(128), n_updates=2, generator=generator())
    after = nn.utils.parameters_to_vector(process.drift.parameters()).detach()
    assert bool(after.isfinite().all())
    assert not torch.equal(before, after)
    assert 0.5 < step.energy.mean < 2.5


@pytest.mark.parametrize(
    "consumer",
    [
        lambda process, r: local_energy(process, r),
        lambda process, r: metropolis.start(process, r, 0.1),
        lambda process, r: importance_energy(process, flow(system()), 10, generator()),
    ],
)
def test_a_free_drift_is_refused_where_log_psi_is_needed(free: Process, consumer: Callable) -> None:
    with pytest.raises(InputError, match=r"needs log psi.*use a NeuralWavefunction.*path action"):
        consumer(free, positions())
