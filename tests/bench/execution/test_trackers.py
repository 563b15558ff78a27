"""Trackers: what the displays' own libraries read back, and what a bad tracker costs a grid."""

import json
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

from bench.errors import RequestError
from bench.execution.listeners import Listener
from bench.execution.trackers.background import Background
from bench.execution.trackers.base import Tracker, title
from bench.execution.trackers.find import GROUP, anywhere, find_tracker
from bench.grid.expand import Row
from bench.records.store import Record, new_record
from bench.records.validity import COMPLETED, DIVERGED
from bench.run import Run

Expand = Callable[..., list[Row]]
Call = Callable[..., tuple[int, str, str]]
Curves = dict[str, list[tuple[int, float]]]

PAGE = Path(__file__).resolve().parents[3] / "docs" / "trackers.md"
PATIENCE = 250.0
"""Seconds that a real library may take on a machine that is busy with other things."""

LINE = {"epoch": 0, "loss": 12.0, "rate": 2.0, "sigma": 0.5, "seconds": 1.0}
SECOND = {**LINE, "epoch": 1, "loss": 11.0}
TOLD = {
    "training/loss": [(1, 12.0), (2, 11.0)],
    "training/rate": [(1, 2.0), (2, 2.0)],
    "training/sigma": [(1, 0.5), (2, 0.5)],
    "test/neg_log_p": [(2, -12.5)],
}
"""What a display must show of a run with these two epochs and this measure."""


def record_of(run: Run, status: str = COMPLETED) -> Record:
    measures = {"neg_log_p": -12.5} if status == COMPLETED else {}
    return {**new_record(run, {"rule": "by hand"}), "metrics": measures, "status": status}


def follow_two(tracker: Listener, rows: list[Row]) -> list[Run]:
    """Two runs side by side: the first is computed, the second diverges after an epoch."""
    first, second = (row.runs[0] for row in rows)
    for run in (first, second):
        tracker.started(run)
        tracker.epoch(run, LINE)
    tracker.epoch(first, SECOND)
    tracker.finished(second, record_of(second, DIVERGED))
    tracker.finished(first, record_of(first))
    tracker.close()
    return [first, second]


class Fake(Tracker[str]):
    """A display that keeps what it is sent."""

    def __init__(self) -> None:
        super().__init__()
        self.curves: dict[str, Curves] = {}
        self.ends: dict[str, bool | None] = {}

    def open(self, run: Run) -> str:
        self.curves.setdefault(run.id, {})
        return run.id

    def log(self, handle: str, values: Any, step: int) -> None:
        for name, value in values.items():
            self.curves[handle].setdefault(name, []).append((step, value))

    def end(self, handle: str, well: bool | None) -> None:
        self.ends[handle] = well


# -- what is told --------------------------------------------------------------------------------


def test_every_run_has_its_curves_and_its_end(expand: Expand) -> None:
    tracker = Fake()
    first, second = follow_two(tracker, expand())
    assert tracker.curves[first.id] == TOLD
    assert set(tracker.curves[second.id]) == {"training/loss", "training/rate", "training/sigma"}
    assert tracker.ends == {first.id: True, second.id: False}


def test_an_interrupted_run_is_left_open_ended(expand: Expand) -> None:
    tracker = Fake()
    run = expand()[0].runs[0]
    tracker.epoch(run, LINE)
    tracker.dropped(run)
    tracker.close()
    assert tracker.ends == {run.id: None}


def test_what_is_no_number_is_not_sent(expand: Expand) -> None:
    tracker = Fake()
    run = expand()[0].runs[0]
    record = {**record_of(run), "metrics": {"neg_log_p": float("nan"), "rate": None, "mse": 1}}
    tracker.finished(run, record)
    assert tracker.curves[run.id] == {"test/mse": [(2, 1.0)]}


def test_the_tracker_of_the_page_is_whole(expand: Expand, tmp_path: Path) -> None:
    section = PAGE.read_text().partition("## Your own")[2]
    space: dict[str, Any] = {"__name__": "lines"}
    exec(section.partition("```python\n")[2].partition("```")[0], space)
    first, second = follow_two(space["Lines"](tmp_path / "numbers.txt", "small"), expand())
    lines = (tmp_path / "numbers.txt").read_text().splitlines()
    assert f"{title(first)} 2 training/loss 11.0" in lines
    assert lines[-1] == f"{title(first)} completed"
    assert f"{title(second)} not completed" in lines


# -- a tracker in the background -----------------------------------------------------------------


def test_every_call_of_a_listener_arrives_in_order() -> None:
    """Also a call that the interface gains later."""
    names = [name for name in vars(Listener) if not name.startswith("_")]
    heard: list[tuple[str, object]] = []
    tracker = Listener()
    for name in names:
        setattr(tracker, name, lambda *words, name=name: heard.append((name, words)))
    told: list[str] = []
    background = Background("ears", tracker, told.append)
    for name in names:
        if name != "close":
            getattr(background, name)(name, 1)
    background.close()
    assert heard == [(name, (name, 1)) for name in names if name != "close"] + [("close", ())]
    assert not told


def test_a_tracker_that_raises_is_told_once_and_called_no_more() -> None:
    calls = 0

    class Broken(Listener):
        def found(self, identity: str) -> None:
            nonlocal calls
            calls += 1
            sys.exit("no\nserver")  # as a library may

    told: list[str] = []
    background = Background("broken:there", Broken(), told.append)
    for _ in range(5):
        background.found("0123456789abcdef")
    background.close()
    assert calls == 1
    assert told == [
        "--track broken:there: SystemExit: no server; the grid goes on without this tracker"
    ]


@pytest.mark.parametrize("calls", [1, 6])
def test_a_tracker_that_hangs_is_not_waited_for(calls: int) -> None:
    answer = threading.Event()

    class Silent(Listener):
        def found(self, identity: str) -> None:
            answer.wait(60)

    told: list[str] = []
    background = Background("silent", Silent(), told.append, patience=0.05, late=3)
    for _ in range(calls):
        background.found("0123456789abcdef")
    background.close()
    answer.set()
    (line,) = told
    assert ("not done 0.05 s after the end" if calls == 1 else "3 calls behind") in line


# -- TensorBoard ---------------------------------------------------------------------------------


def scalars(folder: Path) -> Curves:
    """Every curve of a run's folder as TensorBoard reads it."""
    events = pytest.importorskip("tensorboard.backend.event_processing.event_accumulator")
    read = events.EventAccumulator(str(folder)).Reload()
    return {
        name: [(event.step, event.value) for event in read.Scalars(name)]
        for name in read.Tags()["scalars"]
    }


def test_tensorboard_reads_what_was_written(expand: Expand, tmp_path: Path) -> None:
    pytest.importorskip("tensorboard")
    tracker = find_tracker(f"tensorboard:{tmp_path}", "small")
    first, second = follow_two(tracker, expand())
    assert scalars(tmp_path / "small" / title(first)) == TOLD
    assert len(scalars(tmp_path / "small" / title(second))) == 3


def test_a_folder_that_cannot_be_written_is_one_line(tmp_path: Path) -> None:
    pytest.importorskip("tensorboard")
    (tmp_path / "file").touch()
    with pytest.raises(RequestError, match="choose another folder"):
        find_tracker(f"tensorboard:{tmp_path / 'file' / 'board'}", "small")
    with pytest.raises(RequestError, match="expected tensorboard:FOLDER"):
        find_tracker("tensorboard", "small")


# -- the others, with their real libraries -------------------------------------------------------


@pytest.fixture
def trackio(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> Any:
    """The library with its data in a folder of the test; it reads the variable at import."""
    if "trackio" not in sys.modules:
        monkeypatch.setenv("TRACKIO_DIR", str(tmp_path_factory.mktemp("trackio")))
    for name in ("TRACKIO_SPACE_ID", "TRACKIO_SERVER_URL"):
        monkeypatch.delenv(name, raising=False)
    return pytest.importorskip("trackio", reason="the extra trackio is not installed")


@pytest.mark.filterwarnings("ignore")
def test_trackio_reads_what_was_sent(
    trackio: Any, expand: Expand, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    from trackio.sqlite_storage import SQLiteStorage

    project = f"of-{tmp_path.name}"
    told: list[str] = []
    tracker = Background(
        "trackio", find_tracker(f"trackio:{project}", "small"), told.append, patience=PATIENCE
    )
    first, second = follow_two(tracker, expand())
    assert not told
    runs = {run.name: run for run in trackio.Api().runs(project)}
    assert set(runs) == {title(first), title(second)}
    curves: Curves = {}
    for line in SQLiteStorage.get_logs(project, title(first)):
        for name in line.keys() & TOLD.keys():
            curves.setdefault(name, []).append((line["step"], line[name]))
    assert curves == TOLD
    assert runs[title(first)].config["decoder"]["name"] == first.decoder.name
    assert capsys.readouterr().out.count("Trackio project initialized") == 1


@pytest.mark.filterwarnings("ignore")
def test_wandb_keeps_what_was_sent(
    expand: Expand, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("wandb", reason="the extra wandb is not installed")
    monkeypatch.setenv("WANDB_MODE", "offline")
    monkeypatch.setenv("WANDB_DIR", str(tmp_path))
    told: list[str] = []
    tracker = Background(
        "wandb", find_tracker("wandb:team/project", "small"), told.append, patience=PATIENCE
    )
    runs = follow_two(tracker, expand())
    assert not told
    for run, well in zip(runs, (True, False), strict=True):
        (path,) = tmp_path.glob(f"wandb/offline-run-*-{run.id}/*.wandb")
        curves, ended = Curves(), None
        for entry in wandb_records(path):
            if entry.WhichOneof("record_type") == "run":
                assert (entry.run.run_id, entry.run.run_group) == (run.id, "small")
                assert (entry.run.entity, entry.run.project) == ("team", "project")
            for item in entry.history.item:
                name = item.key or item.nested_key[0]
                if name in TOLD:
                    value = json.loads(item.value_json)
                    curves.setdefault(name, []).append((entry.history.step.num, value))
            if entry.HasField("exit"):
                ended = entry.exit.exit_code == 0
        assert curves == (TOLD if well else {name: TOLD[name][:1] for name in curves})
        assert len(curves) == (4 if well else 3)
        assert ended is well


def wandb_records(path: Path) -> list[Any]:
    """What a run's file holds, once its service, a process of its own, has written the end.

    After 7 bytes it is LevelDB's log format; here one block is enough.
    """
    from wandb.proto import wandb_internal_pb2

    entries: list[Any] = []
    deadline = time.monotonic() + 20
    while not (entries and entries[-1].HasField("exit")) and time.monotonic() < deadline:
        time.sleep(0.05)
        content, place, entries = path.read_bytes(), 7, []
        assert len(content) < 2**15
        while place < len(content):
            start = place + 7  # of the entry: checksum, length, type
            place = start + int.from_bytes(content[place + 4 : place + 6], "little")
            if place <= len(content):
                entry = wandb_internal_pb2.Record()
                entry.ParseFromString(content[start:place])
                entries.append(entry)
    return entries


@pytest.mark.filterwarnings("ignore")
def test_wandb_without_an_account_is_one_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("wandb", reason="the extra wandb is not installed")
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("NETRC", str(tmp_path / "netrc"))
    for name in ("WANDB_MODE", "WANDB_API_KEY"):
        monkeypatch.delenv(name, raising=False)
    with pytest.raises(RequestError, match="nobody is logged in; `wandb login`"):
        find_tracker("wandb", "small")


@pytest.mark.filterwarnings("ignore")
def test_mlflow_reads_what_was_sent_and_a_run_goes_on_as_itself(
    expand: Expand, tmp_path: Path
) -> None:
    tracking = pytest.importorskip("mlflow.tracking", reason="the extra mlflow is not installed")
    pytest.importorskip("sqlalchemy")
    uri = f"sqlite:///{tmp_path / 'mlflow.db'}"
    rows, told = expand(), list[str]()
    interrupted = Background(
        "mlflow", find_tracker(f"mlflow:{uri}", "small"), told.append, patience=PATIENCE
    )
    interrupted.epoch(rows[0].runs[0], LINE)
    interrupted.close()
    tracker = Background(
        "mlflow", find_tracker(f"mlflow:{uri}", "small"), told.append, patience=PATIENCE
    )
    tracker.epoch(rows[0].runs[0], SECOND)
    tracker.finished(rows[0].runs[0], record_of(rows[0].runs[0]))
    tracker.finished(rows[1].runs[0], record_of(rows[1].runs[0], DIVERGED))
    tracker.close()
    assert not told
    client = tracking.MlflowClient(uri)
    experiment = client.get_experiment_by_name("small")
    runs = {run.info.run_name: run for run in client.search_runs([experiment.experiment_id])}
    first, second = (row.runs[0] for row in rows)
    assert set(runs) == {title(first), title(second)}
    done = runs[title(first)]
    assert (done.info.status, runs[title(second)].info.status) == ("FINISHED", "FAILED")
    history = {
        name: [(m.step, m.value) for m in client.get_metric_history(done.info.run_id, name)]
        for name in done.data.metrics
    }
    assert history == TOLD
    assert done.data.params["decoder.name"] == first.decoder.name
    assert done.data.params["training.lr"] == "0.001"


# -- the command ---------------------------------------------------------------------------------


def test_the_option_of_run(write_grid: Callable[..., Path], call: Call, tmp_path: Path) -> None:
    pytest.importorskip("tensorboard")
    code, _, _ = call(
        "run", write_grid(), "--results", tmp_path / "r", "--track", f"tensorboard:{tmp_path}/b",
        "--only", "decoder=optimal", "--jobs", 1,
    )  # fmt: skip
    assert code == 0
    (record,) = (tmp_path / "r" / "small" / "runs").glob("*/*/record.json")
    (folder,) = (tmp_path / "b" / "small").iterdir()
    assert folder.name.endswith(record.parent.name)
    curves = scalars(folder)
    history = map(json.loads, record.with_name("history.jsonl").read_text().splitlines())
    assert [value for _, value in curves["training/loss"]] == pytest.approx(
        [line["loss"] for line in history]
    )
    ((epoch, value),) = curves["test/neg_log_p"]
    assert epoch == 2
    assert value == pytest.approx(json.loads(record.read_text())["metrics"]["neg_log_p"])


@pytest.fixture
def installed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    """A package whose entry points add the trackers `chatty`, `picky` and `broken`."""
    module = ModuleType("a_tracker")

    class Chatty(Listener):
        def __init__(self, where: str, grid: str) -> None:
            self.where, self.grid = where, grid

        def epoch(self, run: Run, line: dict[str, float]) -> None:
            print("chatty is told of an epoch")

        def finished(self, run: Run, record: Record) -> None:
            raise ConnectionError("the display is down")

    def picky(where: str, grid: str) -> Listener:
        raise ValueError(f"no project {where}")

    module.Chatty, module.picky = Chatty, picky  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "a_tracker", module)
    about = tmp_path / "site" / "a_tracker-1.0.dist-info"
    about.mkdir(parents=True)
    (about / "METADATA").write_text("Metadata-Version: 2.1\nName: a-tracker\nVersion: 1.0\n")
    (about / "entry_points.txt").write_text(
        f"[{GROUP}]\nchatty = a_tracker:Chatty\npicky = a_tracker:picky\n"
        "broken = no_such_module:Tracker\n"
    )
    monkeypatch.syspath_prepend(tmp_path / "site")
    return module


@pytest.mark.usefixtures("installed")
def test_a_tracker_of_another_package_that_prints_and_fails_costs_nothing(
    write_grid: Callable[..., Path], call: Call, tmp_path: Path
) -> None:
    code, out, err = call(
        "run", write_grid(), "--results", tmp_path / "r", "--track", "chatty:there", "--json",
        "--only", "decoder=optimal",
    )  # fmt: skip
    assert code == 0
    assert len(json.loads(out)) == 1
    assert "chatty is told of an epoch" in err
    failures = [line for line in err.splitlines() if line.startswith("--track")]
    assert failures == [
        "--track chatty:there: ConnectionError: the display is down; the grid goes on without "
        "this tracker"
    ]


@pytest.mark.usefixtures("installed")
@pytest.mark.parametrize(
    ("asked", "told"),
    [
        ("tensorbord:x", "--track tensorbord: unknown tracker; did you mean 'tensorboard'?"),
        ("zzz", "possible: tensorboard, trackio, wandb, mlflow, chatty, picky, broken"),
        ("picky:x", "--track picky:x: ValueError: no project x"),
        ("broken", "--track broken: no_such_module:Tracker fails at import: ModuleNotFound"),
    ],
)
def test_a_tracker_that_cannot_be_had_is_one_line(
    asked: str, told: str, write_grid: Callable[..., Path], call: Call
) -> None:
    code, out, err = call("run", write_grid(), "--track", asked)
    assert (code, out) == (2, "")
    assert told in err
    assert len(err.splitlines()) == 1


@pytest.mark.parametrize("name", ["tensorboard", "trackio", "wandb", "mlflow"])
def test_a_missing_package_is_one_line(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for loaded in [one for one in sys.modules if one.partition(".")[0] == name]:
        monkeypatch.delitem(sys.modules, loaded)
    monkeypatch.setitem(sys.modules, name, None)
    with pytest.raises(RequestError, match=rf"--track {name}: .*sigma-vae-bench\[{name}\]"):
        find_tracker(f"{name}:{tmp_path}", "small")


def test_a_pilot_in_another_folder_writes_to_the_same_place(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    assert anywhere("tensorboard:board") == f"tensorboard:{tmp_path / 'board'}"
    assert anywhere("trackio") == "trackio"
