"""From data to a trained generative model in one call, and the model alone back from a file: learn, load_model.

    data -> recipe -> model -> free energy F = E_q[log q - log p] -> Adam -> bounds on held-out data -> result

checkpoint.pt alone is enough to have the model back.
"""

from __future__ import annotations

import copy
import math
from collections.abc import Callable, Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self, cast

import numpy as np
import torch
from torch import Tensor, nn

from fkdrift.errors import BadConfig, BadParameter, FkdriftError
from fkdrift.generative.chain import Chain, log_ratio
from fkdrift.generative.conditional import Conditional
from fkdrift.generative.data.datasets import (
    Dataset,
    Labels,
    blank,
    classes_like,
    dataset,
    file_and_name,
    load_data,
    rows_like,
)
from fkdrift.generative.refinement import AT_ONCE, Refined, refined
from fkdrift.numerics.estimates import Estimate, from_walkers
from fkdrift.numerics.named_arrays import Named
from fkdrift.runs.belonging import State, check_state
from fkdrift.runs.driver import drive, load, made
from fkdrift.runs.ground_state import GroundState
from fkdrift.runs.phases import Once, ValidatedTraining
from fkdrift.runs.recipes import MODELS
from fkdrift.runs.recipes.recipe import LearningSettings, Recipe
from fkdrift.runs.report import Block, Row, effort, number
from fkdrift.runs.run import Progress, Run
from fkdrift.runs.run_folder import read_checkpoint
from fkdrift.runs.settings import table
from fkdrift.runs.starting import require_first_step
from fkdrift.training.adam import Adam, FreeEnergy, scheduled_adam

if TYPE_CHECKING:
    from matplotlib.figure import Figure

N_DRAWS = 10
"""Draws of the latents of each datum in the reported bounds."""
CHUNK = 500
"""Data at a time: more would not fit a processor's cache."""
N_BOUND = 2000
"""Training data that the bound is reported for, at most."""
N_VALIDATION, VALIDATION_SEED = 1000, 3
"""Of the data held back, those that are looked at, and the noise of all the looks."""
ENOUGH_PATHS = 50
"""Effective paths of a band whose 5 % are to be seen."""
N_RUN_SAMPLES = 5000
"""Positions drawn from a ground state to learn from."""

OneOrMany = np.ndarray | Tensor | int | None
"""Classes of data, or one class of all of them."""


class Learning(Run):
    """A model in training, or trained: model, data and everything needed to go on.

    Args:
        recipe: what is trained, see `Recipe`.
        settings: its settings; choices left open are made here.
        data: what to learn from, or a description of it (`blank`), for a model that is trained already.

    Attributes:
        model: the module.

    Raises:
        BadConfig: settings, labels or missing values that the model does not go with.

    Example (images of 8 equal pixels):
        >>> data = np.random.default_rng(0).integers(0, 2, (200, 1)).repeat(8, 1)
        >>> learned = learn("vae", data, latents=1, width=16, learning_rate=0.02, n_updates=100)
        >>> print(learned)
        vae of array
        ...
          latents              1 active; KL 0.9...
          mutual information   0.6... nats (the estimate ends at 3.69)
        ...
        >>> learned.model.decode(torch.zeros(1, 1)).mean.shape
        torch.Size([1, 8])
    """

    kind, quantity, symbol = "learned model", "free_energy", "F"
    shareable = True

    def __init__(self, recipe: Recipe, settings: LearningSettings, data: Dataset) -> None:
        self.absent = data.description is not None
        if data.n_classes and not recipe.conditional:
            raise BadConfig(f"{recipe.name} takes no labels: leave them out, or learn a vae, markov or diffusion model")
        if not recipe.missing and bool(data.train.isnan().any()):
            raise BadConfig(f"{recipe.name} takes no missing values: remove the data with NaN, or learn latent-sde")
        if not self.absent:
            settings = recipe.resolve(settings, data)
        self.recipe, self.device = recipe, settings.torch_device
        self.data = data.to(settings.torch_dtype, self.device)
        self.fitted, self._held_back, self._held_classes = self.data, self.data.train[:0], self.data.labels("train")[:0]
        if not self.absent and settings.validation:
            self.fitted, self._held_back, self._held_classes = self.data.held_back(settings.validation)
        if not self.absent:
            self._require_room(settings)
        model = self._built(settings)
        self.training = ValidatedTraining(
            self._method(model, settings, settings.batch_size),
            model,
            n_updates=settings.n_updates,
            validate=self._validate if settings.validation else None,
            patience=settings.patience,
            average=settings.average,
            workers=self.workers,
        )
        self.n_walkers = min(settings.batch_size, len(self.fitted.originals))
        self.evaluation = Once("evaluation", self._bounds, of=lambda: self.n_updates)
        super().__init__(settings, model, self._generator(settings.seed), [self.training, self.evaluation])
        self.history["validation"] = self.training.curve

    def _generator(self, seed: int) -> torch.Generator:
        return torch.Generator(self.device).manual_seed(seed)

    def _built(self, settings: LearningSettings) -> nn.Module:
        """The model, with weights that do not depend on the device."""
        model = self.recipe.build(settings, self.fitted.to(settings.torch_dtype, torch.device("cpu")))
        return model.to(self.device, settings.torch_dtype)

    def _validate(self) -> Estimate:
        """The free energy of the data held back, at the same noise every time."""
        some, classes = (_some(rows, N_VALIDATION) for rows in (self._held_back, self._held_classes))
        return from_walkers(self.free_energy(some, classes, n_draws=1, seed=VALIDATION_SEED))

    def _method(self, model: nn.Module, settings: LearningSettings, batch_size: int) -> Adam:
        rows = self.fitted.originals
        if self.data.n_classes:  # a column of classes goes with every row
            rows = torch.cat([rows, self.fitted.labels("train")[:, None].to(rows)], 1)
        return scheduled_adam(
            model,
            lambda progress: self._objective(model, settings.at(progress)),
            rows,
            n_updates=settings.n_updates,
            batch_size=batch_size,
            learning_rate=settings.learning_rate,
            weight_decay=settings.weight_decay,
            seed=settings.seed,
            workers=self.workers,
        )

    def _objective(self, model: nn.Module, settings: LearningSettings) -> FreeEnergy:
        """What an update minimises: a function of rows whose last column is their class, where there are classes."""
        if not self.data.n_classes:
            return self.recipe.objective(model, settings, self.fitted)

        def free_energy(rows: Tensor, generator: torch.Generator) -> Tensor:
            told = _told(model, rows[:, -1].long())
            return self.recipe.objective(told, settings, self.fitted)(rows[:, :-1], generator)

        return free_energy

    def _require_room(self, settings: LearningSettings) -> None:
        """Refuse so large a batch where the first update would not fit."""

        def update(n: int) -> None:
            self._method(self._built(settings), settings, n).update(torch.empty(0), 0, self._generator(0))

        n = min(settings.batch_size, len(self.fitted.originals))
        numbers = max(self.data.size, getattr(settings, "width", 1))
        remedy = f"give a smaller batch_size than {settings.batch_size}, or a smaller model"
        require_first_step(update, n, numbers, settings, self.device, remedy)

    def free_energy(
        self, x: Tensor, classes: Tensor | None = None, n_draws: int = N_DRAWS, seed: int = 0, refine: int = 0
    ) -> Tensor:
        """-ELBO of each datum (batch, size), averaged over draws of the latents, (batch,), nats.

        Args:
            x: data.
            classes: of them, (batch,), where the model is told classes.
            n_draws: of the latents.
            seed: of the draws.
            refine: steps by which q(z_1 | x) is refined, see `fkdrift.generative.refinement`.

        Raises:
            BadParameter: data of another size than those that the model learned from, or nothing to refine.
        """
        if x.ndim != 2 or x.shape[1] != self.data.size:
            raise BadParameter(f"data of shape {tuple(x.shape)} do not fit: the model needs (batch, {self.data.size})")
        generator = self._generator(seed)
        n_draws = 1 if self.recipe.exact(self.model) else n_draws
        if classes is None:
            classes = classes_like(self.data, None, len(x))
        size = AT_ONCE if refine else CHUNK
        pieces = list(zip(x.split(size), classes.split(size), strict=True))
        with torch.no_grad():
            parts = [self._bound_of(_told(self.model, c), part, refine) for part, c in pieces]
            draws = [torch.cat([part(generator) for part in parts]) for _ in range(n_draws)]
        return torch.stack(draws).double().mean(0)

    def _bound_of(self, model: nn.Module, x: Tensor, refine: int) -> Callable[[torch.Generator], Tensor]:
        """F of data at a draw of the latents; a refined posterior is found once."""
        if not refine:
            return lambda generator: self.recipe.evaluate(model, x, generator)
        chain = cast(Chain, model)
        q = refined(chain, refine).posterior(1, x)
        return lambda generator: log_ratio(Refined(chain, lambda _: q), x, generator)

    def bound(
        self,
        x: np.ndarray | Tensor,
        labels: OneOrMany = None,
        n_draws: int = N_DRAWS,
        seed: int = 0,
        refine: int = 0,
    ) -> Tensor:
        """The ELBO, a lower bound on log p(x) or log p(x | c), of data (batch, ...): (batch,), nats; the mean of draws.

        Args:
            x: data.
            labels: their classes (batch,), or one for all of them, where the model is told classes.
            n_draws: of the latents.
            seed: of the draws.
            refine: steps by which q(z_1 | x) of a VAE or a Markov autoencoder is refined for each datum.

        Raises:
            BadParameter: data of another size or other levels, or that are not finite, or labels that do not match, or
                nothing to refine.
        """
        rows, classes = self._taken(x, labels)
        return -self.free_energy(rows, classes, n_draws, seed, refine).cpu()

    def _taken(self, x: np.ndarray | Tensor, labels: OneOrMany) -> tuple[Tensor, Tensor]:
        """Data as rows, and their classes, both checked."""
        rows = rows_like(self.data, x, self.recipe.missing)
        return rows, classes_like(self.data, labels, len(rows))

    def log_prob(self, x: np.ndarray | Tensor) -> Tensor:
        """log p(x) of data (batch, ...), for a model that has it: (batch,), nats.

        Raises:
            BadConfig: the model has a bound only.
            BadParameter: as for `bound`.
        """
        if not self.recipe.exact(self.model):
            raise BadConfig(f"{self.title} has a bound on log p(x), and not log p(x) itself: use bound")
        return self.bound(x)

    @torch.no_grad()
    def encode(self, x: np.ndarray | Tensor, labels: OneOrMany = None) -> Tensor:
        """A code of data (batch, ...), without noise, (batch, n): the mean of q(z_1 | x), or the noise of a flow.

        Classes are asked for as in `bound`, though a chain of latents does not look at them.

        Raises:
            BadConfig: the model has no codes.
            BadParameter: as for `bound`.
        """
        if self.recipe.encode is None:
            raise BadConfig(f"{self.title} has no codes: a vae, markov, diffusion or flow has")
        rows, classes = self._taken(x, labels)
        return self.recipe.encode(_told(self.model, classes), rows).cpu()

    @torch.no_grad()
    def decode(self, z: np.ndarray | Tensor, labels: OneOrMany = None) -> Tensor:
        """The data that are expected of codes (batch, n), and of classes as in `bound`: (batch, ...).

        Raises:
            BadConfig: the model has no codes.
            BadParameter: codes of another size, or that are not finite.
        """
        if self.recipe.decode is None:
            raise BadConfig(f"{self.title} has no codes: a vae, markov, diffusion or flow has")
        codes = torch.as_tensor(z).to(self.data.train)
        n = self.encode(self.data.test[:1], 0 if self.data.n_classes else None).shape[1]
        if codes.ndim != 2 or codes.shape[1] != n or not bool(codes.isfinite().all()):
            raise BadParameter(f"codes of shape {tuple(codes.shape)} do not fit: give finite numbers (batch, {n})")
        told = _told(self.model, classes_like(self.data, labels, len(codes)))
        return self.recipe.decode(told, codes).cpu().reshape(len(codes), *self.data.shape)

    def score(
        self, x: np.ndarray | Tensor, labels: OneOrMany = None, seed: int = 0, refine: int = 0
    ) -> tuple[dict[str, Any], Tensor]:
        """How likely data (batch, ...) are, as plain values: log p(x), or the bound on it, on average; and of each."""
        found = self.bound(x, labels, seed=seed, refine=refine)
        what = "log_prob" if self.recipe.exact(self.model) else "bound"
        averaged = from_walkers(found)
        return {"quantity": what, "n_data": len(found), **averaged.plain(), **self._bits(-averaged.mean)}, found

    def sample(self, n: int, seed: int = 0, label: OneOrMany = None, sampler: str | None = None) -> Tensor:
        """n data that the model makes, (n, *shape of a datum), of a class or classes (n,) where it is told them.

        Without a label classes are drawn as frequent as they are in the data.  The sampler of a diffusion model is
        "multistep", 20 evaluations of the network along the probability flow, or "chain", one for each step.

        Raises:
            BadConfig: there is no such sampler.
        """
        return self._sampled(n, seed, label, sampler)[0]

    @torch.no_grad()
    def _sampled(self, n: int, seed: int, label: OneOrMany, sampler: str | None) -> tuple[Tensor, Tensor]:
        """n data of the model, and their classes."""
        draw = self.recipe.sample if sampler is None else self.recipe.samplers.get(sampler)
        if draw is None:
            known = " or ".join(self.recipe.samplers)
            remedy = f"give {known}" if known else "leave it out"
            raise BadConfig(f"{self.title} has no sampler {sampler!r}: {remedy}")
        generator, shares = self._generator(seed), getattr(self.model, "class_shares", None)
        if shares is not None and label is None:
            label = torch.multinomial(shares, n, replacement=True, generator=generator)
        classes = classes_like(self.data, label, n)
        made = draw(_told(self.model, classes), n, generator)
        return made.cpu().reshape(n, *self.data.shape), classes.cpu()

    def named_samples(self, n: int, seed: int = 0, label: OneOrMany = None, sampler: str | None = None) -> Named:
        """`sample` for a file: data, (sample, ...), and labels (sample,) where there are classes."""
        x, classes = self._sampled(n, seed, label, sampler)
        found = {"data": (("sample", "row", "column", "channel")[: x.ndim], x)}
        return {**found, "labels": (("sample",), classes)} if self.data.n_classes else found

    def _bounds(self) -> dict[str, Any]:
        """Bounds in nats for each datum, and in bits for each component of discrete data; what the recipe adds."""
        parts = {name: (getattr(self.fitted, name), self.fitted.labels(name)) for name in ("train", "test")}
        parts["train"] = _some(parts["train"][0], N_BOUND), _some(parts["train"][1], N_BOUND)
        bounds = {name: self._bound(from_walkers(self.free_energy(x, c))) for name, (x, c) in parts.items()}
        more = self.recipe.entries(self.model, self.settings, self.fitted, self._generator(1))
        return {"free_energy": bounds, **more}

    def _bound(self, nats: Estimate) -> dict[str, Any]:
        """An estimate in plain values; null where an error is not known, as for a single datum."""
        return {**nats.plain(), **self._bits(nats.mean)}

    def _bits(self, nats: float) -> dict[str, Any]:
        """Bits per component, of discrete data."""
        if self.data.n_levels is None and not getattr(self.settings, "levels", None):
            return {}
        bits = nats / (self.data.size * math.log(2))
        return {"bits_per_component": bits if math.isfinite(bits) else None}

    def advance(self) -> Iterator[Progress]:
        if self.absent and any(phase.step < phase.planned for phase in self.phases):
            raise BadConfig(
                f"the data {self.data.name!r} are not where they were, or not those that it was trained on, and there "
                "is training to do: bring them back, or resume it in Python with the data, fk.resume(DIR, data)"
            )
        return super().advance()

    # What it brings to a run

    @property
    def title(self) -> str:
        return f"{self.recipe.name} of {self.data.name}"

    @property
    def subject(self) -> dict[str, Any]:
        return {"model": self.recipe.name, "data": self.data.describe()}

    @classmethod
    def rebuild(cls, config: Mapping[str, Any], source: Any, changes: Mapping[str, Any]) -> Self:
        recipe, described = MODELS.find(config.get("model")), table(config, "data")
        if not {"name", "digest"} <= set(described):
            raise BadConfig("its config.toml does not say which data it was trained on: [data] needs name and digest")
        labels = (described.get("labels") or "labels") if described.get("n_classes") else None
        try:
            found = find_data(_where(described) if source is None else source, labels, missing=recipe.missing)
            if found.digest != described["digest"]:
                raise BadConfig(f"the data {found.name!r} are not those that it was trained on: pass those as well")
            kept = {"name": described["name"], "place": described.get("place", "")}
            found = replace(found, **kept, labelled=described.get("labels", ""))
        except FkdriftError:
            if source is not None:
                raise
            found = blank(described)
        return cls(recipe, recipe.settings_class.from_values({**table(config, "settings"), **changes}), found)

    def _take(self, state: State) -> None:
        super()._take(state)
        self.history["validation"] = self.training.curve

    def entries(self, found: dict[str, Any]) -> dict[str, Any]:
        last = self.phases[0].energy
        if "free_energy" in found or last is None:
            return self.subject
        return {**self.subject, "free_energy": {"batch": self._bound(last)}}

    def plot(self) -> dict[str, Figure]:
        """Figures by name: the loss, and those of the model where its data are at hand."""
        from fkdrift.figures.latent import loss_figure, styled  # here: matplotlib takes a second to import

        cpu, generator = torch.device("cpu"), torch.Generator().manual_seed(2)
        model = copy.deepcopy(self.model).to(cpu)
        with styled(), torch.no_grad():
            history, curve = (np.array(self.history[name]).reshape(-1, 4) for name in ("training", "validation"))
            figures = {"loss": loss_figure(history, self.evaluation.results().get("free_energy", {}), curve)}
            return (
                figures
                if self.absent
                else figures
                | self.recipe.figures(model, self.settings, self.fitted.to(self.settings.torch_dtype, cpu), generator)
            )

    @staticmethod
    def block(result: Mapping[str, Any]) -> Block:
        bounds = result.get("free_energy", {})
        remarks = [Row(f"-ELBO, {part}", _text(bound)) for part, bound in bounds.items()]
        if "validation" in result:
            checked = result["validation"]
            ended = ", where training stopped being of use" if checked["stopped"] else ""
            remarks.append(Row("validation", f"{number(checked)} nats, best at update {checked['n_updates']:,}{ended}"))
        if "importance_weighted" in result:
            bound = result["importance_weighted"]
            remarks.append(Row("importance weighted", f"{_text(bound)} with {bound['samples']} samples (test)"))
        if result.get("tails", {}).get("outside", 0) > 0:
            far = result["tails"]
            remarks.append(
                Row("tails", f"{far['outside']:.2g} of the samples lie far outside the data: see docs/flows.md")
            )
        if "probability_flow" in result:
            flow = result["probability_flow"]
            remarks.append(Row("probability flow", f"-log p {number(flow)} nats, median {flow['median']:.4g} (test)"))
        if "paths" in result:
            remarks.append(Row("hidden paths", _paths(result["paths"])))
        if "latents" in result:
            latents = result["latents"]
            units = " ".join(f"{kl:.2f}" for kl in latents["unit_kl"][:8]) + " ..." * (len(latents["unit_kl"]) > 8)
            limit, information = latents["mutual_information_limit"], latents["mutual_information"]
            remarks += [
                Row("latents", f"{latents['active']} active; KL {units}"),
                Row("mutual information", f"{information:.2f} nats (the estimate ends at {limit:.2f})"),
            ]
        best = bounds.get("test") or bounds.get("batch") or {"mean": None}
        headline = "?" if best["mean"] is None else f"{best['mean']:.6g}"
        title = f"{result['model']} of {result['data']['name']}"
        return Block(title, headline, [], [*remarks, *effort(result)], result["status"] == "finished")


def _some(rows: Tensor, n: int) -> Tensor:
    """At most n rows, evenly spread: data are often sorted by their class."""
    return rows[:: max(1, math.ceil(len(rows) / n))]


def _paths(paths: Mapping[str, Any]) -> str:
    """How many weighted paths the bands rest on, and what to do where they are too few."""
    low, high = min(paths["effective"]), max(paths["effective"])
    few = ", too few for bands: train longer, with a smaller dt or more latents" if low < ENOUGH_PATHS else ""
    return f"{low:.0f} to {high:.0f} of {paths['samples']} count in each band{few}"


def _text(bound: Mapping[str, Any]) -> str:
    """A bound in nats, and in bits where there are levels."""
    bits = f" = {bound['bits_per_component']:.4f} bits per component" if bound.get("bits_per_component") else ""
    return f"{number(bound)} nats{bits}"


def learn(
    model: str,
    data: str | Path | np.ndarray | Tensor | Dataset,
    *,
    labels: Labels = None,
    settings: LearningSettings | None = None,
    out: str | Path | None = None,
    progress: bool | None = None,
    **changes: Any,
) -> Learning:
    """Train a generative model on data.

    Args:
        model: "vae", "markov", ...: a file of `fkdrift.runs.recipes`.
        data: "digits", "mnist5k", a FILE.npy or FILE.npz, "run:DIR" for samples of a solved ground state, an array or a
            `Dataset`.
        labels: classes that the model is told: an array (n,), a FILE.npy, or a name in the .npz file of the data;
            "labels" of digits and mnist5k.
        settings: of the recipe; `changes` override single ones.
        out: folder to save to, also now and then while training.
        progress: show a live line; default: where someone is looking (a terminal or a notebook).
        changes: settings by name, such as latents=8, n_updates=1000, seed=1.

    Returns:
        Learning.  Ctrl-C or SIGTERM finishes the update and returns what there is, marked interrupted.

    Raises:
        InputError: the model, a setting or the data are not allowed.
        DivergedPath: the free energy is no longer finite.

    Example (8 equal pixels, black or white: at best 1 / 8 bit for each):
        >>> data = np.random.default_rng(0).integers(0, 2, (200, 1)).repeat(8, 1)
        >>> learned = learn("vae", data, latents=1, width=16, learning_rate=0.02, n_updates=100)
        >>> learned.result["free_energy"]["test"]["bits_per_component"]
        0.22...
    """
    recipe = MODELS.find(model)
    chosen = (settings or recipe.settings_class()).changed(**changes)
    learning = made(
        lambda: Learning(recipe, chosen, find_data(data, labels, missing=recipe.missing)),
        f"{model} of data",
        chosen,
        progress,
    )
    return drive(learning, out=None if out is None else Path(out), progress=progress)


def load_model(source: str | Path) -> nn.Module:
    """A trained model, from its folder or from its checkpoint.pt alone.

    Raises:
        BadConfig: it is no saved model, or damaged.

    Example:
        >>> learned = learn("vae", np.eye(8, dtype=int), latents=2, width=16, n_updates=0, out="runs/eye")
        >>> load_model("runs/eye").decode(torch.zeros(1, 2)).mean.shape
        torch.Size([1, 8])
    """
    source = Path(source)
    if not source.exists():
        raise BadConfig(f"there is no {source}")
    state = read_checkpoint(source)
    if state.get("kind") != Learning.kind:
        raise BadConfig(f"{source} holds no generative model, but a {state.get('kind')}: fk.load loads any run")
    try:
        config = state["config"]
        recipe = MODELS.find(config["model"])
        settings = recipe.settings_class.from_values(config["settings"])
        model = recipe.build(settings, blank(config["data"])).to(settings.torch_dtype)
        check_state(state["model"], model.state_dict(), "model")
        model.load_state_dict(state["model"])
    except Exception as error:  # a state that nobody here wrote can fail anywhere
        reason = (str(error) or repr(error)).splitlines()[0]
        raise BadConfig(f"the numbers in {source} do not fit its settings: {reason}") from error
    return model


def find_data(
    source: str | Path | np.ndarray | Tensor | Dataset, labels: Labels = None, *, missing: bool = False
) -> Dataset:
    """Data by name, from a file or an array, as `load_data` does, or from a solved ground state as run:DIR.

    Raises:
        InputError: they are not there, or cannot be learned from.
    """
    if not (isinstance(source, str) and source.startswith("run:")):
        return load_data(source, labels, missing=missing)
    if labels is not None:
        raise BadConfig(f"{source} has no classes: leave the labels out")
    state = load(source.removeprefix("run:"))
    if not isinstance(state, GroundState):
        raise BadConfig(f"{source} is a {state.kind}: samples to learn from come from a ground state")
    data = dataset(state.sample(N_RUN_SAMPLES).flatten(1).cpu(), name=source)
    return replace(data, place=f"run:{Path(source.removeprefix('run:')).resolve()}")


def _told(model: nn.Module, classes: Tensor) -> nn.Module:
    """The model, told the classes if it is one that may be."""
    return model.given(classes) if isinstance(model, Conditional) else model


def _where(described: Mapping[str, Any]) -> str:
    """Where data are now: under the path that they had, or under their name, as seen from here."""
    place = str(described.get("place", ""))
    path = file_and_name(place.removeprefix("run:"))[0]
    return place if place and path.exists() else str(described["name"])
