"""The engine `slurm` on a cluster of two nodes: whatever happens, the numbers are those of `local`.

The servers run on loopback; the tests are skipped where they are not installed.
"""

import json
import re
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml

from bench.records.store import Record, Store
from tests.engines.slurm_cluster import MISSING, Cluster, until

pytestmark = pytest.mark.skipif(
    bool(MISSING), reason=f"Slurm is not installed: {', '.join(MISSING)} missing"
)

# The intervals are for a cluster of people, not of tests.
QUICK = """
from bench.execution import follow
follow.LOOK, follow.ASK = 0.3, 1.0
from bench.cli.app import main
main()
"""

LONG = {"decoders": ["optimal"], "training": {"epochs": 40, "batch": 10, "precision": "float32"}}
"""One run of some seven seconds."""

Write = Callable[..., Path]


@pytest.fixture(scope="module")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cluster]:
    made = Cluster(tmp_path_factory.mktemp("slurm"))
    try:
        made.start()
        yield made
    finally:
        made.stop()


@pytest.fixture
def nodes(cluster: Cluster) -> Iterator[Cluster]:
    """The cluster with both nodes idle, and nothing left on them afterwards."""
    cluster.ready()
    yield cluster
    if jobs := {name.partition("_")[0] for name, *_ in cluster.jobs()}:
        cluster.run("scancel", *jobs)


@pytest.fixture(scope="module")
def write(tmp_path_factory: pytest.TempPathFactory) -> Write:
    """Write a small grid; keywords replace its keys."""
    folder = tmp_path_factory.mktemp("grids")
    images = np.random.default_rng(0).integers(0, 256, (300, 28, 28), np.uint8)
    np.savez(folder / "noise.npz", images=images)

    def grid(name: str, **changes: object) -> Path:
        content = {
            "name": name,
            "datasets": [f"npz:{folder / 'noise.npz'}"],
            "models": [{"name": "conv_vae", "width": 2, "latent": 3}],
            "seeds": [0],
            "training": {"epochs": 2, "batch": 70, "precision": "float32"},
            "evaluation": {"samples": 0, "iwae": 2, "features": "none"},
            **changes,
        }
        path = folder / f"{name}.yaml"
        path.write_text(yaml.safe_dump(content))
        return path

    return grid


def listen() -> None:
    """Let no signal be ignored, as in a shell's background jobs and under nohup."""
    signal.signal(signal.SIGINT, signal.default_int_handler)
    signal.signal(signal.SIGHUP, signal.SIG_DFL)


def sigma_bench(cluster: Cluster, *words: object, engine: str = "slurm") -> "subprocess.Popen[str]":
    if words[0] == "run":
        words = (*words, "--device", "cpu", "--engine", engine)
    return subprocess.Popen(
        [sys.executable, "-c", QUICK, *map(str, words)],
        env=cluster.environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        preexec_fn=listen,
    )


def finish(process: "subprocess.Popen[str]", code: int = 0) -> tuple[str, str]:
    out, told = process.communicate(timeout=200)
    assert process.returncode == code, told
    assert "Traceback" not in told
    return out, told


@pytest.fixture(scope="module")
def undisturbed(
    write: Write, cluster: Cluster, tmp_path_factory: pytest.TempPathFactory
) -> dict[str, Record]:
    """The long run, computed by the engine `local`."""
    results = tmp_path_factory.mktemp("local")
    grid = write("long", **LONG)
    finish(sigma_bench(cluster, "run", grid, "--results", results, "--jobs", 1, engine="local"))
    return found(results / "long")


def found(grid: Path) -> dict[str, Record]:
    """The records but for what a clock decides, with the weights."""
    store = Store(grid)
    return {
        record["id"]: {
            **{k: v for k, v in record.items() if k not in ("cost", "checksum", "environment")},
            "weights": next((store.runs).rglob(f"{record['id']}/weights.safetensors")).read_bytes(),
        }
        for record in store.records()
    }


def logs(grid: Path) -> str:
    return "".join(path.read_text() for path in sorted(grid.glob("slurm/*.log")))


def trained(grid: Path) -> int:
    """The epochs that are done of the only run."""
    return sum(len(path.read_text().splitlines()) for path in grid.rglob("history.jsonl"))


def begin_long(
    cluster: Cluster, write: Write, results: Path, *words: object, jobs: int = 1
) -> "subprocess.Popen[str]":
    """The long run on Slurm, under way."""
    process = sigma_bench(
        cluster, "run", write("long", **LONG), "--results", results, "--jobs", jobs, *words
    )
    until(lambda: trained(results / "long") > 3 or process.poll() is not None, "a few epochs")
    return process


def test_two_pilots_give_the_records_of_one_machine(
    nodes: Cluster, write: Write, tmp_path: Path
) -> None:
    """A search is a chain, which the pilots follow together; seeds are shared."""
    tune = {"low": 0.001, "high": 10, "trials": 3}
    decoders = ["gaussian", "optimal", {"name": "beta", "beta": {"tune": tune}}]
    grid = write("small", decoders=decoders, seeds=[0, 1])
    local = sigma_bench(nodes, "run", grid, "--results", tmp_path / "a", engine="local")
    finish(local)
    out, told = finish(sigma_bench(nodes, "run", grid, "--results", tmp_path / "b", "--jobs", 2))
    assert "2 pilots submitted as slurm job" in told
    assert "6 runs done, 0 failed, 0 diverged, 0 left, 6 computed now and 3 trials" in told
    assert re.search(r"search .* chose \S+ after 3 trials", told)
    assert "optimal" in out
    assert found(tmp_path / "b" / "small") == found(tmp_path / "a" / "small")
    shared = [path.read_text() for path in tmp_path.glob("b/small/slurm/*.log")]
    assert len(shared) == 2
    assert sum(text.count("neg_log_p") for text in shared) == 9


def test_a_preempted_pilot_goes_on_from_its_checkpoint(
    nodes: Cluster, write: Write, tmp_path: Path, undisturbed: dict[str, Record]
) -> None:
    process = begin_long(nodes, write, tmp_path)
    (element,) = nodes.jobs()
    before = trained(tmp_path / "long")
    urgent = (
        "sbatch",
        "--partition=high",
        "--nodes=2",
        "--wrap=srun sleep 2",
        "--output=/dev/null",
    )
    nodes.run(*urgent)
    until(lambda: list(tmp_path.rglob("checkpoint.pt")), "a checkpoint")
    until(lambda: "interrupted; long" in logs(tmp_path / "long"), "the pilot's end")
    finish(process)
    assert before < 40
    assert [path.stem for path in tmp_path.rglob("*.log")] == [element[0]]
    assert found(tmp_path / "long") == undisturbed


def test_the_run_of_a_dead_node_goes_on_elsewhere(
    nodes: Cluster, write: Write, tmp_path: Path, undisturbed: dict[str, Record]
) -> None:
    process = begin_long(nodes, write, tmp_path)
    ((_, _, node),) = nodes.jobs()
    nodes.kill_node(node)
    done = trained(tmp_path / "long")
    until(lambda: trained(tmp_path / "long") != done, "the other node's work")
    finish(process)
    assert found(tmp_path / "long") == undisturbed


def test_a_pilot_queues_itself_again_before_its_time_limit(
    nodes: Cluster, write: Write, tmp_path: Path
) -> None:
    """Slurm tells it once in the minute's last half, and gives no second chance."""
    training = {"epochs": 2000, "batch": 10, "precision": "float32"}
    grid = write("endless", decoders=["optimal"], training=training)
    process = sigma_bench(
        nodes, "run", grid, "--results", tmp_path, "--jobs", 1,
        "--engine-option", "time=1", "--engine-option", "signal=B:USR1@5",
    )  # fmt: skip
    results = tmp_path / "endless"
    until(lambda: "interrupted; endless" in logs(results), "the signal", 150)
    done = trained(results)
    ((element, _, _),) = nodes.jobs()
    until(lambda: trained(results) > done, "the second life")
    assert nodes.jobs() == [(element, "RUNNING", "n1")] or nodes.jobs()[0][0] == element
    process.send_signal(signal.SIGINT)
    finish(process, 130)
    assert [path.stem for path in results.glob("slurm/*.log")] == [element]


def test_an_interruption_cancels_the_pilots_and_the_same_command_goes_on(
    nodes: Cluster, write: Write, tmp_path: Path, undisturbed: dict[str, Record]
) -> None:
    process = begin_long(nodes, write, tmp_path, jobs=2)
    process.send_signal(signal.SIGINT)
    _, told = finish(process, 130)
    assert "interrupted; long: 0 runs done, 0 failed, 0 diverged, 1 left" in told
    assert list(tmp_path.rglob("checkpoint.pt"))
    assert not nodes.jobs()
    finish(begin_long(nodes, write, tmp_path))
    assert found(tmp_path / "long") == undisturbed


def test_pilots_that_the_controller_forgot_are_submitted_again(
    nodes: Cluster, write: Write, tmp_path: Path, undisturbed: dict[str, Record]
) -> None:
    process = sigma_bench(nodes, "run", write("long", **LONG), "--results", tmp_path, "--jobs", 1)
    until(lambda: list(tmp_path.glob("long/slurm/*.json")), "the submission")
    until(nodes.jobs, "a job")
    nodes.kill_controller()
    nodes.start_controller()
    _, told = finish(process)
    assert "in place of pilots that are gone: 1 pilot submitted" in told
    assert found(tmp_path / "long") == undisturbed


def test_pilots_work_on_without_the_command_and_status_counts_them(
    nodes: Cluster, write: Write, tmp_path: Path
) -> None:
    grid = write("detached", decoders=["optimal"], seeds=[0, 1, 2, 3])
    command = ("run", grid, "--results", tmp_path, "--jobs", 3, "--detach")
    out, _ = finish(sigma_bench(nodes, *command))
    assert out.startswith("detached: 3 pilots submitted as slurm job")

    def status() -> dict[str, Any]:
        words = ("status", grid, "--results", tmp_path, "--device", "cpu", "--json")
        told: dict[str, Any] = json.loads(finish(sigma_bench(nodes, *words))[0])
        return told

    pilots = status()["pilots"]["slurm"]
    assert pilots["queued"] + pilots["running"] == 3
    assert pilots["queued"] >= 1  # there are two processors
    again, _ = finish(sigma_bench(nodes, *command))
    assert "no pilot is needed" in again
    until(lambda: status()["runs"]["done"] == 4, "the end of the grid")
    until(lambda: not nodes.jobs(), "the pilots' end")
    assert status()["pilots"]["slurm"] == {"queued": 0, "running": 0}


def test_a_lost_connection_leaves_the_pilots_at_work(
    nodes: Cluster, write: Write, tmp_path: Path
) -> None:
    process = begin_long(nodes, write, tmp_path)
    process.send_signal(signal.SIGHUP)
    finish(process, 130)
    ((_, state, _),) = nodes.jobs()
    assert state == "RUNNING"
    done = trained(tmp_path / "long")
    until(lambda: trained(tmp_path / "long") > done, "more epochs")
    finish(begin_long(nodes, write, tmp_path))  # follows the same pilot
    assert len(list(tmp_path.rglob("*.log"))) == 1


def test_pilots_that_cannot_work_end_the_command_with_one_line(
    nodes: Cluster, write: Write, tmp_path: Path
) -> None:
    grid = write("small", decoders=["gaussian"])
    command = ("run", grid, "--results", tmp_path, "--jobs", 2, "--engine-option")
    _, told = finish(sigma_bench(nodes, *command, "partition=none"), 2)
    assert told.count("\n") == 1
    assert "--engine slurm: sbatch: error: invalid partition specified: none" in told
    nowhere = "export=ALL,SIGMA_BENCH_CACHE=/dev/null/cache"
    _, told = finish(sigma_bench(nodes, *command, nowhere), 2)
    last = told.splitlines()[-1]
    assert last.startswith("sigma-bench: --engine slurm: 1 submission ended without an epoch; ")
    assert "/dev/null/cache" in last
