"""From data to a trained generative model in one call, and back from a folder: learn, load_model, resume_learning.

    data -> recipe -> model -> free energy F = E_q[log q - log p] -> Adam -> bounds on held-out data -> result

A training is a generator of updates like a run of the solver: it can be watched, stopped, saved and resumed, and a
resumed one ends, on the CPU, bit for bit where it would have ended without the interruption.  Its folder holds

    result.json     bounds on training and test data         config.toml     enough to do it again
    history.csv     F at every update                        checkpoint.pt   the model, weights_only
    figures/*.png

and checkpoint.pt alone is enough to have the model back.
"""

from __future__ import annotations

import math
import time
from collections.abc import Iterator
from functools import cached_property
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor, nn

from fkdrift.errors import BadConfig, BadParameter
from fkdrift.generative.data.datasets import Dataset, blank, dataset, load_data
from fkdrift.numerics.estimates import Estimate, from_walkers
from fkdrift.runs.ground_state import versions
from fkdrift.runs.learning_report import summary
from fkdrift.runs.recipes.recipe import LearningSettings, Recipe
from fkdrift.runs.report import progress_line
from fkdrift.runs.run import Progress
from fkdrift.runs.run_folder import make_folder, read_checkpoint, write_folder, write_history
from fkdrift.runs.settings import write_config
from fkdrift.runs.solver import CHECKPOINT_SECONDS, cpu_threads, interruptible, load
from fkdrift.training.adam import minibatch_adam
from fkdrift.training.loop import fit

if TYPE_CHECKING:
    from matplotlib.figure import Figure

RECIPES = {
    "vae": "autoencoders:VAE_RECIPE",
    "markov": "autoencoders:MARKOV_RECIPE",
    "diffusion": "diffusion:DIFFUSION_RECIPE",
    "flow": "flow:FLOW_RECIPE",
    "latent-sde": "latent_sde:LATENT_SDE_RECIPE",
}
"""Models by name, and where in `fkdrift.runs.recipes` their recipe is."""

COLUMNS = ("phase", "step", "free_energy", "error", "seconds")
KIND = "learned"
N_DRAWS = 10
"""Draws of the latents of each datum in the reported bounds."""

CHUNK = 500
N_RUN_SAMPLES = 5000


class Learning:
    """A model in training, or trained: model, data and everything needed to go on.

    Args:
        recipe: what is trained, see `Recipe`.
        settings: its settings; choices left open are made here.
        data: what to learn from.

    Attributes:
        model: the module.
        history: rows (update, F, error, seconds), one for each minibatch.

    Example:
        >>> learned = fk.generative.learn("vae", "digits", latents=8)
        >>> print(learned)
        >>> learned.model.decode(torch.zeros(1, 8)).mean
    """

    def __init__(self, recipe: Recipe, settings: LearningSettings, data: Dataset) -> None:
        self.recipe, self.settings = recipe, recipe.resolve(settings, data)
        self.data = data.to(settings.torch_dtype, torch.device("cpu"))
        self.model = recipe.build(self.settings, self.data).to(settings.torch_dtype)
        self.generator = torch.Generator().manual_seed(settings.seed)
        self.method = minibatch_adam(
            self.model,
            recipe.objective(self.model, self.settings, self.data),
            self.data.originals,
            n_updates=self.settings.n_updates,
            batch_size=self.settings.batch_size,
            learning_rate=self.settings.learning_rate,
            weight_decay=self.settings.weight_decay,
            seed=self.settings.seed,
        )
        self.n_updates = 0
        self.finished = False
        self.wall_seconds = self.cpu_seconds = 0.0
        self.history: list[list[float]] = []

    def advance(self) -> Iterator[Progress]:
        """Train to the end, yielding after every update; the state is whole and may be saved at each yield."""
        self.finished = False
        self.__dict__.pop("result", None)
        wall, cpu, start = time.perf_counter(), time.process_time(), self.wall_seconds
        limit = self.settings.max_seconds or math.inf
        n = self.settings.n_updates
        for step in fit(self.method, torch.empty(0), n_updates=n, generator=self.generator, first=self.n_updates):
            self.n_updates = step.index
            now, used = time.perf_counter(), time.process_time()
            self.wall_seconds, self.cpu_seconds = self.wall_seconds + now - wall, self.cpu_seconds + used - cpu
            wall, cpu = now, used
            self.history.append([step.index, step.energy.mean, step.energy.error, self.wall_seconds])
            yield Progress("training", step.index, n, step.energy, self.wall_seconds - start)
            if self.wall_seconds - start > limit:
                break
        self.finished = True

    def free_energy(self, x: Tensor, n_draws: int = N_DRAWS, seed: int = 0) -> Tensor:
        """-ELBO of each datum (batch, size), averaged over draws of the latents, (batch,), nats.

        Raises:
            BadParameter: data of another size than those that the model learned from.
        """
        if x.ndim != 2 or x.shape[1] != self.data.size:
            raise BadParameter(f"data of shape {tuple(x.shape)} do not fit: the model needs (batch, {self.data.size})")
        generator = torch.Generator().manual_seed(seed)
        evaluate = self.recipe.evaluate
        with torch.no_grad():
            draws = [
                torch.cat([evaluate(self.model, part, generator) for part in x.split(CHUNK)]) for _ in range(n_draws)
            ]
        return torch.stack(draws).double().mean(0)

    @cached_property
    def result(self) -> dict[str, Any]:
        """What result.json holds: bounds in nats for each datum, and in bits for each component of discrete data."""
        parts = {"train": self.data.train[: 4 * CHUNK], "test": self.data.test}
        bounds = {name: self._bound(from_walkers(self.free_energy(x))) for name, x in parts.items()}
        generator = torch.Generator().manual_seed(1)
        more = self.recipe.entries(self.model, self.settings, self.data, generator)
        return {**self._about, "free_energy": bounds, **more}

    @property
    def _about(self) -> dict[str, Any]:
        """What was done."""
        return {
            "model": self.recipe.name,
            "data": self.data.describe(),
            "seed": self.settings.seed,
            "status": "finished" if self.finished else "interrupted",
            "settings": self.settings.to_dict(),
            "versions": versions(),
            "wall_seconds": self.wall_seconds,
            "cpu_seconds": self.cpu_seconds,
            "n_parameters": sum(parameter.numel() for parameter in self.model.parameters()),
            "n_updates": self.n_updates,
        }

    def _bound(self, nats: Estimate) -> dict[str, Any]:
        """An estimate in plain values; null where an error is not known, as for a single datum."""
        values = {"mean": nats.mean, "error": nats.error}
        if self.data.n_levels is not None or getattr(self.settings, "levels", None):
            values["bits_per_component"] = nats.mean / (self.data.size * math.log(2))
        return {name: value if math.isfinite(value) else None for name, value in values.items()}

    def plot(self) -> dict[str, Figure]:
        """Figures by name: the loss, and those of the model."""
        from fkdrift.figures.latent import loss_figure, styled  # here: matplotlib takes a second to import

        generator = torch.Generator().manual_seed(2)
        with styled(), torch.no_grad():
            figures = {"loss": loss_figure(np.array(self.history).reshape(-1, 4), self.result["free_energy"])}
            return figures | self.recipe.figures(self.model, self.settings, self.data, generator)

    def save(self, folder: str | Path, figures: bool = True, bounds: bool = True) -> Path:
        """Write result.json, config.toml, history.csv, checkpoint.pt and figures/*.png; returns the folder.

        Args:
            folder: made if it is not there.
            figures, bounds: leave these out where only the state matters; they take seconds.
        """
        folder = Path(folder)
        tables = {"model": {"name": self.recipe.name}, "data": {"name": self.data.name}}
        others = {
            "config.toml": lambda path: write_config(path, self.settings, **tables),
            "history.csv": lambda path: write_history(path, COLUMNS, (["training", *row] for row in self.history)),
        }
        write_folder(folder, self.state_dict(), self.result if bounds else self._about, others)
        if figures and bounds:
            from fkdrift.figures.ground_state import save_figures

            save_figures(self.plot(), folder / "figures")
        return folder

    def state_dict(self) -> dict[str, Any]:
        """The whole state as tensors, numbers, text, lists and dicts."""
        return {
            "kind": KIND,
            "recipe": self.recipe.name,
            "settings": self.settings.to_dict(),
            "data": self.data.describe(),
            "model": self.model.state_dict(),
            "method": self.method.state_dict(),
            "generator": self.generator.get_state(),
            "history": torch.tensor(self.history, dtype=torch.float64).reshape(-1, 4),
            "n_updates": self.n_updates,
            "finished": self.finished,
            "seconds": [self.wall_seconds, self.cpu_seconds],
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Take over a saved state.

        Raises:
            BadConfig: it does not belong to this model and these settings.
        """
        try:
            self.model.load_state_dict(state["model"])
            self.method.load_state_dict(state["method"])
            self.generator.set_state(state["generator"])
            self.history = state["history"].tolist()
            self.n_updates, self.finished = state["n_updates"], state["finished"]
            self.wall_seconds, self.cpu_seconds = state["seconds"]
        except (KeyError, RuntimeError, TypeError, AttributeError, ValueError) as error:
            reason = (str(error) or type(error).__name__).splitlines()[0]
            raise BadConfig(f"the checkpoint does not fit this model and these settings: {reason}") from None

    def __str__(self) -> str:
        return summary(self.result)

    def __repr__(self) -> str:
        return f"Learning({self.recipe.name} of {self.data.name}: {self.n_updates} updates)"


def learn(
    model: str,
    data: str | Path | np.ndarray | Tensor | Dataset,
    *,
    settings: LearningSettings | None = None,
    out: str | Path | None = None,
    progress: bool | None = None,
    **changes: Any,
) -> Learning:
    """Train a generative model on data.

    Args:
        model: "vae", "markov", ... (`RECIPES`).
        data: "digits", "mnist5k", a FILE.npy, "run:DIR" for samples of a solved ground state, an array or a `Dataset`.
        settings: of the recipe; `changes` override single ones.
        out: folder to save to, also now and then while training.
        progress: show a live line; default: where someone is looking (a terminal or a notebook).
        changes: settings by name, such as latents=8, n_updates=1000, seed=1.

    Returns:
        Learning.  Ctrl-C or SIGTERM finishes the update and returns what there is, marked interrupted.

    Raises:
        InputError: the model, a setting or the data are not allowed.
        DivergedPath: the free energy is no longer finite.

    Example:
        >>> learned = learn("vae", "digits", latents=8, n_updates=500)
        >>> learned.result["free_energy"]["test"]["bits_per_component"]
    """
    recipe = find_recipe(model)
    learning = Learning(recipe, (settings or recipe.settings()).changed(**changes), find_data(data))
    return drive(learning, out=None if out is None else Path(out), progress=progress)


def drive(learning: Learning, *, out: Path | None = None, progress: bool | None = None) -> Learning:
    """Train to the end, or until interrupted, showing progress and saving to `out`."""
    if out is not None:
        make_folder(out)
    saved = time.monotonic()
    title = f"{learning.recipe.name} of {learning.data.name}"
    with cpu_threads(learning.settings.threads), interruptible() as interrupted:
        with progress_line(title, progress, "F") as show:
            for step in learning.advance():
                show(step)
                if interrupted():
                    break
                if out is not None and time.monotonic() - saved > CHECKPOINT_SECONDS:
                    learning.save(out, bounds=False)
                    saved = time.monotonic()
        if out is not None:
            learning.save(out)
    return learning


def load_model(source: str | Path) -> nn.Module:
    """A trained model, from its folder or from its checkpoint.pt alone.

    Raises:
        BadConfig: it is no saved model, or damaged.

    Example:
        >>> load_model("runs/digits").decode(torch.zeros(1, 8)).mean
    """
    state = _read(Path(source))
    recipe = find_recipe(state["recipe"])
    settings = recipe.settings.from_values(state["settings"])
    model = recipe.build(settings, blank(state["data"])).to(settings.torch_dtype)
    try:
        model.load_state_dict(state["model"])
    except RuntimeError as error:
        raise BadConfig(f"the numbers in {source} do not fit its settings: {str(error).splitlines()[0]}") from None
    return model


def load_learning(folder: str | Path, data: np.ndarray | Tensor | Dataset | None = None) -> Learning:
    """A saved training with its data.

    Args:
        folder: written by `Learning.save` or `fkdrift learn ... --out`.
        data: needed only if it was trained on an array, which has no name.

    Raises:
        BadConfig: it is no saved training, or the data are no longer the same.
    """
    return _restore(Path(folder), data, {})


def resume_learning(
    folder: str | Path,
    data: np.ndarray | Tensor | Dataset | None = None,
    *,
    progress: bool | None = None,
    **changes: Any,
) -> Learning:
    """Go on with a saved training, and save it to the same folder.

    Args:
        folder: written by `Learning.save` or `fkdrift learn ... --out`.
        data: needed only if it was trained on an array, which has no name.
        progress: as for `learn`.
        changes: settings to change first: n_updates, learning_rate, batch_size, max_seconds.

    Raises:
        BadConfig: it is no saved training, or the data are no longer the same.
    """
    return drive(_restore(Path(folder), data, changes), out=Path(folder), progress=progress)


def _restore(folder: Path, data: Any, changes: dict[str, Any]) -> Learning:
    """A training as it was saved, with some settings changed."""
    state = _read(folder)
    recipe = find_recipe(state["recipe"])
    found = find_data(state["data"]["name"] if data is None else data)
    if found.digest != state["data"]["digest"]:
        raise BadConfig(f"the data {found.name!r} are not those that {folder} was trained on: pass those as `data`")
    learning = Learning(recipe, recipe.settings.from_values({**state["settings"], **changes}), found)
    learning.load_state_dict(state)
    return learning


def _read(source: Path) -> dict[str, Any]:
    """The checkpoint of a generative model."""
    if not source.exists():
        raise BadConfig(f"there is no {source}")
    state = read_checkpoint(source)
    if state.get("kind") != KIND:
        raise BadConfig(f"{source} holds no generative model: if it is a run of `fkdrift solve`, load it with fk.load")
    return state


def find_recipe(name: str) -> Recipe:
    """The recipe of a model.

    Raises:
        BadParameter: nothing goes by this name.
    """
    if name not in RECIPES:
        raise BadParameter(f"there is no model called {name!r}: choose from {', '.join(RECIPES)}")
    module, attribute = RECIPES[name].split(":")
    return getattr(import_module(f"fkdrift.runs.recipes.{module}"), attribute)


def find_data(source: str | Path | np.ndarray | Tensor | Dataset) -> Dataset:
    """Data by name, from a file or an array, or from a solved ground state as run:DIR.

    Raises:
        InputError: they are not there, or cannot be learned from.
    """
    if isinstance(source, str) and source.startswith("run:"):
        state = load(source.removeprefix("run:"))
        return dataset(state.sample(N_RUN_SAMPLES).flatten(1).cpu(), name=source)
    return load_data(source)
