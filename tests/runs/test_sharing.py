"""Runs whose walkers are shared: statistics, saving, going on with as many workers or others; started processes."""

from __future__ import annotations

import os
import re
import subprocess
import sys
import time
from contextlib import nullcontext
from pathlib import Path

import numpy as np
import pytest
import torch
from forked import with_workers
from runs import assert_same, without_clock

import fkdrift as fk
from fkdrift.errors import BadConfig, ComputationError
from fkdrift.estimators.correlation import CorrelationSampler
from fkdrift.estimators.observables import parse_observable
from fkdrift.estimators.projection import Projection
from fkdrift.estimators.spectrum import ExcitationSampler
from fkdrift.numerics.workers import Workers
from fkdrift.paths.process import Process
from fkdrift.runs import sharing
from fkdrift.runs.ground_state import GroundState
from fkdrift.runs.learning import learn
from fkdrift.runs.methods.pimc import Pimc, PimcSettings
from fkdrift.runs.report import Progress
from fkdrift.runs.sharing import number_of_workers
from fkdrift.training.adam import minibatch_adam
from fkdrift.wavefunction.neural import NeuralWavefunction
from fkdrift.wavefunction.protocol import AutogradWavefunction

pytestmark = pytest.mark.usefixtures("no_figures")
QUICK = {
    "n_walkers": 129,
    "n_updates": 6,
    "width": 8,
    "n_blocks": 32,
    "n_moves": 2,
    "path_step": 0.5,
    "tolerance": 1e-9,
}


def quartic(**changes):
    return GroundState(fk.load_potential("x**4"), fk.Settings(**{**QUICK, "n_path_blocks": 1, **changes}))


def advanced(run, workers, n=None):
    """What a run is after n blocks of all workers, or at its end, put together: its state, and its result."""
    run.distribute(workers.group)
    for k, _ in enumerate(run.advance(), 1):
        if k == n:
            break
    run.collect()
    if n is None:
        list(run.conclude())
    return run.state_dict(), run.result


def z(entry, exact):
    return abs(entry["mean"] - exact) / entry["error"]


# Statistics


def test_two_workers_find_the_ground_state_of_a_quartic_well():
    run = quartic(observables=("x**2",))
    (state, result), (other, _) = with_workers(2, lambda workers: advanced(run, workers))
    assert_same(state, other)
    assert (result["workers"], result["status"]) == (2, "finished")
    for name in ("variational", "projected", "path_action"):
        assert z(result["energies"][name], 0.66798625916) < 4, name
    assert z(result["observables"]["x**2"]["pure"], 0.2873375668) < 4
    assert len(state["phases"]["training"]["walkers"]) == 129


@pytest.fixture(scope="module")
def harmonic():
    """V = r^2 / 2 in float64."""
    return fk.System(fk.load_potential("harmonic"), torch.float64)


def projected(system, workers):
    """The energy by populations that two workers share, of a psi that is wrong by a factor in the exponent."""
    psi = AutogradWavefunction(lambda r: 0.3 * r.square().sum((-2, -1)), system)
    g = torch.Generator().manual_seed(workers.rank)
    walkers = system.initial_walkers(64, g)
    sampler = Projection(
        Process(psi, system, workers), walkers, time_scale=1.0, gap=2.0, left=1e-2, n_walkers=960, n_steps=8
    )
    sampler.independent = False
    while sampler.n_blocks < 24:
        sampler.advance(g)
    resampled = (torch.stack(sampler.series)[:, 4] < 0.5).any()
    return sampler.energy(), bool(resampled), sampler.state_dict(), workers.messages


def test_resampling_shared_populations_keeps_the_energy(harmonic):
    (found, resampled, state, n), (other, _, same, _) = with_workers(2, lambda workers: projected(harmonic, workers))
    assert_same(state, same)
    assert found == other
    assert resampled
    assert n > 100
    assert abs(found.energy.deviation(0.5)) < 4
    assert abs(found.growth.deviation(0.5)) < 4
    assert state["log_weights"].shape == (3, 16, 20)


def spectra(system, workers):
    """Gaps, which have no noise where psi is exact, and the correlation of x."""
    process = Process(NeuralWavefunction(system, width=8), system, workers)
    g = torch.Generator().manual_seed(workers.rank)
    walkers = system.initial_walkers(160, g)
    levels = ExcitationSampler(process, system, walkers, levels=3, n_equilibration=1)
    x = parse_observable("x", system.potential)
    options = {"time_scale": 1.0, "longest": 1.0, "n_lags": 2, "padding": 0.1}
    correlation = CorrelationSampler(process, walkers, [x], n_equilibration=0, **options)
    for _ in range(3):
        levels.advance(g)
    correlation.advance(g)
    return levels.excitations(), correlation.correlation(), correlation.state_dict()["weights"].shape[-1]


def test_spectra_of_two_workers(harmonic):
    (levels, C, n), (same, _, _) = with_workers(2, lambda workers: spectra(harmonic, workers))
    assert levels == same
    assert n == 320
    assert [round(each.gap.mean, 4) for each in levels] == [1.0, 2.0]
    exact = (-C.times).exp() / 2
    assert bool(((C.mean[:, 0, 0] - exact).abs() < 4 * C.error[:, 0, 0]).all())


def test_two_workers_share_the_chains_of_a_path_integral():
    settings = PimcSettings(
        temperature=0.5, n_chains=65, n_blocks=10, n_equilibration=4, n_slices=8, check_slices=False
    )
    chains = Pimc(fk.load_potential("harmonic"), settings)
    (state, result), (other, _) = with_workers(2, lambda workers: advanced(chains, workers))
    assert_same(state, other)
    assert z(result["energies"]["thermal"], 0.6565176427496657) < 4


def regressed(workers):
    """Weights after some updates of Adam on minibatches of 7, without any noise, and the last free energies."""
    x = torch.randn(40, 3, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    with torch.random.fork_rng():
        torch.manual_seed(0)
        model = torch.nn.Linear(3, 1).double()
    options = {"n_updates": 9, "batch_size": 7, "learning_rate": 0.1}
    method = minibatch_adam(model, lambda x, g: (model(x)[:, 0] - x[:, 0]).square(), x, workers=workers, **options)
    steps = list(fk.fit(method, torch.empty(0), n_updates=9, generator=torch.Generator()))
    return torch.nn.utils.parameters_to_vector(model.parameters()).detach(), steps[-1].update.energies


def test_two_workers_share_minibatches():
    """They take the steps that one takes, to rounding; and a model is learned."""
    theta, F = regressed(Workers())
    (first, energies), (second, _) = with_workers(2, regressed)
    assert first.equal(second)
    torch.testing.assert_close(first, theta)
    torch.testing.assert_close(energies, F)
    learned = learn("vae", np.eye(8, dtype=int).repeat(4, 0), latents=2, width=8, n_updates=0, progress=False)
    learned = type(learned)(learned.recipe, learned.settings.changed(n_updates=5), learned.data)
    (state, result), (other, _) = with_workers(2, lambda workers: advanced(learned, workers))
    assert_same(state, other)
    assert (result["workers"], result["n_updates"]) == (2, 5)


# Going on


def test_a_shared_run_goes_on_bit_for_bit_and_with_others_says_so():
    whole = with_workers(2, lambda workers: advanced(quartic(project=False), workers))[0][0]
    stopped = with_workers(2, lambda workers: advanced(quartic(project=False), workers, n=5))[0][0]

    def goes_on(workers):
        run = quartic(project=False)
        run.load_state_dict(stopped)
        assert run.n_workers == number_of_workers(run) == 2
        return advanced(run, workers)

    assert_same(without_clock(with_workers(2, goes_on)[0][0]), without_clock(whole))
    alone = quartic(project=False)
    alone.load_state_dict(stopped)
    assert alone.state_dict()["generator"].equal(stopped["generator"])
    list(alone.advance())
    assert alone.result["forced"] == [
        "1 worker went on with what 2 workers had begun, the same statistically but not bit for bit"
    ]
    assert alone.n_workers == 1


# How many


def test_how_many_workers(monkeypatch):
    run = quartic()
    assert number_of_workers(run) == 1
    monkeypatch.setenv("FKDRIFT_WORKERS", "2")
    assert number_of_workers(run) == 2
    assert number_of_workers(quartic(workers=3)) == 3
    small = quartic(workers="auto")
    assert number_of_workers(small) == 1
    assert small.result["remark_on_workers"].startswith("auto: ")
    monkeypatch.setattr("joblib.cpu_count", lambda only_physical_cores: 8)
    monkeypatch.setattr(GroundState, "seconds_alone", lambda run: 100.0)
    assert number_of_workers(large := quartic(workers="auto")) == 8
    assert (
        large.result["remark_on_workers"] == "auto: all 8 physical cores, which save about 88 s by a first measurement"
    )
    with pytest.raises(BadConfig, match="130 workers are more than the 129 walkers"):
        number_of_workers(quartic(workers=130))
    with pytest.raises(BadConfig, match="workers = 'two' is not allowed: give a number of at least 1, or auto"):
        fk.Settings(workers="two")
    with pytest.raises(BadConfig, match="computed by `jobs`"):
        fk.ScanSettings(workers=2)
    monkeypatch.setenv("FKDRIFT_WORKERS", "many")
    with pytest.raises(BadConfig, match="FKDRIFT_WORKERS = 'many'"):
        number_of_workers(run)
    for name, value in (("WORLD_SIZE", "2"), ("RANK", "0")):
        monkeypatch.setenv(name, value)
    with pytest.raises(BadConfig, match="2 processes have been started"):
        number_of_workers(quartic(workers=3))


# Processes

ACTING = '''
"""A quartic oscillator that does something to a process at the 40th evaluation of V inside a worker's run."""
import os, signal
from dataclasses import dataclass

from fkdrift.hamiltonian.potential import Potential

CALLS = [0]
DO = {
    "interrupt": ("0", lambda: os.kill(os.getppid(), signal.SIGINT)),
    "kill": ("1", lambda: os.kill(os.getpid(), signal.SIGKILL)),
    "hang": ("1", lambda: os.kill(os.getpid(), signal.SIGSTOP)),
}

@dataclass(frozen=True)
class Quartic(Potential):
    formula = "V = x^4/2"

    def __call__(self, r):
        if "RANK" in os.environ and signal.getsignal(signal.SIGTERM) is not signal.SIG_DFL:
            CALLS[0] += 1
        rank, act = DO[os.environ["ACTION"]]
        if CALLS[0] == 40 and os.environ.get("RANK") == rank:
            CALLS[0] += 1
            act()
        return r.pow(4).sum((-2, -1)) / 2
'''


@pytest.fixture
def acting(tmp_path, monkeypatch):
    """The potential, by name, and a setter of what it does."""
    (tmp_path / "acting.py").write_text(ACTING)
    monkeypatch.setenv("ACTION", "interrupt")
    return f"{tmp_path / 'acting.py'}:Quartic", lambda action: monkeypatch.setenv("ACTION", action)


def test_ctrl_c_stops_and_saves_and_a_killed_worker_ends_the_run(acting, tmp_path, monkeypatch):
    name, act = acting
    out = tmp_path / "run"
    settings = fk.Settings(**{**QUICK, "n_updates": 1000, "workers": 2})
    shown: list[Progress] = []
    monkeypatch.setattr(sharing, "progress_line", lambda *about: nullcontext(shown.append))
    stopped = fk.solve(name, settings=settings, out=out)
    assert not stopped.finished
    assert shown[0].phase == "training"
    assert 0 < stopped.n_updates < 1000
    assert stopped.n_workers == fk.load(out, trust=True).n_workers == 2
    act("kill")
    before, began = (out / "checkpoint.pt").read_bytes(), time.monotonic()
    with pytest.raises(
        ComputationError, match="worker 1 was killed by SIGKILL, and all workers were stopped; the last"
    ):
        fk.resume(out, trust=True, progress=False)
    assert time.monotonic() - began < 30 + STARTED
    assert (out / "checkpoint.pt").read_bytes() == before


STARTED = 30
"""Seconds that workers may need to start on a machine that is busy."""


@pytest.mark.slow
def test_a_worker_that_hangs_ends_the_run(acting, tmp_path):
    name, act = acting
    act("hang")
    began, settings = time.monotonic(), fk.Settings(**{**QUICK, "n_updates": 1000, "workers": 2})
    with pytest.raises(ComputationError, match="worker 1 did not answer"):
        fk.solve(name, settings=settings, progress=False)
    assert time.monotonic() - began < 30 + STARTED


SRUN = """#!/bin/sh
# What SLURM does, on this machine: the command once for each node, on the loopback interface.
command=$1; shift
for node in $(seq "$SLURM_JOB_NUM_NODES"); do "$command" --local-addr 127.0.0.1 "$@" & done
wait
"""


@pytest.mark.slow
def test_the_job_script_of_the_documentation_runs_on_two_nodes(tmp_path):
    """As it stands, with a small well in place of its command, and SLURM's programs replaced."""
    page = (Path(__file__).parents[2] / "docs" / "workers.md").read_text()
    (script,) = re.findall(r"```bash\n(#!/bin/bash\n.*?)```", page, flags=re.DOTALL)
    small = "-m fkdrift solve -p x**4 --n-walkers 64 --n-updates 3 --n-blocks 8 --no-project -q --out run"
    script, n = re.subn(r"-m fkdrift solve .*", small, script)
    assert n == 1
    for name, text in (("job", script), ("srun", SRUN), ("scontrol", "#!/bin/sh\necho 127.0.0.1\n")):
        (tmp_path / name).write_text(text)
        (tmp_path / name).chmod(0o755)
    path = f"{tmp_path}:{Path(sys.executable).parent}:{os.environ['PATH']}"
    slurm = {"SLURM_JOB_NODELIST": "a", "SLURM_JOB_NUM_NODES": "2", "SLURM_CPUS_PER_TASK": "1", "SLURM_JOB_ID": "7"}
    environment = {**os.environ, **slurm, "PATH": path, "GLOO_SOCKET_IFNAME": "lo"}
    done = subprocess.run(
        [tmp_path / "job"], cwd=tmp_path, env=environment, capture_output=True, text=True, timeout=120
    )
    assert re.fullmatch(r"0\.66\d+\(\d+\)\n", done.stdout), done.stderr
    assert fk.load(tmp_path / "run").n_workers == 2
