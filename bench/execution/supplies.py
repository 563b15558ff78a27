"""What a run needs besides code, known by content: images, and weights of feature networks.

A machine that lacks a supply is sent it once; its cache keeps it for every later run.
"""

import hashlib
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

from bench.data import by_content
from bench.data.fingerprint import Parts
from bench.errors import RequestError
from bench.execution.messages import Task
from bench.files import cache_root, exclusive, sha256_file, write_bytes
from bench.run import Run

Content = list[npt.NDArray[np.uint8]]
"""A supply itself: a file's bytes, or the images of the training and the test part."""


@dataclass(frozen=True)
class Supply:
    """Something with a hash, and where the machine that has it finds it.

    `name` is the data set's, or the path of a file of weights; `split_seed` is of data alone.
    """

    kind: Literal["data", "weights"]
    sha256: str
    name: str
    split_seed: int = 0

    def dump(self) -> dict[str, Any]:
        """The supply as JSON values."""
        return asdict(self)

    def content(self) -> tuple[Content, int]:
        """What is to be sent, and how many of its training images are for validation.

        Raises:
            RequestError: it is no longer what the grid began with.
        """
        if self.kind == "data":
            parts = by_content.published(self.name, self.split_seed)
            return [parts.train, parts.test], parts.validation
        file = Path(self.name)
        try:
            if sha256_file(file) != self.sha256:
                raise RequestError(
                    f"feature weights {file} changed while the grid ran; start again"
                )
            return [np.fromfile(file, np.uint8)], 0
        except OSError as error:
            raise RequestError(f"feature weights {file}: {error.strerror}") from error

    def here(self) -> bool:
        """Whether this machine's cache has it."""
        if self.kind == "data":
            return by_content.here(self.name, self.sha256, self.split_seed)
        return weights_file(self.sha256).exists()

    def keep(self, content: Content, validation: int) -> None:
        """Put it into this machine's cache, unless another process has.

        Raises:
            RequestError: it arrived with another content, or the cache cannot be written.
            OSError: the cache cannot be written.
        """
        if self.kind == "data":
            train, test = content
            parts = Parts(train, test, validation)
            by_content.keep(self.name, self.sha256, self.split_seed, parts)
            return
        (held,) = content
        if hashlib.sha256(held.data).hexdigest() != self.sha256:
            raise RequestError(
                f"feature weights {self.name} were damaged on their way; start again"
            )
        path = weights_file(self.sha256)
        with exclusive(path):
            if not path.exists():
                write_bytes(path, held.tobytes())


def needed(task: Task) -> list[Supply]:
    """The supplies of a task."""
    run: Run = task.run
    assert run.content is not None  # prepared before there was a task
    return [
        Supply("data", run.content, run.place, run.split_seed),
        *(Supply("data", of.content, of.name, run.split_seed) for of in run.evaluation.ood),
        *(Supply("weights", net.sha256, net.source) for net in task.networks.values()),
    ]


def weights_file(sha256: str) -> Path:
    """Where the cache keeps weights that were sent to this machine."""
    return cache_root() / "weights" / sha256


def relocated(fields: Mapping[str, Any]) -> dict[str, Any]:
    """A task's JSON with the weights where this machine has them."""
    evaluation = fields["run"]["evaluation"]
    places = {
        setting: str(weights_file(evaluation[setting]["sha256"])) for setting in fields["weights"]
    }
    return {**fields, "weights": places}
