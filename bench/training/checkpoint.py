"""The state of a training on disk: checkpoints, history, weights."""

import hashlib
import io
import json
import logging
import pickle
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from baselines.state import State
from baselines.vae import Terms, Vae
from bench.files import atomic, set_aside, write_bytes
from bench.run import HISTORY
from bench.training.divergence import Divergence
from bench.training.optimiser import Optimiser

Epoch = dict[str, float]
"""A line of history.jsonl.

`epoch`, counted from 0; `steps`, how many the run has done; the mean of each term, and of `weight`,
the rate's, under a balance that has one; `skipped`, steps of the epoch, where the run skips any,
and no mean where it skipped all;
`seconds`; `images_per_second`.
"""

logger = logging.getLogger("sigma-bench")


@dataclass
class Trained:
    """A trained VAE, its state, its history, and why training ended early if it did."""

    vae: Vae
    state: State
    history: list[Epoch] = field(default_factory=list)
    divergence: Divergence | None = None


WEIGHTS = "weights.safetensors"


def write_history(history: list[Epoch], folder: Path) -> None:
    """Write `history.jsonl`, a line an epoch."""
    lines = "".join(json.dumps(line) + "\n" for line in history)
    write_bytes(folder / HISTORY, lines.encode())


@dataclass(frozen=True)
class PartialEpoch:
    """An epoch that was stopped: the terms of its steps so far, and the seconds they took.

    `terms` is (steps, columns), on the CPU, as `Step.columns` names them.
    """

    terms: Tensor = field(default_factory=lambda: torch.empty(0, len(Terms._fields)))
    seconds: float = 0.0


@dataclass(frozen=True)
class Checkpoint:
    """The whole training state after a step, in one file that is whole or absent.

    The file is the sha256 of its content (32 bytes), and that content.
    """

    path: Path
    run_id: str

    def save(self, trained: Trained, optimiser: Optimiser, begun: PartialEpoch) -> None:
        buffer = io.BytesIO()
        torch.save(
            {
                "run": self.run_id,
                "parameters": trained.vae.state_dict(),
                "state": trained.state,
                "history": trained.history,
                "begun": asdict(begun),
                **optimiser.state_dict(),
            },
            buffer,
        )
        with atomic(self.path) as file:
            file.write(hashlib.sha256(buffer.getbuffer()).digest())
            file.write(buffer.getbuffer())
        write_history(trained.history, self.path.parent)

    def restore(self, trained: Trained, optimiser: Optimiser) -> PartialEpoch:
        """Load the checkpoint, where there is one, into `trained` and `optimiser`.

        A checkpoint that is torn, changed or of another run is set aside.
        """
        if not self.path.exists():
            return PartialEpoch()
        content = self.read()
        if content is None:
            moved = set_aside(self.path)
            logger.warning(
                "%s is torn: set aside as %s, training from the start", self.path, moved.name
            )
            return PartialEpoch()
        trained.vae.load_state_dict(content["parameters"])
        for name, value in content["state"].items():
            trained.state[name].copy_(value)
        optimiser.load_state_dict(content)
        trained.history = content["history"]
        return PartialEpoch(**content["begun"])

    def read(self) -> dict[str, Any] | None:
        """The file's content, or None where it is not what `save` wrote for this run."""
        file = self.path.read_bytes()
        digest, content = file[:32], memoryview(file)[32:]
        # torch.load does not notice a bit that flipped.
        if hashlib.sha256(content).digest() != digest:
            return None
        try:
            read = torch.load(io.BytesIO(content), map_location="cpu", weights_only=True)
            return read if read["run"] == self.run_id else None
        # Anybody can compute a checksum.
        except (pickle.UnpicklingError, EOFError, KeyError, RuntimeError, TypeError):
            return None
