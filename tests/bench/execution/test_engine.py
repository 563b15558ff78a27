"""Another engine is one class: a grid runs through it, and its bad moments cost no run."""

import io
import math
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from types import ModuleType

import pytest
from rich.console import Console

from bench.devices import DeviceClass
from bench.errors import RequestError
from bench.evaluation.context import Evaluated
from bench.execution.chains import BY_HAND
from bench.execution.deaths import MAX_DEATHS
from bench.execution.engine import GROUP, find_engine
from bench.execution.messages import Launch, Message, Resources, Task
from bench.execution.outcome import Outcome
from bench.execution.processes import Pool
from bench.execution.schedule import execute
from bench.execution.signals import Interruption
from bench.execution.worker import Worker
from bench.grid.expand import Row
from bench.records.store import Record, Store
from bench.records.validity import LARGEST
from tests.refusal import refused

Expand = Callable[..., list[Row]]


class InProcess:
    """Computes one task at a time in this process, when its messages are asked for."""

    name = "in_process"

    def __init__(self, store: Store, resources: Resources) -> None:
        self.store = store
        self.worker = Worker(resources.devices[0], threads=resources.threads)
        self.task: Task | None = None

    @property
    def free(self) -> bool:
        return self.task is None

    @property
    def busy(self) -> bool:
        return self.task is not None

    def give(self, task: Task) -> None:
        self.task = Task.read(task.dump())

    def messages(self, timeout: float | None, interruption: Interruption) -> Iterator[Message]:
        if self.task is not None:
            told: list[Message] = []
            last = self.worker.attempt(self.task, self.store, told.append)
            self.task = None
            yield from [*told, last]

    def stop(self) -> None:
        self.worker.stop.asked = True

    def close(self) -> None:
        self.stop()

    def kill(self) -> None:
        self.stop()


class Unreliable(InProcess):
    """Every worker loses its place several times, and answers of old attempts come late."""

    LOSSES = MAX_DEATHS + 2

    def messages(self, timeout: float | None, interruption: Interruption) -> Iterator[Message]:
        task = self.task
        if task is not None and task.attempt > 1:
            yield Message("record", task.run.id, task.attempt - 1, {"status": "of an old attempt"})
            yield Message("wrong", task.run.id, task.attempt - 1, "of an old attempt")
            yield Message("wrong", "0123456789abcdef", 1, "of a run that nobody asked for")
        if task is not None and task.attempt <= self.LOSSES:
            self.task = None
            yield task.message("left")
        else:
            yield from super().messages(timeout, interruption)


class Stopping(InProcess):
    """Its workers are always told to stop by somebody else."""

    def messages(self, timeout: float | None, interruption: Interruption) -> Iterator[Message]:
        if self.task is not None:
            task, self.task = self.task, None
            yield task.message("stopped")


def go(rows: list[Row], folder: Path, launch: Launch, device: str = "cpu") -> tuple[Outcome, str]:
    text = io.StringIO()
    store, console = Store.open(folder, "small"), Console(file=text, width=200)
    return execute(rows, store, "small", [device], 1, console, launch=launch), text.getvalue()


def metrics(outcome: Outcome) -> dict[str, Record]:
    return {key: record["metrics"] for key, record in outcome.records.items()}


def test_another_engine_gives_the_same_records(expand: Expand, tmp_path: Path) -> None:
    tune = {"low": 0.001, "high": 10, "trials": 3}
    rows = expand(decoders=["optimal", {"name": "beta", "beta": {"tune": tune}}])
    local, _ = go(rows, tmp_path / "local", Pool)
    other, told = go(rows, tmp_path / "other", InProcess)
    assert other.well
    assert other.new == 5
    assert "chose" in told
    assert metrics(other) == metrics(local)


def test_a_lost_place_is_no_death_and_an_old_attempt_counts_for_nothing(
    expand: Expand, tmp_path: Path
) -> None:
    outcome, told = go(expand(), tmp_path, Unreliable)
    assert outcome.well
    assert outcome.new == 2
    assert {record["status"] for record in outcome.records.values()} == {"completed"}
    assert told.count("its worker was taken away") == 2 * Unreliable.LOSSES
    assert f"({Unreliable.LOSSES} times so far)" in told


def test_a_stop_that_nobody_asked_for_counts_as_a_death(expand: Expand, tmp_path: Path) -> None:
    outcome, _ = go(expand(decoders=["optimal"]), tmp_path, Stopping)
    (record,) = outcome.records.values()
    assert record["status"] == "failed"
    assert record["failure"] == {"type": "WorkerDied", "message": "its worker was told to stop"}


# -- by name -----------------------------------------------------------------------------------


ADDING = Path(__file__).parents[3] / "docs" / "adding.md"


def as_documented() -> str:
    """The engine that `docs/adding.md` shows."""
    section = ADDING.read_text().partition("## An engine")[2]
    return section.partition("```python\n")[2].partition("```")[0]


@pytest.fixture
def installed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """A package whose entry points add the engines `in_process`, `pipes` and `broken`."""
    module = ModuleType("an_engine")
    module.InProcess = InProcess  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "an_engine", module)
    about = tmp_path / "site" / "an_engine-1.0.dist-info"
    about.mkdir(parents=True)
    (about.parent / "pipes.py").write_text(as_documented())
    (about / "METADATA").write_text("Metadata-Version: 2.1\nName: an-engine\nVersion: 1.0\n")
    (about / "entry_points.txt").write_text(
        f"[{GROUP}]\nin_process = an_engine:InProcess\npipes = pipes:launch\n"
        "broken = no_such_module:Engine\n"
    )
    monkeypatch.syspath_prepend(tmp_path / "site")
    yield
    sys.modules.pop("pipes", None)


@pytest.mark.usefixtures("installed")
def test_the_engine_of_the_page_computes_what_local_does(expand: Expand, tmp_path: Path) -> None:
    """It is whole, in fewer than 60 lines; `Remote` does the rest."""
    assert sum(bool(line.strip()) for line in as_documented().splitlines()) < 60
    rows = expand()
    launch = find_engine("pipes", ["processes=1"])
    outcome, _ = go(rows, tmp_path / "pipes", launch, DeviceClass.CPU)
    assert outcome.well
    assert outcome.new == 2
    assert metrics(outcome) == metrics(go(rows, tmp_path / "local", Pool)[0])


@pytest.mark.parametrize(
    ("asked", "options", "told"),
    [
        ("local:there", [], "--engine local:there: it takes no address and no --engine-option"),
        ("local", ["a=b"], "--engine local: it takes no address and no --engine-option"),
        ("ray", ["a"], "--engine-option a: expected KEY=VALUE"),
        ("ray", ["=a"], "--engine-option =a: expected KEY=VALUE"),
    ],
)
def test_a_wrong_setting_of_an_engine_is_one_line(
    asked: str, options: list[str], told: str
) -> None:
    assert refused(lambda: find_engine(asked, options)) == told


def test_a_ray_client_is_advised_to_submit_a_job(tmp_path: Path) -> None:
    launch = find_engine("ray:ray://head:10001")
    message = refused(lambda: launch(Store(tmp_path), Resources(["cpu"], 0)))
    assert "ray job submit --address http://HEAD:8265 -- sigma-bench run GRID" in message


@pytest.mark.usefixtures("installed")
def test_a_package_adds_an_engine(
    write_grid: Callable[..., Path],
    call: Callable[..., tuple[int, str, str]],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(Pool, "give", lambda *_: pytest.fail("the engine local was used"))
    code, _, told = call(
        "run", write_grid(), "--results", tmp_path / "r", "--device", "cpu",
        "--engine", "in_process",
    )  # fmt: skip
    assert code == 0
    assert "2 runs done, 0 failed, 0 diverged, 0 left, 2 computed now" in told


@pytest.mark.usefixtures("installed")
def test_an_engine_that_is_not_there_is_one_line(
    write_grid: Callable[..., Path], call: Callable[..., tuple[int, str, str]]
) -> None:
    code, _, told = call("run", write_grid(), "--engine", "slrum")
    assert code == 2
    (line,) = told.splitlines()
    assert line.startswith("sigma-bench: --engine slrum: unknown; possible: local, ")
    assert "in_process" in line
    with pytest.raises(RequestError, match=r"--engine broken: .* fails at import: ModuleNotFound"):
        find_engine("broken")


@pytest.mark.parametrize("value", [math.nan, math.inf, -2 * LARGEST, 2 * LARGEST])
def test_a_measurement_that_a_reader_would_refuse_is_never_written(
    value: float, expand: Expand, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    store = Store(tmp_path / "results")

    def measure(*arguments: object) -> Evaluated:
        return Evaluated({"mse": 0.5, "rate": value}, {}, {})

    monkeypatch.setattr("bench.execution.worker.evaluate", measure)
    (run,) = expand(decoders=["gaussian"])[0].runs
    message = Worker("cpu").attempt(Task(run, BY_HAND), store, lambda message: None)
    record = store.record(run)
    assert message.kind == "record", message
    assert record is not None
    assert (record["status"], record["failure"]["type"]) == ("failed", "FloatingPointError")
    assert "rate" in record["failure"]["message"]
