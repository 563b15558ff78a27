"""The trackers `wandb` and `trackio`: packages with the same calls, which one class drives."""

import contextlib
import contextvars
import io
import os
from collections.abc import Mapping
from typing import Any

from bench.errors import RequestError
from bench.execution.trackers.base import Tracker, needed, settings, title
from bench.run import Run

PROJECT = "sigma-vae-bench"
"""Where runs go if nothing is said."""


class WandB(Tracker[Any]):
    """Sends each run to Weights & Biases, as a run whose id is ours, in the group of its grid.

    `where` is PROJECT or ENTITY/PROJECT. `WANDB_MODE=offline` keeps everything on this machine.

    Raises:
        RequestError: the package is missing, or nobody is logged in.
    """

    name = "wandb"

    def __init__(self, where: str, grid: str) -> None:
        super().__init__()
        self.module = needed(self.name, self.name)
        self.entity, _, self.project = (where or PROJECT).rpartition("/")
        self.grid, self.quiet = grid, False
        self.check()

    def check(self) -> None:
        """Raise RequestError where the first run could only fail, or ask on the terminal."""
        if os.environ.get("WANDB_MODE", "online") not in ("online", "shared"):
            return
        if not self.module.login(prompt=False):
            raise RequestError(
                "--track wandb: nobody is logged in; `wandb login`, or set WANDB_API_KEY, or "
                "WANDB_MODE=offline to keep the runs on this machine"
            )

    def open(self, run: Run) -> Any:
        quiet, self.quiet = self.quiet, True  # the first run says where the project is
        return self.module.init(
            entity=self.entity or None,
            project=self.project,
            group=self.grid,
            id=run.id,
            name=title(run),
            config=settings(run),
            resume="allow",
            reinit="create_new",  # runs go side by side
            settings=self.module.Settings(console="off", quiet=True, silent=quiet),
        )

    def log(self, handle: Any, values: Mapping[str, float], step: int) -> None:
        handle.log(dict(values), step=step)

    def end(self, handle: Any, well: bool | None) -> None:
        handle.finish(exit_code=0 if well else 1)


class Trackio(WandB):
    """Sends each run to trackio, in the group of its grid; its own variables say where that is.

    `where` is the project. Without TRACKIO_SPACE_ID or TRACKIO_SERVER_URL everything stays on this
    machine, in TRACKIO_DIR.

    Raises:
        RequestError: the package is missing.
    """

    name = "trackio"

    def check(self) -> None:
        """It has no account to ask for."""

    def open(self, run: Run) -> Any:
        quiet, self.quiet = self.quiet, True
        with contextlib.redirect_stdout(io.StringIO()) if quiet else contextlib.nullcontext():
            # `init` ends the run of its context, and ours go side by side: each has its own.
            return contextvars.Context().run(
                self.module.init,
                project="/".join(filter(None, (self.entity, self.project))),
                group=self.grid,
                name=title(run),
                config=settings(run),
                resume="allow",
                embed=False,
                auto_log_gpu=False,
                auto_log_cpu=False,
            )

    def end(self, handle: Any, well: bool | None) -> None:
        with contextlib.redirect_stdout(io.StringIO()):  # it says for each run that it waits
            handle.finish()
