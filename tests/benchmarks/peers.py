"""fkdrift and NetKet on the same five systems in turn: the time to the same total error, |deviation| + error bar.

    python tests/benchmarks/peers.py                                       both in this Python (extra `benchmarks`)
    python tests/benchmarks/peers.py --netket-python ~/nk/bin/python --systems helium,bosons --cores 1

Every competitor is a fresh process on one core and then on all of them, timed from outside: start-up, imports and
compilation are in its seconds.

NetKet comes first.  It runs variational Monte Carlo with stochastic reconfiguration in continuous space, and samples
the energy at frozen parameters.  Its log psi is the reference W that fkdrift starts from (exact cusps, pair holes,
trap), the numbers in it trained as well, plus a symmetric network flat at coalescence; on the ring it is NetKet's own
DeepSetRelDistance with the sizes of its examples.  It has as many walkers and Langevin moves between updates, a
decaying step, and settings tuned by hand for each system.

fkdrift runs `GroundState(load_potential(...), Settings(seed=..., atol=...))`, nothing but defaults: training,
trajectories, local energies, projection and what it checks.  atol is AIM times the total error that NetKet came to.
On all cores NetKet has the threads of XLA, and fkdrift `workers="auto"`.

Columns
    energy            fkdrift: projected; NetKet: variational
    error, deviation  its error bar, from independent walkers, and its distance from the reference
    total             |deviation| + error
    CPU, wall         seconds of the whole process
    t(1e-2), t(1e-3)  CPU / wall seconds from the start of the process to the first update from which the mean of the
                      last WINDOW batch energies stays within this distance of the reference, relative to it, to the end
                      of training; *: training never settled so close, but the final energy is: this is the whole time
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

WINDOW, TOLERANCES = 10, (1e-2, 1e-3)
N_WALKERS, N_MOVES = 1024, 5
AIM = 0.5
"""The error bar that fkdrift is asked for, in units of NetKet's total error: two of them are one such."""
CORES = len(os.sched_getaffinity(0))


@dataclass(frozen=True)
class Peer:
    """A system, and how NetKet solves it: N_MOVES Langevin steps dt between updates, each rate / (1 + update / decay)
    long, with a diagonal shift of the metric that goes from shift[0] to shift[1]; then n_blocks local energies each.
    """

    name: str
    parameters: dict[str, Any]
    reference: float
    n: int
    d: int
    hidden: int
    dt: float
    rate: float
    decay: float
    shift: tuple[float, float]
    n_updates: int
    n_blocks: int


RING = 20.0
HELIUM = Peer("helium", {}, -2.9037243770341, 2, 3, 32, 0.11, 0.2, 30.0, (1e-3, 1e-3), 100, 500)
PARAMETERS = {"n_particles": 4, "g": 15.0, "s": 0.5}
BOSONS = Peer("gaussian_bosons", PARAMETERS, 7.627215, 4, 2, 16, 0.12, 0.07, 60.0, (1e-2, 1e-3), 140, 300)
QUARTIC = Peer("anharmonic", {"lam": 1.0}, 0.8037706512342, 1, 1, 32, 0.15, 0.1, 50.0, (1e-2, 1e-3), 100, 1000)
SPRINGS = {"n_particles": 16, "n_dims": 2, "k": 0.05}
TRAP = Peer("harmonic_bosons", SPRINGS, 1 + 15 * 1.8**0.5, 16, 2, 16, 0.06, 0.1, 60.0, (1e-2, 1e-3), 100, 100)
BOX = {"n_particles": 20, "n_dims": 1, "period": RING, "identical": True}
ON_A_RING = Peer("ring", BOX, 24.742, 20, 1, 16, 0.08, 0.1, 60.0, (1e-2, 1e-3), 150, 100)
PEERS = {"helium": HELIUM, "bosons": BOSONS, "quartic": QUARTIC, "trap": TRAP, "ring": ON_A_RING}
Trace = list[tuple[float, float, float]]


def ring(r: Any) -> Any:
    """V = 2 sum_{i<j} exp(-d^2) with d the distance to the nearest image, at r (batch, particle, 1)."""
    import torch

    i, j = torch.triu_indices(r.shape[1], r.shape[1], 1)
    x = r[:, i] - r[:, j]
    return 2 * torch.exp(-(x - RING * torch.round(x / RING)).square()).sum((1, 2))


def run_fkdrift(peer: Peer, seed: int, cores: int, atol: float, started: float) -> dict[str, Any]:
    """What fkdrift does by default."""
    from fkdrift.hamiltonian.loading import load_potential
    from fkdrift.numerics.allocator import keep_freed_memory
    from fkdrift.runs.driver import drive
    from fkdrift.runs.ground_state import GroundState
    from fkdrift.runs.settings import Settings

    keep_freed_memory()  # as `fkdrift solve` does
    potential = load_potential(f"{__file__}:ring" if peer.name == "ring" else peer.name, **peer.parameters)
    run = GroundState(potential, Settings(seed=seed, atol=atol, workers=1 if cores == 1 else "auto"))
    trace: Trace = []
    if cores == 1:
        for step in run.advance():
            if step.phase == "training":
                trace.append((time.time() - started, time.process_time(), step.energy.mean))
    else:
        run = drive(run, progress=False)
    size = sum(p.numel() for p in run.model.parameters())
    return {"energy": run.energy.mean, "error": run.energy.error, "n_parameters": size, "trace": trace}


def run_netket(peer: Peer, seed: int, cores: int, atol: float, started: float) -> dict[str, Any]:
    """Stochastic reconfiguration with a decaying step."""
    import netket as nk
    import numpy as np

    log_psi, potential, hilbert = netket_system(peer)
    H = nk.operator.KineticEnergy(hilbert, mass=1.0) + nk.operator.PotentialEnergy(hilbert, potential)
    chains = {"n_chains": N_WALKERS, "sweep_size": N_MOVES, "reset_chains": False}
    sampler = nk.sampler.MetropolisAdjustedLangevin(hilbert, dt=peer.dt, **chains)
    seeds = {"seed": seed, "sampler_seed": seed + 1}
    state = nk.vqs.MCState(sampler, log_psi, n_samples=N_WALKERS, n_discard_per_chain=0, **seeds)
    state.sample(n_discard_per_chain=20)
    first, last = peer.shift
    step = nk.optimizer.Sgd(lambda k: peer.rate / (1 + k / peer.decay))
    metric: dict[str, Any] = {"diag_shift": lambda k: first * (last / first) ** (k / peer.n_updates), "mode": "real"}
    metric |= {"use_ntk": state.n_parameters > N_WALKERS, "on_the_fly": False}
    driver = nk.driver.VMC_SR(H, step, variational_state=state, **metric)
    trace: Trace = []

    def record(step: int, log: dict[str, Any], driver: Any) -> bool:
        trace.append((time.time() - started, time.process_time(), float(log["Energy"].mean.real)))
        return True

    driver.run(peer.n_updates, show_progress=False, callback=record)
    blocks = []
    for _ in range(peer.n_blocks):
        state.sample()
        blocks.append(np.asarray(state.local_estimators(H).data).real.reshape(-1))
    E = np.mean(blocks, axis=0)
    error = float(E.std(ddof=1) / len(E) ** 0.5)
    return {"energy": float(E.mean()), "error": error, "n_parameters": state.n_parameters, "trace": trace}


def netket_system(peer: Peer) -> tuple[Any, Callable[[Any], Any], Any]:
    """The flax module of log psi for a batch of flat positions, V of a single one, and the space of both."""
    import flax.linen as nn
    import jax.numpy as jnp
    import netket as nk

    space = nk.experimental.geometry
    if peer.name == "ring":
        hilbert = nk.experimental.hilbert.Particle(peer.n, geometry=space.Cell(d=1, L=RING, pbc=True))
        sizes: dict[str, Any] = {"features_phi": (peer.hidden,) * 2, "features_rho": (peer.hidden, peer.hidden, 1)}
        model = nk.models.DeepSetRelDistance(hilbert=hilbert, layers_phi=2, layers_rho=3, cusp_exponent=None, **sizes)

        class OfBatches(nn.Module):
            """The model, for single positions too, which Langevin moves ask for."""

            @nn.compact
            def __call__(self, x: Any) -> Any:
                return model.copy(name="model")(jnp.atleast_2d(x)).reshape(x.shape[:-1])

        def on_a_ring(x: Any) -> Any:
            i, j = jnp.triu_indices(peer.n, 1)
            d = x[i] - x[j]
            return 2 * jnp.exp(-((d - RING * jnp.round(d / RING)) ** 2)).sum()

        return OfBatches(), on_a_ring, hilbert

    def lengths(r: Any) -> Any:
        return jnp.sqrt(jnp.sum(r**2, -1))

    class LogPsi(nn.Module):
        """W, whose numbers are trained, plus a network."""

        def number(self, name: str, start: float) -> Any:
            return jnp.exp(self.param(name, nn.initializers.zeros, (), float)) * start

        def network(self, x: Any, out: int, name: str) -> Any:
            for layer in range(2):
                x = nn.tanh(nn.Dense(peer.hidden, param_dtype=float, name=f"{name}{layer}")(x))
            last = nn.initializers.zeros if out == 1 else nn.initializers.lecun_normal()
            return nn.Dense(out, param_dtype=float, kernel_init=last, name=f"{name}_out")(x)

        @nn.compact
        def __call__(self, flat_r: Any) -> Any:
            r = flat_r.reshape(*flat_r.shape[:-1], peer.n, peer.d)
            if peer.name == "helium":
                r1, r2, r12 = lengths(r[..., 0, :]), lengths(r[..., 1, :]), lengths(r[..., 0, :] - r[..., 1, :])
                c, k, b = self.number("c", 2.975), self.number("k", 0.72), self.number("b", 0.516)
                W = -2 * (r1 + r2) + k * (jnp.hypot(r1, c) + jnp.hypot(r2, c)) + 0.5 * r12 / (1 + b * r12)
                f1, f2, f12 = (d**2 / (1 + d) for d in (r1, r2, r12))
                features = jnp.stack([f1 + f2, f1 * f2 / (1 + f1 + f2), (f1 - f2) ** 2 / (1 + f1 + f2), f12], -1)
                return W + self.network(features, 1, "f")[..., 0]
            if peer.name == "anharmonic":
                x2 = r[..., 0, 0] ** 2
                features = jnp.stack([x2 / (1 + x2), jnp.sqrt(1 + x2) - 1], -1)
                return -0.5 * self.number("omega", 2.0) * x2 + self.network(features, 1, "f")[..., 0]
            i, j = (~jnp.eye(peer.n, dtype=bool)).nonzero(size=peer.n * (peer.n - 1))
            d2, q = jnp.sum((r[..., i, :] - r[..., j, :]) ** 2, -1), jnp.sum(r**2, -1)
            if peer.name == "harmonic_bosons":
                W = -0.5 * self.number("omega", (1 + (peer.n - 1) * peer.parameters["k"]) ** 0.5) * q.sum(-1)
            else:
                omega, depth = self.number("omega", 0.741), self.number("depth", 2.04)
                radius = self.number("radius", 0.745)
                W = -0.5 * omega * q.sum(-1) - 0.5 * (depth / (1 + d2 / radius**2)).sum(-1)
            one, pair = jnp.sqrt(1 + q) - 1, jnp.sqrt(1 + d2 / 0.25) - 1
            messages = self.network(jnp.stack([one[..., i], one[..., j], pair], -1), peer.hidden, "pair")
            gathered = messages.reshape(*messages.shape[:-2], peer.n, peer.n - 1, peer.hidden).mean(-2)
            return W + self.network(jnp.concatenate([gathered, one[..., None]], -1), 1, "one")[..., 0].sum(-1)

    def potential(flat_r: Any) -> Any:
        r = flat_r.reshape(peer.n, peer.d)
        if peer.name == "helium":
            r1, r2 = lengths(r)
            return -2 / r1 - 2 / r2 + 1 / lengths(r[0] - r[1])
        if peer.name == "anharmonic":
            return 0.5 * r[0, 0] ** 2 + peer.parameters["lam"] * r[0, 0] ** 4
        i, j = jnp.triu_indices(peer.n, 1)
        d2 = jnp.sum((r[i] - r[j]) ** 2, -1)
        if peer.name == "harmonic_bosons":
            return 0.5 * (r**2).sum() + 0.5 * peer.parameters["k"] * d2.sum()
        g, s = peer.parameters["g"], peer.parameters["s"]
        return 0.5 * (r**2).sum() + g / (jnp.pi * s**2) * jnp.exp(-d2 / s**2).sum()

    return LogPsi(), potential, nk.experimental.hilbert.Particle(peer.n, geometry=space.FreeSpace(d=peer.d))


def measure(code: str, system: str, python: str, seed: int, cores: int, atol: float = 0.0) -> dict[str, Any]:
    """Run one competitor in a process of its own, and add the seconds it took and the times to the tolerances."""
    with tempfile.TemporaryDirectory() as folder:
        answer, started = Path(folder) / "answer.json", time.time()
        words = f"--worker {code} {started!r} {atol!r} --systems {system} --seed {seed} --cores {cores}".split()
        words = [python, __file__, *words, "--out", str(answer)]
        chosen = sorted(os.sched_getaffinity(0))[:cores]
        threads = {name: str(cores) for name in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS")}
        child = subprocess.Popen(
            ["taskset", "-c", ",".join(map(str, chosen)), *words],
            stdout=subprocess.DEVNULL,
            env={**os.environ, **threads},
        )
        _, status, usage = os.wait4(child.pid, 0)
        wall = time.time() - started
        child.returncode = os.waitstatus_to_exitcode(status)
        if child.returncode:
            raise SystemExit(f"{code} failed on {system}: see above")
        result = {"system": system, "code": code, "cores": cores, **json.loads(answer.read_text())}
    reference = PEERS[system].reference
    result["whole"] = (wall, usage.ru_utime + usage.ru_stime)
    result["total"] = abs(result["energy"] - reference) + result["error"]
    result["times"] = [time_to(x * abs(reference), result, reference) for x in TOLERANCES]
    return result


def time_to(tolerance: float, result: dict[str, Any], reference: float) -> tuple[float, float, str] | None:
    """(wall, CPU, mark) seconds until the energy has settled within a tolerance, defined at the top."""
    settled = (*result["whole"], "*") if abs(result["energy"] - reference) <= tolerance else None
    trace: Trace = result["trace"]
    for k in range(len(trace) - 1, WINDOW - 2, -1):
        mean = sum(energy for _, _, energy in trace[k - WINDOW + 1 : k + 1]) / WINDOW
        if not abs(mean - reference) <= tolerance:
            break
        settled = (trace[k][0], trace[k][1], "")
    return settled


HEAD = "system | cores | code | parameters | energy | error | deviation | total | CPU s | wall s | t(1e-2) CPU / wall"


def print_rows(netket: dict[str, Any], fkdrift: dict[str, Any]) -> None:
    """A pair as rows of a markdown table, followed by the ratios netket / fkdrift."""
    for row in (netket, fkdrift):
        deviation = row["energy"] - PEERS[row["system"]].reference
        cells = [row["system"], row["cores"], row["code"], row["n_parameters"], f"{row['energy']:.6f}"]
        cells += [f"{row['error']:.1e}", f"{deviation:+.1e}", f"{row['total']:.1e}"]
        cells += [f"{row['whole'][1]:.0f}", f"{row['whole'][0]:.0f}"]
        cells += [f"{t[1]:.0f} / {t[0]:.0f}{t[2]}" if t else "-" for t in row["times"]]
        print("|", " | ".join(map(str, cells)), "|")
    times = zip(*([row["whole"], *row["times"]] for row in (fkdrift, netket)), strict=True)
    ratios = [f"{b[1] / a[1]:.2f} / {b[0] / a[0]:.2f}" if a and b else "-" for a, b in times]
    total = f"{netket['total'] / fkdrift['total']:.2f}"
    cells = [netket["system"], netket["cores"], "netket / fkdrift", "", "", "", "", total]
    print("|", " | ".join(map(str, [*cells, *ratios[0].split(" / "), *ratios[1:]])), "|", flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--netket-python", default=sys.executable, help="a Python that has netket (default: this one)")
    parser.add_argument("--systems", default=",".join(PEERS), help="default: %(default)s")
    parser.add_argument("--cores", default=",".join(map(str, sorted({1, CORES}))), help="default: %(default)s")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--out", type=Path, help="keep the answers, traces included, as JSON")
    parser.add_argument("--worker", nargs=3, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    systems, seed = arguments.systems.split(","), arguments.seed
    results: Any = []
    if arguments.worker:
        code, started, atol = arguments.worker
        run = {"fkdrift": run_fkdrift, "netket": run_netket}[code]
        results = run(PEERS[systems[0]], seed, int(arguments.cores), float(atol), float(started))
    else:
        print(f"| {HEAD} | t(1e-3) |\n{'|---' * 12}|")
        for system in systems:
            for cores in map(int, arguments.cores.split(",")):
                netket = measure("netket", system, arguments.netket_python, seed, cores)
                fkdrift = measure("fkdrift", system, sys.executable, seed, cores, AIM * netket["total"])
                results += [netket, fkdrift]
                print_rows(netket, fkdrift)
    if arguments.out:
        arguments.out.write_text(json.dumps(results))


if __name__ == "__main__":
    main()
