"""Progress of a grid: a live panel in a terminal, plain lines elsewhere.

rich.progress is not used: its time left counts runs that were found as work of this call, and the
lines for a file need our own estimate anyway.
"""

import time
from dataclasses import dataclass, field

from rich.console import Console, Group
from rich.live import Live
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

from bench.execution.listeners import Listener
from bench.grid.expand import Row
from bench.metrics import is_shown
from bench.records.labels import row_label, trained_label
from bench.records.store import Record
from bench.records.validity import COMPLETED, DIVERGED
from bench.run import Run
from bench.text import divergence, duration, words
from bench.tuning import Choice

QUIET = 10.0
"""Seconds between plain lines about the epochs of one run."""

MEASURING = 60.0
"""The same about its measures, which have no numbers to tell yet."""


@dataclass
class Current:
    """A run that is being computed, its epochs so far, and how far its measures are."""

    run: Run
    lines: list[dict[str, float]] = field(default_factory=list)
    measuring: str = ""


@dataclass
class Progress(Listener):
    """Shows on `console` (standard error) what happens to the `total` runs of a grid."""

    grid: str
    total: int
    console: Console
    clock: float = field(default_factory=time.monotonic)
    settled_runs: set[str] = field(default_factory=set)
    computed: list[float] = field(default_factory=list)
    current: dict[str, Current] = field(default_factory=dict)
    jobs: int = 1
    last_line: float = field(default_factory=time.monotonic)
    waited: set[str] = field(default_factory=set)
    live: Live | None = None

    def __post_init__(self) -> None:
        if self.console.is_terminal:
            self.live = Live(
                get_renderable=self.panel,
                console=self.console,
                refresh_per_second=4,
                transient=True,
            )
            self.live.start()

    def close(self) -> None:
        if self.live is not None:
            self.live.stop()

    # -- called by the scheduler ---------------------------------------------------------------

    def started(self, run: Run) -> None:
        self.current[run.id] = Current(run)
        self.jobs = max(self.jobs, len(self.current))

    def epoch(self, run: Run, line: dict[str, float]) -> None:
        self.current[run.id].lines.append(line)
        self._plain_line(self.current[run.id], QUIET)

    def measuring(self, run: Run, how_far: str) -> None:
        self.current[run.id].measuring = how_far
        self._plain_line(self.current[run.id], MEASURING)

    def _plain_line(self, current: Current, quiet: float) -> None:
        if self.live is None and time.monotonic() - self.last_line > quiet:
            self.last_line = time.monotonic()
            self.say(f"  {self._text(current)}")

    def dropped(self, run: Run) -> None:
        self.current.pop(run.id, None)

    def held(self, run: Run) -> None:
        self.dropped(run)
        if run.id not in self.waited:
            self.waited.add(run.id)
            self.say(f"waiting for {self._name(run)}: another process is computing it")

    def finished(self, run: Run, record: Record) -> None:
        seconds = record["cost"]["seconds"]
        self.computed.append(seconds)
        self.settled_runs.add(run.id)
        if record["status"] == COMPLETED:
            metrics = record["metrics"]
            shown = [name for name in metrics if is_shown(name, "progress")]
            told = "  ".join(f"{key} {metrics[key]:.4g}" for key in shown)
        elif record["status"] == DIVERGED:
            told = divergence(record["divergence"])
        else:
            told = f"failed: {record['failure']['type']}: {record['failure']['message']}"
        left = self.left()
        remaining = f"  · {duration(left)} left" if left else ""
        self.say(
            f"[{len(self.settled_runs)}/{self.total}] {self._name(run)}  {told}  "
            f"({duration(seconds)}){remaining}"
        )
        self.last_line = time.monotonic()
        self.dropped(run)

    def found(self, identity: str) -> None:
        self.settled_runs.add(identity)
        self.current.pop(identity, None)

    def chosen(self, row: Row, choice: Choice) -> None:
        told = "no value worked"
        if choice.values is not None:
            told = f"chose {words([f'{value:g}' for value in choice.values])}"
        self.say(f"search {row_label(row)}: {told} after {len(choice.trials)} trials")

    def say(self, text: str) -> None:
        self.console.print(text, markup=False, highlight=False, soft_wrap=True)

    # -- what is shown -------------------------------------------------------------------------

    def left(self) -> float:
        """Seconds left, by the mean of the runs that this call computed; 0 before the first."""
        if not self.computed:
            return 0.0
        each = sum(self.computed) / len(self.computed)
        return each * max(0, self.total - len(self.settled_runs)) / self.jobs

    def finished_share(self) -> float:
        """The runs that are settled, and the part of training that the current ones have done."""
        begun = [(now.run.training, now.lines[-1]) for now in self.current.values() if now.lines]
        parts = [training.done(line) / training.length for training, line in begun]
        return len(self.settled_runs) + sum(parts)

    def panel(self) -> Group:
        head = Table.grid(padding=(0, 1))
        head.add_row(
            Text(self.grid, style="bold"),
            ProgressBar(self.total, self.finished_share(), width=30),
            Text(f"{len(self.settled_runs)}/{self.total} runs"),
            Text(f"{duration(time.monotonic() - self.clock)} elapsed"),
            Text(f"{duration(self.left())} left" if self.computed else ""),
        )
        body = [Text(self._text(current)) for current in self.current.values()]
        return Group(head, *body)

    def _text(self, current: Current) -> str:
        training, name = current.run.training, self._name(current.run)
        unit, total = training.unit.removesuffix("s"), training.length
        if current.measuring:
            return f"{name}  measuring: {current.measuring}"
        if not current.lines:
            return f"{name}  {unit} 1/{total}"
        line = current.lines[-1]
        last = training.done(line)
        stage = "measuring" if last == total else f"{unit} {last + 1}/{total}"
        terms = "every step skipped"
        if "loss" in line:
            terms = (
                f"-elbo {line['loss']:.4g}  distortion {line['distortion']:.4g}  "
                f"rate {line['rate']:.4g}  sigma {line['sigma']:.3g}"
            )
        return f"{name}  {stage}  {terms}  {line['images_per_second']:.0f} images/s"

    @staticmethod
    def _name(run: Run) -> str:
        trial = "trial " if run.evaluation.split == "validation" else ""
        return f"{trial}{run.dataset} {run.model.name} {trained_label(run)} seed {run.seed}"
