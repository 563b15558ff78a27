"""The commands `run` and `status`."""

import contextlib
import json
import shlex
import shutil
import sys
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any, NoReturn

import typer
from rich.console import Console

from bench import data
from bench.cli.options import (
    DONE,
    INTERRUPTED,
    SOME_FAILED,
    Device,
    Engine,
    GridName,
    Json,
    Only,
    Results,
    Set,
    app,
    fail,
    print_columns,
)
from bench.cli.pilots import check_precision, pilot_command, settings
from bench.devices import resolve_class, resolve_devices
from bench.errors import RequestError
from bench.execution import slurm
from bench.execution.engine import LAUNCHERS, devices_on, find_engine
from bench.execution.follow import follow, submit
from bench.execution.launcher import Fleet, tallies
from bench.execution.messages import Keep
from bench.execution.outcome import DISK_FULL, HELD, Outcome
from bench.execution.pilot import LIMIT, Alone, Pilot
from bench.execution.schedule import execute
from bench.execution.status import ALL, Line, survey
from bench.execution.trackers.find import tracking
from bench.grid.expand import Row, expand
from bench.grid.read import read_grid
from bench.grid.schema import Grid
from bench.records.labels import row_label, run_label
from bench.records.store import Store
from bench.records.validity import FAILED
from bench.run import Features, Run
from bench.text import counted, duration


@app.command(epilog="Example: sigma-bench run quick --only decoder=shared --set training.epochs=2")
def run(
    grid: GridName,
    results: Results = Path("results"),
    device: Device = "auto",
    jobs: Annotated[
        int | None,
        typer.Option("--jobs", min=1, help="Runs side by side [one a core on a CPU, one a GPU]."),
    ] = None,
    threads: Annotated[
        int,
        typer.Option("--threads", min=1, help="Threads of each run; they change the last bits."),
    ] = 1,
    per_gpu: Annotated[
        int, typer.Option("--per-gpu", min=1, metavar="K", help="Runs that share a GPU.")
    ] = 1,
    keep: Annotated[
        Keep, typer.Option("--keep", help="Of finished runs: weights too, or records alone.")
    ] = "weights",
    engine: Engine = "local",
    engine_option: Annotated[
        list[str],
        typer.Option("--engine-option", metavar="KEY=VALUE", help="A setting of the engine's own."),
    ] = [],  # noqa: B006
    checkpoint_every: Annotated[
        float | None,
        typer.Option(
            "--checkpoint-every",
            min=0,
            metavar="SECONDS",
            help="How often nodes that do not see --results send checkpoints [300].",
        ),
    ] = None,
    detach: Annotated[
        bool, typer.Option("--detach", help="Leave once the pilots are submitted (slurm).")
    ] = False,
    pilot: Annotated[
        bool, typer.Option("--pilot", help="This is one of many such commands on a batch system.")
    ] = False,
    set_: Set = [],  # noqa: B006
    only: Only = [],  # noqa: B006
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Show the runs; do nothing.")] = False,
    track: Annotated[
        list[str],
        typer.Option(
            "--track",
            metavar="NAME[:WHERE]",
            help="Copy curves there too: tensorboard:DIR, trackio, wandb, mlflow:URI, …",
        ),
    ] = [],  # noqa: B006
    as_json: Json = False,
) -> int:
    """Train and measure every run of a grid that has no record yet, then print its table."""
    chosen = _grid(grid, set_, results)
    launcher = LAUNCHERS.get(engine)
    if detach and launcher is None:
        raise RequestError(f"--detach: --engine {engine} has no pilots to leave; use slurm")
    launch = None if launcher else find_engine(engine, engine_option, checkpoint_every)
    # Nodes must agree on what `auto` means, so there it is a rule of the class of device.
    computes = resolve_class(device) if pilot else devices_on(engine, device)[0]
    devices = resolve_devices(computes) if pilot else devices_on(engine, device)
    if dry_run:
        _print_plan(_rows(chosen, computes, only), Store(results / chosen.name), as_json)
        return DONE
    store = Store.open(results, chosen.name)
    console = Console(stderr=True)
    trackers = tracking(track, chosen.name, console)
    features = _features(chosen, say=True)
    rows = expand(
        chosen,
        device=computes,
        features=features,
        fvd=_fvd(chosen),
        only=only,
        prepare=True,
    )
    if launcher is not None:
        kind, changes = resolve_class(device), settings(set_, chosen, computes, features)
        words = pilot_command(grid, results, kind, threads, per_gpu, keep, only, track)
        fleet = Fleet.found(launcher, store, engine_option, [*words, *changes], threads)
        if detach:
            way = shlex.join(["sigma-bench", "status", *words[1:4], *changes])
            print(f"{chosen.name}: {submit(rows, fleet, jobs)}; next: {way}")
            return DONE
        outcome = follow(rows, fleet, jobs, console)
    elif launch is not None:
        if pilot:
            check_precision(rows[0].runs[0], devices[0])
        manner = Pilot.ordered(store.folder, slurm.share()) if pilot else Alone()
        with contextlib.redirect_stdout(sys.stderr):  # a tracker's library may print
            outcome = execute(
                rows,
                store,
                chosen.name,
                devices,
                jobs,
                console,
                trackers,
                threads=threads,
                per_gpu=per_gpu,
                launch=launch,
                keep=keep,
                manner=manner,
            )
    if outcome.signal == LIMIT:
        slurm.requeue()
    if outcome.stopped == HELD:
        console.print(f"{chosen.name}: {outcome.summary()}; {HELD}", highlight=False)
        return DONE
    if outcome.stopped:
        _stopped(chosen, outcome, store)
    if not pilot:
        _print_table(store, chosen, outcome.records, as_json)
    table = f"sigma-bench report {grid}" + (
        f" --results {results}" if results != Path("results") else ""
    )
    again = "the same command tries the failed ones again; " if outcome.count(FAILED) else ""
    console.print(
        f"{chosen.name}: {outcome.summary()}; {again}next: {table}",
        markup=False,
        highlight=False,
        soft_wrap=True,
    )
    return DONE if outcome.well else SOME_FAILED


def _stopped(grid: Grid, outcome: Outcome, store: Store) -> NoReturn:
    full = outcome.stopped == DISK_FULL
    room = f"make room for {store.folder}, then " if full else ""
    fail(
        f"{outcome.stopped}; {grid.name}: {outcome.summary()}; {room}the same command goes on "
        "where it stopped",
        SOME_FAILED if full else INTERRUPTED,
    )


def _features(grid: Grid, *, say: bool = False) -> Features | None:
    """What the grid's `features` means on this machine; `say` tells what `auto` took."""
    from bench.evaluation.features.base import resolve

    asked = grid.evaluation.features
    found = resolve(asked) if grid.evaluation.samples else None
    if say and asked == "auto" and grid.evaluation.samples:
        if found is None:
            told = (
                "no feature network is here, so no Fréchet distance; "
                'pip install "sigma-vae-bench[embedded]" or `sigma-bench fetch inception`'
            )
        elif found.name == "inception":
            told = f"Inception's weights are here: distances are {found.metric}"
        else:
            told = f"Inception's weights are not here: distances are {found.metric}, not FID"
        print(f"features: {told}", file=sys.stderr)
    return found


def _fvd(grid: Grid) -> Features | None:
    """What the grid's `fvd` means on this machine."""
    from bench.evaluation.features.video import resolve_video

    return resolve_video(grid.evaluation.fvd) if grid.evaluation.fvd else None


def _rows(grid: Grid, device: str, only: Sequence[str]) -> list[Row]:
    return expand(grid, device=device, features=_features(grid), fvd=_fvd(grid), only=only)


def _print_table(store: Store, grid: Grid, wanted: Mapping[str, Any], as_json: bool) -> None:
    from bench.records.frame import load
    from bench.report import tables
    from bench.report.terminal import console

    if not wanted:  # a search that found nothing leaves no run to show
        return
    # The runs of this request alone: the folder may hold other settings of the same grid.
    table = tables.build(*load([store.folder], wanted), grid.name)
    if as_json:
        shown = table.frame.drop(columns="key")
        print(shown.to_json(orient="records", indent=1, double_precision=15))
    else:
        width = shutil.get_terminal_size((160, 24)).columns if sys.stdout.isatty() else 160
        print(console(table, width))


def _print_plan(rows: Sequence[Row], store: Store, as_json: bool) -> None:
    lines = survey(rows, store)
    if as_json:
        print(
            json.dumps(
                [
                    {
                        "id": line.run.id if line.run and line.run.content else None,
                        "kind": line.kind,
                        "state": line.state,
                        "seconds": line.seconds,
                        "row": row_label(line.row),
                        "run": line.run and line.run.model_dump(mode="json"),
                    }
                    for line in lines
                ],
                indent=1,
            )
        )
        return
    rows_shown = []
    for line in lines:
        run = line.run
        named = run is not None and run.content is not None
        label = run_label(run, (*line.row.lent, *line.row.knobs)) if run else row_label(line.row)
        rows_shown.append(
            (
                run.id if run and named else "-",
                label,
                str(run.seed) if run else "-",
                line.kind,
                line.state if named or line.state == "not chosen yet" else _missing(line.row),
                "-" if line.seconds is None else duration(line.seconds),
            )
        )
    print_columns(("run", "dataset · model · decoder", "seed", "kind", "state", "cost"), rows_shown)
    print(_progress_text(lines))
    if distances := _distances_text(rows):
        print(distances)


def _distances_text(rows: Sequence[Row]) -> str:
    """What the distances cost, which is most of measuring; empty where there are none."""
    measured = [row.runs[0].evaluation for row in rows if row.runs[0].evaluation.features]
    if not measured:
        return ""
    network = next(one.features.name for one in measured if one.features)
    images = max(one.compared for one in measured)
    return (
        f"distances: {network} takes features of up to {images:,} images a run, and once of the "
        "real images of each split"
    )


def _missing(row: Row) -> str:
    """What a run without an id waits for."""
    return "data to prepare" if data.available(row.runs[0].place) else "data to fetch"


def _progress_text(lines: Sequence[Line]) -> str:
    count = Counter(line.state for line in lines)
    seconds = _seconds_left(lines)
    if len(lines) == count["done"] + count["diverged"]:
        expected = "nothing left"
    elif seconds is None:
        expected = "time left unknown until such runs have finished"
    else:
        jobs = max(1, count["running"])
        with_jobs = "one job" if jobs == 1 else f"{jobs} jobs"
        expected = f"about {duration(seconds / jobs)} left with {with_jobs}"
    to_do = count["to do"] + count["not chosen yet"]
    return (
        f"{counted(len(lines), 'run')}: {count['done']} done, {count['running']} running, "
        f"{count['failed']} failed, {count['diverged']} diverged, {to_do} to do; {expected}"
    )


def _seconds_left(lines: Sequence[Line]) -> float | None:
    """Of computing, by one job; None while that of some run is unknown."""
    left = [line.left for line in lines]
    return None if None in left else sum(seconds for seconds in left if seconds is not None)


def _running(lines: Sequence[Line]) -> list[tuple[Line, Run]]:
    return [(line, line.run) for line in lines if line.run and line.state == "running"]


def _grid(name: str, changes: Sequence[str], results: Path) -> Grid:
    try:
        return read_grid(name, changes)
    except RequestError as error:
        # `report` takes the name of a folder of results; a run needs the file that is behind it.
        if Path(name).suffix or not (results / name).is_dir():
            raise
        raise RequestError(
            f"{error}; {results / name} has records, which `sigma-bench report {name}` shows, but "
            "`run` and `status` need the path of its grid file"
        ) from None


@app.command(epilog="Example: sigma-bench status quick")
def status(
    grid: GridName,
    results: Results = Path("results"),
    device: Device = "auto",
    engine: Engine = "local",
    set_: Set = [],  # noqa: B006
    only: Only = [],  # noqa: B006
    as_json: Json = False,
) -> int:
    """Say how far a grid has come: done, running, failed, diverged, to do; time left."""
    chosen = _grid(grid, set_, results)
    rows = _rows(chosen, devices_on(engine, device, to_compute=False)[0], only)
    lines = survey(rows, Store(results / chosen.name))
    count = Counter(line.state for line in lines)
    pilots = tallies(Store(results / chosen.name), LAUNCHERS.values())
    if as_json:
        told = {
            "grid": chosen.name,
            "runs": {state: count[state] for state in ALL},
            "seconds_left": _seconds_left(lines),
            "running": [
                {
                    "id": run.id,
                    "run": run_label(run),
                    "seed": run.seed,
                    f"{run.training.unit}_done": line.trained,
                    run.training.unit: run.training.length,
                }
                for line, run in _running(lines)
            ],
            "pilots": {
                name: {"queued": tally.queued, "running": tally.running}
                for name, tally in pilots.items()
            },
        }
        print(json.dumps(told))
        return DONE
    by_row: dict[int, Counter[str]] = {id(row): Counter() for row in rows}
    for line in lines:
        by_row[id(line.row)][line.state] += 1
    shown = []
    for row in rows:
        own = by_row[id(row)]
        to_do = own["to do"] + own["not chosen yet"]
        counts = [*(own[state] for state in ("done", "running", "failed", "diverged")), to_do]
        shown.append((row_label(row), *map(str, counts)))
    print_columns(
        ("dataset · model · decoder", "done", "running", "failed", "diverged", "to do"), shown
    )
    for line, run in _running(lines):
        done = f"{line.trained} of {run.training.length} {run.training.unit} done"
        print(f"running: {run_label(run)} seed {run.seed}: {done}")
    for name, tally in pilots.items():
        if tally.alive:
            print(f"{name}: pilots {tally}")
    print(f"{chosen.name}: {_progress_text(lines)}")
    return DONE
