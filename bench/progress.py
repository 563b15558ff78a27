"""What a person sees while a grid runs: a live panel in a terminal, plain lines elsewhere."""

import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from types import TracebackType
from typing import TYPE_CHECKING

from rich.console import Console, Group
from rich.live import Live
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

from bench.grid import Row, Run, describe_spec
from bench.records import COMPLETED, DIVERGED, Record

if TYPE_CHECKING:
    from bench.tuning import Choice

QUIET = 10.0
"""Seconds between plain lines about the epochs of one run."""


def duration(seconds: float) -> str:
    """`42 s`, `3 min 05 s`, `2 h 10 min`."""
    whole = round(seconds)
    if whole < 60:
        return f"{whole} s"
    if whole < 3600:
        return f"{whole // 60} min {whole % 60:02d} s"
    return f"{whole // 3600} h {whole % 3600 // 60:02d} min"


@dataclass
class Progress:
    """Told what happens by the execution; shows it on `console` (standard error)."""

    grid: str
    total: int
    console: Console
    clock: float = field(default_factory=time.monotonic)
    settled_runs: set[str] = field(default_factory=set)
    computed: list[float] = field(default_factory=list)
    found: int = 0
    run: Run | None = None
    lines: list[dict[str, float]] = field(default_factory=list)
    last_line: float = 0.0
    waited: bool = False
    live: Live | None = None

    def __enter__(self) -> "Progress":
        if self.console.is_terminal:
            self.live = Live(
                get_renderable=self.panel, console=self.console, refresh_per_second=4, transient=True
            )
            self.live.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if self.live is not None:
            self.live.stop()

    # -- told by the execution -----------------------------------------------------------------

    def started(self, run: Run) -> None:
        self.run, self.lines, self.last_line = run, [], time.monotonic()

    def epoch(self, line: dict[str, float]) -> None:
        self.lines.append(line)
        if self.live is None and time.monotonic() - self.last_line > QUIET:
            self.last_line = time.monotonic()
            self.say(f"  {self._epoch_text()}")

    def finished(self, run: Run, record: Record) -> None:
        seconds = record["cost"]["seconds"]
        self.computed.append(seconds)
        self.settled_runs.add(run.id)
        if record["status"] == COMPLETED:
            metrics = record["metrics"]
            shown = [k for k in metrics if k in ("neg_log_p", "fid") or k.startswith("fd_")]
            told = "  ".join(f"{key} {metrics[key]:.4g}" for key in [*shown, "sigma"])
        elif record["status"] == DIVERGED:
            divergence = record["divergence"]
            told = f"diverged at step {divergence['step']}: {divergence['what']} is not finite"
        else:
            told = f"failed: {record['failure']['type']}: {record['failure']['message']}"
        left = self.left()
        remaining = f"  · {duration(left)} left" if left else ""
        self.say(
            f"[{len(self.settled_runs)}/{self.total}] {self._name(run)}  {told}  "
            f"({duration(seconds)}){remaining}"
        )
        self.run = None

    def settled(self, run: Run) -> None:
        """A run's record is there, computed or found."""
        if run.id not in self.settled_runs:
            self.settled_runs.add(run.id)
            self.found += 1

    def chosen(self, row: Row, choice: "Choice") -> None:
        told = "no value worked" if choice.value is None else f"chose {choice.value:g}"
        self.say(f"search {row.label}: {told} after {len(choice.trials)} trials")

    def waiting(self, held: Sequence[Run]) -> None:
        if not self.waited:
            self.say(f"waiting for {len(held)} runs that another process holds")
        self.waited = True

    def say(self, text: str) -> None:
        self.console.print(text, markup=False, highlight=False, soft_wrap=True)

    # -- shown ---------------------------------------------------------------------------------

    def left(self) -> float:
        """Seconds left, from the runs computed so far in this call; 0 when nothing is known."""
        if not self.computed:
            return 0.0
        each = sum(self.computed) / len(self.computed)
        return each * max(0, self.total - len(self.settled_runs))

    def panel(self) -> Group:
        head = Table.grid(padding=(0, 1))
        head.add_row(
            Text(self.grid, style="bold"),
            ProgressBar(self.total, len(self.settled_runs), width=30),
            Text(f"{len(self.settled_runs)}/{self.total} runs"),
            Text(f"{duration(time.monotonic() - self.clock)} elapsed"),
            Text(f"{duration(self.left())} left" if self.computed else ""),
        )
        body = Text(f"{self._name(self.run)}  {self._epoch_text()}" if self.run else "")
        return Group(head, body)

    def _epoch_text(self) -> str:
        assert self.run is not None
        total = self.run.training.epochs
        if not self.lines:
            return f"epoch 1/{total}"
        line = self.lines[-1]
        if len(self.lines) == total:
            stage = "measuring"
        else:
            stage = f"epoch {int(line['epoch']) + 2}/{total}"
        return (
            f"{stage}  -elbo {line['loss']:.4g}  distortion {line['distortion']:.4g}  "
            f"rate {line['rate']:.4g}  sigma {line['sigma']:.3g}  "
            f"{line['images_per_second']:.0f} images/s"
        )

    @staticmethod
    def _name(run: Run) -> str:
        trial = "trial " if run.evaluation.split == "validation" else ""
        return f"{trial}{run.dataset} {run.model.name} {describe_spec(run.decoder)} seed {run.seed}"
