"""fkdrift and NetKet on the same three systems in turn: errors, and the time they take.

    python tests/benchmarks/peers.py                                            both in this Python (extra `benchmarks`)
    python tests/benchmarks/peers.py --netket-python ~/nk/bin/python --systems helium,bosons

Every competitor is a fresh process, timed from outside: start-up, imports and compilation are in its seconds.

fkdrift runs `GroundState(load_potential(...), Settings(seed=...))`, nothing but defaults.  NetKet runs variational
Monte Carlo with stochastic reconfiguration in continuous space.  Its log psi is the reference W that fkdrift starts
from (exact cusps, pair holes), the numbers in it trained as well, plus a symmetric network flat at coalescence.  It has
as many walkers and Langevin moves between updates, a decaying step, and settings tuned by hand for each system.

Columns
    energy            from samples taken at frozen parameters
    error, deviation  its error bar, from independent walkers, and its distance from the reference
    CPU, wall         seconds of the whole process, final sampling (fkdrift: also the trajectory cross-check) included
    t(1e-2), t(1e-3)  CPU / wall seconds from the start of the process to the first update from which the mean of the
                      last WINDOW batch energies stays within this distance of the reference to the end of training;
                      *: training never settled so close, but the final energy is, and this is the whole time
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


@dataclass(frozen=True)
class Peer:
    """A system, and how NetKet solves it: N_MOVES Langevin steps dt between updates, each rate / (1 + update / decay)
    long, with a diagonal shift of the metric that goes from shift[0] to shift[1]; then n_blocks local energies each.
    """

    name: str
    parameters: dict[str, float]
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


HELIUM = Peer("helium", {}, -2.9037243770341, 2, 3, 32, 0.11, 0.2, 30.0, (1e-3, 1e-3), 100, 500)
PARAMETERS = {"n_particles": 4, "g": 15.0, "s": 0.5}
BOSONS = Peer("gaussian_bosons", PARAMETERS, 7.627215, 4, 2, 16, 0.12, 0.07, 60.0, (1e-2, 1e-3), 140, 300)
QUARTIC = Peer("anharmonic", {"lam": 1.0}, 0.8037706512342, 1, 1, 32, 0.15, 0.1, 50.0, (1e-2, 1e-3), 100, 1000)
PEERS = {"helium": HELIUM, "bosons": BOSONS, "quartic": QUARTIC}
Trace = list[tuple[float, float, float]]


def run_fkdrift(peer: Peer, seed: int, quick: bool, started: float) -> dict[str, Any]:
    """What fkdrift does by default."""
    from fkdrift.hamiltonian.loading import load_potential
    from fkdrift.runs.ground_state import GroundState
    from fkdrift.runs.settings import Settings

    short: dict[str, Any] = {"n_updates": 30, "n_blocks": 10, "n_path_blocks": 1} if quick else {}
    run = GroundState(load_potential(peer.name, **peer.parameters), Settings(seed=seed, **short))
    trace: Trace = []
    for step in run.advance():
        if step.phase == "training":
            trace.append((time.time() - started, time.process_time(), step.energy.mean))
    energy = run.energies.variational
    size = sum(p.numel() for p in run.model.parameters())
    return {"energy": energy.mean, "error": energy.error, "n_parameters": size, "trace": trace}


def run_netket(peer: Peer, seed: int, quick: bool, started: float) -> dict[str, Any]:
    """Stochastic reconfiguration with a decaying step."""
    import netket as nk
    import numpy as np

    log_psi, potential = netket_system(peer)
    hilbert = nk.experimental.hilbert.Particle(peer.n, geometry=nk.experimental.geometry.FreeSpace(d=peer.d))
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

    driver.run(30 if quick else peer.n_updates, show_progress=False, callback=record)
    blocks = []
    for _ in range(10 if quick else peer.n_blocks):
        state.sample()
        blocks.append(np.asarray(state.local_estimators(H).data).real.reshape(-1))
    E = np.mean(blocks, axis=0)
    error = float(E.std(ddof=1) / len(E) ** 0.5)
    return {"energy": float(E.mean()), "error": error, "n_parameters": state.n_parameters, "trace": trace}


def netket_system(peer: Peer) -> tuple[Any, Callable[[Any], Any]]:
    """The flax module of log psi for a batch of flat positions, and V of a single one."""
    import flax.linen as nn
    import jax.numpy as jnp

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
            omega, depth, radius = self.number("omega", 0.741), self.number("depth", 2.04), self.number("radius", 0.745)
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
        g, s = peer.parameters["g"], peer.parameters["s"]
        i, j = jnp.triu_indices(peer.n, 1)
        overlap = jnp.exp(-jnp.sum((r[i] - r[j]) ** 2, -1) / s**2).sum()
        return 0.5 * (r**2).sum() + g / (jnp.pi * s**2) * overlap

    return LogPsi(), potential


def measure(code: str, system: str, python: str, seed: int, quick: bool) -> dict[str, Any]:
    """Run one competitor in a process of its own, and add the seconds it took and the times to the tolerances."""
    with tempfile.TemporaryDirectory() as folder:
        answer, started = Path(folder) / "answer.json", time.time()
        words = f"--worker {code} {started!r} --systems {system} --seed {seed}".split()
        words = [python, __file__, *words, "--out", str(answer)] + ["--quick"] * quick
        child = subprocess.Popen(words, stdout=subprocess.DEVNULL)
        _, status, usage = os.wait4(child.pid, 0)
        wall = time.time() - started
        child.returncode = os.waitstatus_to_exitcode(status)
        if child.returncode:
            raise SystemExit(f"{code} failed on {system}: see above")
        result = {"system": system, "code": code, **json.loads(answer.read_text())}
    result["whole"] = (wall, usage.ru_utime + usage.ru_stime)
    result["times"] = [time_to(x, result, PEERS[system].reference) for x in TOLERANCES]
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


def print_table(results: list[dict[str, Any]]) -> None:
    """The pairs as a markdown table, each followed by the ratios netket / fkdrift."""
    print("| system | code | parameters | energy | error | deviation | CPU s | wall s | t(1e-2) CPU / wall | t(1e-3) |")
    print("|" + "---|" * 10)
    for pair in zip(results[::2], results[1::2], strict=True):
        for row in pair:
            deviation = row["energy"] - PEERS[row["system"]].reference
            cells = [row["system"], row["code"], row["n_parameters"], f"{row['energy']:.6f}", f"{row['error']:.1e}"]
            cells += [f"{deviation:+.1e}", f"{row['whole'][1]:.0f}", f"{row['whole'][0]:.0f}"]
            cells += [f"{t[1]:.0f} / {t[0]:.0f}{t[2]}" if t else "-" for t in row["times"]]
            print("|", " | ".join(map(str, cells)), "|")
        times = zip(*([row["whole"], *row["times"]] for row in pair), strict=True)
        cpu_wall = [f"{b[1] / a[1]:.2f} / {b[0] / a[0]:.2f}" if a and b else "-" for a, b in times]
        cells = [pair[0]["system"], "netket / fkdrift", "", "", f"{pair[1]['error'] / pair[0]['error']:.2f}", ""]
        print("|", " | ".join([*cells, *cpu_wall[0].split(" / "), *cpu_wall[1:]]), "|")


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--netket-python", default=sys.executable, help="a Python that has netket (default: this one)")
    parser.add_argument("--systems", default=",".join(PEERS), help="default: %(default)s")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--quick", action="store_true", help="a few updates only, to see that everything runs")
    parser.add_argument("--out", type=Path, help="keep the answers, traces included, as JSON")
    parser.add_argument("--worker", nargs=2, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    systems, seed, quick = arguments.systems.split(","), arguments.seed, arguments.quick
    results: Any = []
    if arguments.worker:
        run = {"fkdrift": run_fkdrift, "netket": run_netket}[arguments.worker[0]]
        results = run(PEERS[systems[0]], seed, quick, float(arguments.worker[1]))
    else:
        for system in systems:
            results.append(measure("fkdrift", system, sys.executable, seed, quick))
            results.append(measure("netket", system, arguments.netket_python, seed, quick))
        print_table(results)
    if arguments.out:
        arguments.out.write_text(json.dumps(results))


if __name__ == "__main__":
    main()
