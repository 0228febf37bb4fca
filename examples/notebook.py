# %% [markdown]
# # A tour of fkdrift, cell by cell
# Open this file in an editor that knows `# %%` cells, or run it as a script.

# %% The whole thing in one call.
import torch

import fkdrift as fk

state = fk.solve("morse", seed=0)
print(state)

# %% In a notebook, the last value of a cell shows as a table.
state  # noqa: B018

# %% Energies are estimates: a mean with its standard error.
energy = state.energy
print(energy, "is", energy.mean, "+-", energy.error)
print("from E[l_T]/T:", state.energies.path_action)

# %% The exact levels, from scipy, share with it the definition of V only.
levels = fk.diagonalise(state.potential, levels=3)
print(levels)

# %% The wavefunction, the drift, and samples of the density.
x = torch.linspace(-0.5, 1.0, 4)
print("log psi   ", state.log_psi(x) - state.log_psi(x)[0])
print("exact     ", levels.log_psi(x) - levels.log_psi(x)[0])
print("drift     ", state.drift(x)[:, 0, 0])
print("<x>       ", state.sample(10_000).mean().item())

# %% Figures are matplotlib figures, which a notebook displays.
figures = state.plot()
figures["wavefunction"]

# %% The same in the open: what `fk.solve` does, with the loop in your hands.
system = fk.System(fk.load_potential("anharmonic", lam=1.0))
drift = fk.NeuralWavefunction(system, width=16)
process = fk.Process(drift, system)
generator = torch.Generator().manual_seed(0)
walkers = system.initial_walkers(512, generator)
method = fk.NaturalGradient(process, time_scale=system.time_scale)
for step in fk.fit(method, walkers, n_updates=60, generator=generator):
    if step.index % 20 == 0:
        print(f"update {step.index}: E = {step.energy}, standard deviation of E_L = {step.standard_deviation:.3f}")
