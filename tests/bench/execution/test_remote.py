"""Grids on agents that share no folder with this process, over pipes that lose what is sent."""

import io
import json
import os
import random
import signal
import threading
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console

from bench import plugins
from bench.devices import DeviceClass
from bench.errors import RequestError
from bench.execution import delegate, remote
from bench.execution.listeners import Listener
from bench.execution.messages import Launch
from bench.execution.outcome import Outcome
from bench.execution.schedule import execute
from bench.grid.expand import Row
from bench.records.store import Store
from bench.run import HISTORY, Run
from tests.loopback import HERE, Fate, Loopback
from tests.undisturbed import Left, Undisturbed, left

Expand = Callable[..., list[Row]]

TRAINING = {"epochs": 3, "batch": 20, "precision": "float32"}


@pytest.fixture(autouse=True)
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(delegate, "PAUSE", 0.01)


@pytest.fixture(autouse=True)
def own_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """This process's working folder, which the agents do not see under the same name."""
    folder = tmp_path / "own"
    folder.mkdir()
    monkeypatch.chdir(folder)
    return folder


def go(
    rows: list[Row],
    launch: Launch,
    listeners: Sequence[Listener] = (),
    **settings: Any,
) -> tuple[Outcome, str]:
    text = io.StringIO()
    store, console = Store.open(HERE / "results", "small"), Console(file=text, width=400)
    jobs = settings.pop("jobs", None)
    outcome = execute(
        rows, store, "small", [DeviceClass.CPU], jobs, console, listeners, launch=launch, **settings
    )
    return outcome, text.getvalue()


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory: pytest.TempPathFactory) -> Undisturbed:
    return Undisturbed(tmp_path_factory.mktemp("undisturbed"))


def written(rows: list[Row]) -> Left:
    """What a grid has left in this process's folder of results, which no agent sees."""
    store = Store(HERE / "results" / "small")
    found = left(rows, store)
    assert {record["id"] for record in store.records()} == set(found)
    return found


def test_agents_without_a_common_folder_give_the_same_files(
    expand: Expand, tmp_path: Path, undisturbed: Undisturbed
) -> None:
    rows = expand(seeds=[0, 1])
    told_of: list[Run] = []

    class Reader(Listener):
        def epoch(self, run: Run, line: dict[str, float]) -> None:
            """The line is where `status` looks for it, though the agent writes elsewhere."""
            history = Store(HERE / "results" / "small").run_folder(run) / HISTORY
            assert json.dumps(line) in history.read_text().splitlines()
            told_of.append(run)

    outcome, _ = go(rows, Loopback(tmp_path, 2).launch, listeners=[Reader()])
    assert outcome.well
    assert outcome.new == len(set(told_of)) == 4
    assert written(rows) == undisturbed(rows)
    assert {path.name for path in Path("results/small").iterdir()} == {"runs", "trained"}
    # The agents' machines have the images by their content, since they cannot see the user's file.
    kept = list(tmp_path.glob("machine*/cache/data/*.npy"))
    assert {path.stem for path in kept} == {f"content-{rows[0].runs[0].content}"}
    assert 1 <= len(kept) <= 2


@pytest.mark.parametrize("seed", range(3))
def test_calls_that_are_lost_doubled_late_and_overtaken_change_nothing(
    seed: int, expand: Expand, tmp_path: Path, undisturbed: Undisturbed
) -> None:
    rows = expand(training=TRAINING)
    loopback = Loopback(tmp_path, 2, lambda number: Fate(random.Random(10 * seed + number)))
    loopback.checkpoint_every = 0
    outcome, _ = go(rows, loopback.launch)
    assert outcome.well
    assert outcome.new == 2
    assert written(rows) == undisturbed(rows)


def test_an_agent_that_dies_at_any_step_costs_nothing_but_time(
    expand: Expand, tmp_path: Path, undisturbed: Undisturbed
) -> None:
    """The n-th agent dies at its n-th call, before and after it has done what it was asked."""
    rows = expand(training=TRAINING)
    steps = 8

    def fate(number: int) -> Fate:
        return Fate(ends=number // 2, after=number % 2 == 1) if number < 2 * steps else Fate()

    loopback = Loopback(tmp_path, 1, fate, checkpoint_every=0)
    outcome, told = go(rows, loopback.launch)
    assert outcome.well, told
    assert outcome.new == 2
    # How many calls the two runs take depends on their speed.
    assert len(loopback.placed) > steps // 2
    assert "its worker was taken away" in told
    assert written(rows) == undisturbed(rows)


def test_a_killed_worker_goes_on_from_the_checkpoint_that_came_back(
    expand: Expand, tmp_path: Path, undisturbed: Undisturbed
) -> None:
    rows = expand(decoders=["gaussian"], training={**TRAINING, "epochs": 4})
    killed: list[float] = []

    class Killer(Listener):
        def epoch(self, run: Run, line: dict[str, float]) -> None:
            if not killed:
                killed.append(line["epoch"])
                (agent,) = loopback.placed
                listed = Path(f"/proc/{agent.process.pid}/task/{agent.process.pid}/children")
                for child in listed.read_text().split():
                    os.kill(int(child), signal.SIGKILL)

    loopback = Loopback(tmp_path, 1)
    outcome, told = go(rows, loopback.launch, listeners=[Killer()])
    assert killed
    assert outcome.well
    assert told.count("ended by signal 9") <= 1
    assert written(rows) == undisturbed(rows)


def test_a_drained_node_gives_its_checkpoint_back_and_is_not_used_again(
    expand: Expand, tmp_path: Path, undisturbed: Undisturbed
) -> None:
    rows = expand(decoders=["gaussian"], training={**TRAINING, "epochs": 30})
    loopback = Loopback(tmp_path, 1)
    epochs: list[float] = []

    class Drain(Listener):
        def epoch(self, run: Run, line: dict[str, float]) -> None:
            epochs.append(line["epoch"])
            if not loopback.gone:
                loopback.gone.add(str(tmp_path / "machine0"))
                loopback.count = 2

    outcome, told = go(rows, loopback.launch, listeners=[Drain()])
    assert outcome.well
    assert told.count("its worker was taken away") == 1
    assert "machine0 is being taken away" in told
    assert epochs == [float(number) for number in range(30)]
    assert written(rows) == undisturbed(rows)


def test_an_interrupted_grid_has_its_checkpoints_and_goes_on_from_them(
    expand: Expand, tmp_path: Path, undisturbed: Undisturbed
) -> None:
    rows = expand(training={**TRAINING, "epochs": 30})
    seen: dict[str, int] = {}
    interrupted: list[Run] = []

    class Interrupt(Listener):
        def epoch(self, run: Run, line: dict[str, float]) -> None:
            seen[run.id] = int(line["epoch"])
            if len(seen) == 2 and not interrupted:
                interrupted.append(run)
                signal.raise_signal(signal.SIGINT)

    outcome, _ = go(rows, Loopback(tmp_path, 2).launch, listeners=[Interrupt()])
    assert outcome.stopped == "interrupted"
    assert outcome.left == 2
    assert len(list(Path("results/small/runs").glob("*/*/checkpoint.pt"))) == 2
    before = dict(seen)
    begun: dict[str, int] = {}

    class Resumed(Listener):
        def epoch(self, run: Run, line: dict[str, float]) -> None:
            begun.setdefault(run.id, int(line["epoch"]))

    outcome, _ = go(rows, Loopback(tmp_path, 2).launch, listeners=[Resumed()])
    assert outcome.well
    assert all(begun[identity] > before[identity] for identity in before)
    assert written(rows) == undisturbed(rows)


def test_runs_of_equal_training_take_the_weights_along(
    expand: Expand, tmp_path: Path, undisturbed: Undisturbed
) -> None:
    rows = expand(decoders=["gaussian"])
    (run,) = rows[0].runs
    other = run.model_copy(update={"evaluation": run.evaluation.model_copy(update={"iwae": 3})})
    more = [*rows, Row((other,))]
    go(rows, Loopback(tmp_path, 1).launch)
    go(more, Loopback(tmp_path, 1).launch)
    assert written(more) == undisturbed(more)
    assert written(more)[other.id]["protocol"]["training"] == {"weights_of": run.id}


def test_the_number_of_threads_goes_with_the_place(
    expand: Expand, tmp_path: Path, undisturbed: Undisturbed
) -> None:
    rows = expand(decoders=["gaussian"])
    go(rows, Loopback(tmp_path, 1).launch, threads=2)
    (record,) = written(rows).values()
    assert record["environment"]["threads"] == 2
    assert record["protocol"]["training"] == {"threads": 2}


def test_an_agent_that_sees_the_folder_writes_there(
    expand: Expand, tmp_path: Path, undisturbed: Undisturbed
) -> None:
    rows = expand()
    text = io.StringIO()
    store = Store.open(tmp_path / "common", "small")
    outcome = execute(
        rows, store, "small", [DeviceClass.CPU], None, Console(file=text),
        launch=Loopback(tmp_path, 2).launch,
    )  # fmt: skip
    assert outcome.well
    assert left(rows, store) == undisturbed(rows)
    assert {path.name for path in store.folder.iterdir()} == {"runs", "trained"}


def test_a_plugin_travels_as_it_was_read(
    expand: Expand, tmp_path: Path, undisturbed: Undisturbed
) -> None:
    source = (
        "from baselines.decoders.gaussian import UnitGaussian\n"
        "from baselines.options import decoder\n"
        "@decoder('mine')\n"
        "class Mine(UnitGaussian):\n"
        '    """Another name."""\n'
    )
    Path("mine.py").write_text(source)
    place = HERE / "mine.py"
    rows = expand(plugins=[str(place)], decoders=["mine"])
    assert [plugin.path for plugin in plugins.loaded()] == [str(place)]
    outcome, told = go(rows, Loopback(tmp_path, 1).launch)
    assert outcome.well, told
    assert written(rows) == undisturbed(rows)
    (record,) = written(rows).values()
    assert record["run"]["decoder"]["name"] == "mine"


class Elsewhere(Loopback):
    """Machines that say something else about themselves than they are."""

    said: dict[str, Any] = {}  # noqa: RUF012

    def place(self) -> Any:
        pipe, real = super().place(), None
        real = pipe.call
        first = len(self.placed) == 1

        def call(method: str, *arguments: Any) -> Any:
            answer = real(method, *arguments)
            return {**answer, **self.said} if method == "hello" and first else answer

        pipe.call = call  # type: ignore[method-assign]
        return pipe


def test_other_code_is_refused_and_the_other_nodes_go_on(
    expand: Expand, tmp_path: Path, undisturbed: Undisturbed
) -> None:
    cluster = Elsewhere(tmp_path, 2)
    cluster.said = {"code": "0" * 64}
    rows = expand()
    outcome, told = go(rows, cluster.launch)
    assert outcome.well
    assert told.count("is not used: its code is not that of this machine") == 1
    assert written(rows) == undisturbed(rows)


@pytest.mark.parametrize("said", [{"code": "0" * 64}, {"schema": 1}])
def test_no_node_that_can_be_used_is_a_wrong_request(
    said: dict[str, Any], expand: Expand, tmp_path: Path, undisturbed: Undisturbed
) -> None:
    cluster = Elsewhere(tmp_path, 1)
    cluster.said = said
    with pytest.raises(RequestError, match="no node can be used: its code is not that of this"):
        go(expand(), cluster.launch)


def test_places_that_vanish_leave_no_node_that_can_be_used(
    expand: Expand, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The first agent is refused while a second place is expected, which then is gone."""
    monkeypatch.setattr(remote, "WATCH", 0.1)
    cluster = Elsewhere(tmp_path, 1)
    cluster.said = {"code": "0" * 64}
    counts = iter([2, 2, 2])
    cluster.places = lambda: next(counts, 1)  # type: ignore[method-assign]
    cluster.fates = lambda number: Fate(pauses=3600) if number else Fate()
    with pytest.raises(RequestError, match="no node can be used: its code is not that of this"):
        go(expand(), cluster.launch)


def test_another_version_is_a_line_and_no_refusal(
    expand: Expand, tmp_path: Path, undisturbed: Undisturbed
) -> None:
    cluster = Elsewhere(tmp_path, 1)
    cluster.said = {"versions": {"Python": "3.11.0", "torch": "2.6.0+cu124", "numpy": "1.26.0"}}
    outcome, told = go(expand(decoders=["gaussian"]), cluster.launch)
    assert outcome.well
    assert told.count("agents have torch 2.6.0+cu124, here ") == 1


def test_agents_that_cannot_start_are_given_up(
    expand: Expand, tmp_path: Path, undisturbed: Undisturbed
) -> None:
    cluster = Loopback(tmp_path, 1, lambda number: Fate(ends=0))
    with pytest.raises(RequestError, match="no agent can start: its process ended"):
        go(expand(), cluster.launch)
    assert len(cluster.placed) == 3


def test_nothing_is_left_running(expand: Expand, tmp_path: Path, undisturbed: Undisturbed) -> None:
    loopback = Loopback(tmp_path, 2)
    go(expand(), loopback.launch)
    assert not any(link.process.is_alive() for link in loopback.placed)
    assert threading.active_count() < 3 + len(loopback.placed)
