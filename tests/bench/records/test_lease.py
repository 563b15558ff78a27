"""A run's folder has one owner: alive, dead, asleep, or on another host."""

import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from bench.errors import RequestError
from bench.grid.expand import Row
from bench.records.lease import EXPIRY, LEASE
from bench.records.store import Store
from bench.run import Run

ROOT = Path(__file__).resolve().parents[3]

HOLD = """
import json, sys
from pathlib import Path
from bench.records.store import Store
from bench.run import Run
run = Run.read(json.loads(sys.argv[2]))
with Store(Path(sys.argv[1]), float(sys.argv[3])).claim(run) as claim:
    print("nothing" if claim is None else "held", flush=True)
    for _ in sys.stdin:
        print(claim.lost(), flush=True)
"""

RACE = """
import json, os, sys
from pathlib import Path
from bench.records.store import Store
from bench.run import Run
run, store = Run.read(json.loads(sys.argv[2])), Store(Path(sys.argv[1]))
held = 0
while held < 200:
    with store.claim(run) as claim:
        if claim is not None:
            os.close(os.open(claim.folder / "inside", os.O_CREAT | os.O_EXCL))
            os.unlink(claim.folder / "inside")
            held += 1
"""

Begin = Callable[..., "subprocess.Popen[str]"]


@pytest.fixture
def run(expand: Callable[..., list[Row]]) -> Run:
    return expand()[0].runs[0]


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return Store.open(tmp_path, "small")


@pytest.fixture
def begin(run: Run, store: Store) -> Iterator[Begin]:
    """A process of its own that runs one of the scripts above; whatever is left of it is killed."""
    begun = []

    def script(text: str, expiry: float = EXPIRY) -> "subprocess.Popen[str]":
        words = [sys.executable, "-c", text, str(store.folder), run.model_dump_json()]
        process = subprocess.Popen(
            [*words, str(expiry)],
            cwd=ROOT,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        begun.append(process)
        return process

    yield script
    for process in begun:
        process.kill()
        process.communicate()


@pytest.fixture
def hold(begin: Begin) -> Begin:
    """A process that has the run's folder."""

    def holding(expiry: float = EXPIRY) -> "subprocess.Popen[str]":
        process = begin(HOLD, expiry)
        assert said(process) == "held"
        return process

    return holding


def said(process: "subprocess.Popen[str]") -> str:
    assert process.stdout is not None
    return process.stdout.readline().strip()


def ask_lost(process: "subprocess.Popen[str]") -> str:
    assert process.stdin is not None
    process.stdin.write("\n")
    process.stdin.flush()
    return said(process)


def kill(process: "subprocess.Popen[str]") -> None:
    process.kill()
    process.wait()


def edit(lease: Path, key: str, value: object) -> None:
    """Change what the lease says of its owner, in place, as the owner has it open."""
    text = re.sub(rf"(?m)^{key}=.*$", f"{key}={value}", lease.read_text())
    with lease.open("r+") as file:
        file.write(text)
        file.truncate()


def seconds_until_claimed(store: Store, run: Run) -> float:
    start = time.monotonic()
    while True:
        with store.claim(run) as claim:
            if claim is not None:
                return time.monotonic() - start
        time.sleep(0.02)


def test_a_killed_owner_is_followed_at_once(store: Store, run: Run, hold: Begin) -> None:
    owner = hold()
    with store.claim(run) as claim:
        assert claim is None
    kill(owner)
    with store.claim(run) as claim:
        assert claim is not None
        assert claim.folder == store.run_folder(run)
        assert not claim.lost()
    assert list(store.run_folder(run).iterdir()) == []


def test_the_process_id_of_a_dead_owner_may_be_another_process_now(
    store: Store, run: Run, hold: Begin
) -> None:
    owner = hold()
    kill(owner)
    edit(store.run_folder(run) / LEASE, "pid", os.getpid())
    with store.claim(run) as claim:
        assert claim is not None


def test_a_dead_owner_on_another_host_is_followed_once_its_claim_has_expired(
    store: Store, run: Run, hold: Begin
) -> None:
    owner = hold(expiry=1.0)
    kill(owner)
    edit(store.run_folder(run) / LEASE, "host", "elsewhere")
    assert seconds_until_claimed(Store(store.folder, expiry=1.0), run) >= 1.0


def test_a_living_owner_on_another_host_keeps_its_claim(
    store: Store, run: Run, hold: Begin
) -> None:
    owner = hold(expiry=2.0)
    edit(store.run_folder(run) / LEASE, "host", "elsewhere")
    late = Store(store.folder, expiry=2.0)
    end = time.monotonic() + 2.5
    while time.monotonic() < end:
        with late.claim(run) as claim:
            assert claim is None
        time.sleep(0.05)
    assert ask_lost(owner) == "False"


def test_an_owner_that_slept_too_long_knows_that_it_lost(
    store: Store, run: Run, hold: Begin
) -> None:
    owner = hold(expiry=1.0)
    assert ask_lost(owner) == "False"
    owner.send_signal(signal.SIGSTOP)
    assert seconds_until_claimed(Store(store.folder, expiry=1.0), run) >= 1.0
    late = Store(store.folder, expiry=1.0)
    with late.claim(run) as claim:
        assert claim is not None
        owner.send_signal(signal.SIGCONT)
        assert ask_lost(owner) == "True"
        assert not claim.lost()
        # Its end takes nothing from its successor.
        owner.communicate()
        assert not claim.lost()
        assert (claim.folder / LEASE).exists()


def test_of_two_that_race_never_both_are_inside(store: Store, run: Run, begin: Begin) -> None:
    racers = [begin(RACE) for _ in range(2)]
    assert [racer.wait() for racer in racers] == [0, 0]
    assert list(store.run_folder(run).iterdir()) == []


def test_a_lease_that_is_torn_holds_nobody_for_ever(
    store: Store, expand: Callable[..., list[Row]]
) -> None:
    runs = expand(seeds=[0, 1, 2], decoders=["optimal"])[0].runs
    for run, content in zip(runs, (b"", b"filelock/2\npid=", b"\xff" * 40), strict=True):
        store.run_folder(run).mkdir(parents=True)
        (store.run_folder(run) / LEASE).write_bytes(content)
        with store.claim(run) as claim:
            assert claim is None
    for run in runs:
        seconds_until_claimed(store, run)
    # The lock of a former version, which the system drops with its owner, means nothing.
    (store.run_folder(runs[0]) / ".lock").touch()
    with store.claim(runs[0]) as claim:
        assert claim is not None


def test_two_versions_that_disagree_do_not_share_a_run(store: Store, run: Run, hold: Begin) -> None:
    hold(expiry=20.0)
    with (
        pytest.raises(RequestError, match=r"of another version .* delete the file"),
        store.claim(run),
    ):
        pass


def test_a_claim_is_seen_without_being_taken(store: Store, run: Run, hold: Begin) -> None:
    assert not store.held(run)
    owner = hold()
    assert store.held(run)
    assert ask_lost(owner) == "False"
    kill(owner)
    long_ago = time.time() - 2 * EXPIRY
    os.utime(store.run_folder(run) / LEASE, (long_ago, long_ago))
    assert not store.held(run)


@pytest.mark.parametrize("shift", [-3600.0, 3600.0])
def test_a_host_with_a_wrong_clock_sees_who_is_at_work(
    store: Store, run: Run, hold: Begin, monkeypatch: pytest.MonkeyPatch, shift: float
) -> None:
    """Heartbeats are dated by the file system, so its clock counts and not this host's."""
    owner = hold()
    actual = time.time
    monkeypatch.setattr(time, "time", lambda: actual() + shift)
    assert store.held(run)
    kill(owner)
    long_ago = actual() - 2 * EXPIRY
    os.utime(store.run_folder(run) / LEASE, (long_ago, long_ago))
    assert not store.held(run)
    assert [path.name for path in store.run_folder(run).iterdir()] == [LEASE]
