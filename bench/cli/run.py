"""The command `run`."""

import contextlib
import shlex
import shutil
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, NoReturn

import typer
from rich.console import Console

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
)
from bench.cli.pilots import check_precision, pilot_command, settings
from bench.cli.plan import print_plan
from bench.cli.request import features_of, fvd_of, grid_of, rows_of
from bench.devices import resolve_class, resolve_devices
from bench.errors import RequestError
from bench.execution import slurm
from bench.execution.engine import LAUNCHERS, devices_on, find_engine
from bench.execution.follow import follow, submit
from bench.execution.launcher import Fleet
from bench.execution.messages import Keep
from bench.execution.outcome import DISK_FULL, HELD, Outcome
from bench.execution.pilot import LIMIT, Alone, Pilot
from bench.execution.schedule import execute
from bench.execution.trackers.find import tracking
from bench.grid.expand import expand
from bench.grid.schema import Grid
from bench.records.store import Store
from bench.records.validity import FAILED


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
    chosen = grid_of(grid, set_, results)
    launcher = LAUNCHERS.get(engine)
    if detach and launcher is None:
        raise RequestError(f"--detach: --engine {engine} has no pilots to leave; use slurm")
    launch = None if launcher else find_engine(engine, engine_option, checkpoint_every)
    # Nodes must agree on what `auto` means, so there it is a rule of the class of device.
    computes = resolve_class(device) if pilot else devices_on(engine, device)[0]
    devices = resolve_devices(computes) if pilot else devices_on(engine, device)
    if dry_run:
        print_plan(rows_of(chosen, computes, only), Store(results / chosen.name), as_json)
        return DONE
    store = Store.open(results, chosen.name)
    console = Console(stderr=True)
    trackers = tracking(track, chosen.name, console)
    features = features_of(chosen, say=True)
    rows = expand(
        chosen,
        device=computes,
        features=features,
        fvd=fvd_of(chosen),
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
