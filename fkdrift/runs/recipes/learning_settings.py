"""What training depends on, whatever the model."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Self

from fkdrift.settings import RunSettings, SharedSettings, default, setting


@dataclass(frozen=True, kw_only=True)
class LearningSettings(SharedSettings):
    """What training depends on, whatever the model; recipes extend it with fields of their own.

    Raises:
        BadConfig: a value is out of range; the message says what is allowed.
    """

    n_updates: int = setting(
        3000,
        "Steps of the optimiser; the learning rate falls to a hundredth over all of them.",
        least=0,
        flags=("--n-updates", "--updates"),
        extends=True,
    )
    device: str = default(RunSettings, "device", "cpu", help="cpu, cuda or cuda:1; auto is CUDA where there is one.")
    validation: float = setting(
        0.1, "Share of the training data that is held back, to keep the best state and stop by.", least=0, below=1
    )
    patience: int = setting(10, "Stop after so many checks on them, of 40, without a new best.", extends=True)
    average: float = setting(0.0, "Decay of an exponential average of the weights; 0 for none.", least=0, below=1)
    batch_size: int = setting(100, "Data in a minibatch.")
    learning_rate: float = setting(2e-3, "Of Adam, at its highest.")
    weight_decay: float = setting(0.0, "How much of a weight a step takes away, times its rate.", least=0)

    def at(self, progress: float) -> Self:
        """The settings of an update, when so much of the training is over, from 0 to 1: these, unless they change."""
        return self


@dataclass(frozen=True, kw_only=True)
class ScaledSettings(LearningSettings):
    """Settings of models whose networks see data in units of their width."""

    scaling: str = setting(
        "auto",
        "One width for all data, or one for each column; auto is column where those of a table differ by more than 10.",
        choices=("auto", "common", "column"),
    )
