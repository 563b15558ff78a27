"""What a run costs on each engine: the same small runs, one after the other, by one worker."""

import contextlib
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from datetime import datetime
from importlib.util import find_spec
from pathlib import Path
from statistics import median

import yaml

from bench.devices import DeviceClass
from bench.errors import one_line
from bench.execution.code import TOP
from bench.execution.engine import find_engine
from bench.execution.processes import environment_with
from bench.execution.ray import OWN_ADDRESS
from bench.records.store import Record, Store
from bench.run import Run
from bench.speed.grids import Stamps, added_to, between, computing, executed, runs_of
from bench.speed.pairs import Finding, Pairs, spread
from bench.speed.setting import Setting
from bench.speed.workload import release

LOOPBACK = "127.0.0.2"
"""The address of Ray's node; Ray takes 127.0.0.1 for the interface's."""

OBJECTS = 80_000_000
"""Bytes of Ray's object store, which nothing here needs."""

LIMIT = 300
"""Seconds that Slurm has for the runs, its queue included."""


def engines(setting: Setting) -> Iterator[Finding]:
    """Row `engines`: Ray and Slurm against worker processes of this machine.

    Ray's cluster is one node of one processor, which is started here; Slurm's is whatever `sbatch`
    submits to.
    """
    yield _ray(setting)
    yield _slurm(setting)


def small_runs(setting: Setting) -> list[Run]:
    """Runs of one epoch, a quarter of the release's width, of which nothing slow is measured."""
    template = release(setting, 4).run(setting.precision, epochs=1)
    return runs_of(setting, template, setting.size.shared_images, setting.size.runs)


# -- Ray ---------------------------------------------------------------------------------------


def _ray(setting: Setting) -> Finding:
    name = "engine ray"
    runs = small_runs(setting)
    compares = f"seconds a run, {len(runs)} small equal runs, one worker: local process / Ray"
    if find_spec("ray") is None:
        note = 'left out: Ray is not installed; pip install "sigma-vae-bench[ray]"'
        return Finding(name, compares, note=note)
    with contextlib.ExitStack() as stack:
        try:
            address = stack.enter_context(ray_node())
        except Exception as error:  # Ray has no narrower one for a node that does not come up
            return Finding(name, compares, note=f"left out: {one_line(error)}")
        launch = find_engine(f"ray:{address}", [f"{OWN_ADDRESS}={LOOPBACK}"])
        kind = DeviceClass.CUDA if setting.on_cuda else DeviceClass.CPU
        first_local, local = executed(setting, runs, jobs=1)
        first_ray, ray = executed(setting, runs, 1, launch, [kind])
    added = {"local": tuple(added_to(local)), "ray": tuple(added_to(ray))}
    starts = {"local": _start(first_local, local), "ray": _start(first_ray, ray)}
    told = (f"{engine} {median(of):.3f} s {spread(of, '.3f')}" for engine, of in added.items())
    begun = (f"{engine} {seconds:.1f} s" for engine, seconds in starts.items())
    return Finding(
        name,
        compares,
        Pairs(tuple(between(local)), tuple(between(ray))),
        {
            **{f"seconds_per_run_{engine}": median(of) for engine, of in added.items()},
            **{f"seconds_before_the_first_{engine}": of for engine, of in starts.items()},
        },
        f"a run costs, beyond training and measuring, {', '.join(told)}; before the first "
        f"{', '.join(begun)}",
    )


def _start(begun: float, stamps: Stamps) -> float:
    """The seconds before the first run begins: a place, a worker's imports, the data."""
    time, record = stamps.records[0]
    return time - begun - computing(record)


@contextlib.contextmanager
def ray_node() -> Iterator[str]:
    """A Ray cluster of one node of one processor on this machine's loopback; its address."""
    from ray.cluster_utils import Cluster

    # Its processes inherit these: workers import this very code.
    path = os.pathsep.join(filter(None, [str(TOP), os.environ.get("PYTHONPATH")]))
    settings = {"PYTHONPATH": path, "RAY_USAGE_STATS_ENABLED": "0"}
    with environment_with(settings):
        cluster = Cluster(
            initialize_head=True,
            head_node_args={
                "num_cpus": 1,
                "node_ip_address": LOOPBACK,
                "include_dashboard": False,
                "object_store_memory": OBJECTS,
            },
        )
        try:
            yield cluster.address
        finally:
            cluster.shutdown()


# -- Slurm -------------------------------------------------------------------------------------


def _slurm(setting: Setting) -> Finding:
    name = "engine slurm"
    compares = f"{setting.size.runs} small equal runs by one pilot"
    if shutil.which("sbatch") is None:
        return Finding(name, compares, note="left out: sbatch is not on the path")
    with _here() as folder:
        grid = folder / "speed.yaml"
        grid.write_text(yaml.safe_dump(_as_grid(small_runs(setting))))
        words = ["run", str(grid), "--results", str(folder), "--engine", "slurm", "--jobs", "1"]
        words += ["--device", "cuda" if setting.on_cuda else "cpu"]
        try:
            done = subprocess.run(
                [sys.executable, "-P", "-m", "bench", *words],
                capture_output=True, text=True, check=False, timeout=LIMIT,
                env={**os.environ, "PYTHONPATH": str(TOP)},
            )  # fmt: skip
        except subprocess.TimeoutExpired:
            return Finding(name, compares, note=f"left out: not done after {LIMIT} s")
        if done.returncode:
            last = done.stderr.strip().splitlines()[-1:] or ["it said nothing"]
            return Finding(name, compares, note=f"left out: {last[0]}")
        per_run = _added_by_clock(list(Store(folder / "speed").records()))
    return Finding(
        name,
        compares,
        None,
        {"seconds_per_run": per_run},
        f"a run costs {per_run:.2f} s beyond training and measuring",
    )


@contextlib.contextmanager
def _here() -> Iterator[Path]:
    """A folder in the working folder, which nodes are likelier to see than a temporary one."""
    folder = Path.cwd() / f".sigma-bench-speed-{os.getpid()}"
    folder.mkdir()
    try:
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def _as_grid(runs: list[Run]) -> dict[str, object]:
    """The grid file whose runs these are."""
    one = runs[0]
    training = one.training.model_dump(exclude_defaults=True)
    return {
        "name": "speed",
        "datasets": [one.dataset],
        "models": [one.model.model_dump()],
        "decoders": [one.decoder.name],
        "seeds": [run.seed for run in runs],
        "training": training,
        "evaluation": {"samples": 0, "iwae": 0, "features": "none"},
    }


def _added_by_clock(records: list[Record]) -> float:
    """As `added_to`, the mean over runs, from the times of day in the records."""
    ends = sorted(datetime.fromisoformat(record["cost"]["finished"]) for record in records)
    elapsed = (ends[-1] - ends[0]).total_seconds()
    later = sorted(records, key=lambda record: str(record["cost"]["finished"]))[1:]
    return (elapsed - sum(map(computing, later))) / len(later)
