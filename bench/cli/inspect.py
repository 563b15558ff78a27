"""The commands `list`, `doctor`, `fetch` and `speed`."""

import json
import sys
from pathlib import Path
from typing import Annotated, Any

import typer

from baselines.options import BALANCES, DECODERS, MODELS
from bench import data, plugins
from bench.catalogue import METRICS
from bench.cli.options import DONE, SOME_FAILED, Device, Json, app, print_columns
from bench.data.download import console_progress
from bench.data.images import CHOICES
from bench.devices import resolve_device
from bench.doctor import examine
from bench.errors import RequestError, nearest
from bench.evaluation.features.base import NETWORKS
from bench.grid.read import bundled_grids, read_grid


@app.command("list", epilog="Example: sigma-bench list decoders")
def list_(
    what: Annotated[
        str, typer.Argument(metavar="grids|datasets|models|decoders|balances|metrics|extractors")
    ],
    plugin: Annotated[
        list[Path], typer.Option("--plugin", help="Also what this Python file registers.")
    ] = [],  # noqa: B006
    as_json: Json = False,
) -> int:
    """List what there is to choose from, with options and their defaults."""
    lists = {
        "grids": _list_grids,
        "datasets": _list_datasets,
        "models": lambda: _list_specs(MODELS),
        "decoders": lambda: _list_specs(DECODERS),
        "balances": lambda: _list_specs(BALANCES),
        "metrics": _list_metrics,
        "extractors": _list_extractors,
    }
    if what not in lists:
        raise RequestError(f"list {what}: {nearest(what, list(lists))}")
    if what in ("datasets", "models", "decoders", "balances"):
        for path in plugin:
            plugins.load(path)
        plugins.discover()
    entries = lists[what]()
    if as_json:
        print(json.dumps(entries, indent=1))
        return DONE
    print_columns(list(entries[0]), [tuple(map(str, entry.values())) for entry in entries])
    return DONE


def _list_grids() -> list[dict[str, Any]]:
    return [{"grid": name, "description": read_grid(name).description} for name in bundled_grids()]


def _list_datasets() -> list[dict[str, Any]]:
    entries = []
    for name in data.names():
        known = data.describe(name)
        sizes = (
            (f"{known.frames} frames of " if known.frames > 1 else "")
            + f"{known.channels}x{known.resolution}x{known.resolution}, "
            f"{known.train}/{known.validation}/{known.test} train/validation/test"
            if known
            else "known once it is here"
        )
        here = "here" if data.available(name) else data.remedy(name)
        entries.append({"dataset": name, "images": sizes, "where": here})
    own = "uint8 `images` (N, H, W, C) or `videos` (N, T, H, W, C), optional `test_...`"
    entries.append({"dataset": "npz:PATH", "images": own, "where": "your own"})
    entries.append({"dataset": "folder:PATH", "images": "a folder of images", "where": "your own"})
    clips = "a folder of clips, each a folder of its frames"
    entries.append({"dataset": "clips:PATH", "images": clips, "where": "your own"})
    hub = "of the Hugging Face Hub or a folder of `datasets`, a column of images"
    entries.append({"dataset": "hf:NAME[#COLUMN]", "images": hub, "where": "your own"})
    entries.append({"dataset": "NAME[:N]", "images": "cut down to N of them", "where": "-"})
    entries.append({"dataset": "NAME@R", "images": f"resized to R = {CHOICES}", "where": "-"})
    binary = "grey ones made black and white, once or (to train on) at each epoch"
    entries.append({"dataset": "NAME@static, NAME@resampled", "images": binary, "where": "-"})
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
    return [
        {"metric": m.name, "better": m.better or "-", "units": str(m.units), "meaning": m.meaning}
        for m in METRICS
    ]


def _list_extractors() -> list[dict[str, Any]]:
    entries = []
    for network in NETWORKS:
        metric, where = network.metric_name, "your own"
        if network.automatic or network.fetchable:
            try:
                found = network.find(network.name)
            except RequestError as error:
                where = str(error)
            else:
                metric, where = found.metric if found else metric, "here"
        words = " | ".join(network.words)
        entries.append({"extractor": words, "metric": metric, "where": where})
    return entries


@app.command(epilog="Example: sigma-bench doctor")
def doctor(as_json: Json = False) -> int:
    """Check devices, precision, data, feature weights and versions: what works, what to do."""
    findings = examine()
    if as_json:
        print(json.dumps([finding._asdict() for finding in findings], indent=1))
    else:
        print_columns(
            ("", "what", "found", "what to do"),
            [(f.verdict, f.what, f.found, f.remedy) for f in findings],
        )
    return SOME_FAILED if any(finding.verdict == "broken" for finding in findings) else DONE


@app.command(epilog="Example: sigma-bench fetch mnist inception")
def fetch(
    names: Annotated[
        list[str],
        typer.Argument(metavar="NAME...", help="Data, hf:NAME too, or a feature network."),
    ],
) -> int:
    """Download data or feature weights ahead of time, checked; a second call repairs a first."""
    networks = {network.name: network for network in NETWORKS if network.fetchable}
    known = [*data.names(), *networks]
    for name in names:
        if name not in known and not name.startswith("hf:"):
            raise RequestError(f"fetch {name}: unknown; {nearest(name, known)}")
    for name in names:
        with console_progress() as progress:
            if name in networks:
                print(f"{name}: {networks[name].fetch(progress)}")
            else:
                if name in data.fetchable():
                    data.fetch(name, progress)
                found = data.prepare(name)
                items = f"{found.train} training {found.noun}s"
                print(f"{name}: {items}, content {found.content[:16]}")
    return DONE


@app.command(epilog="Example: sigma-bench speed --only training --only arithmetic")
def speed(
    only: Annotated[
        list[str],
        typer.Option(
            "--only",
            metavar="ROW",
            help="Measure this row: training, models, arithmetic, distance, features, evaluation, "
            "overhead, engines, two-jobs.",
        ),
    ] = [],  # noqa: B006
    device: Device = "auto",
    repeats: Annotated[
        int, typer.Option("--repeats", min=1, help="Pairs of measurements behind each ratio.")
    ] = 3,
    as_json: Json = False,
) -> int:
    """Time this harness against the usual way, in pairs: training, measuring, a grid."""
    from bench.speed import table

    resolved = resolve_device(device)
    measured = table.measure(only, resolved, repeats, lambda line: print(line, file=sys.stderr))
    if as_json:
        print(json.dumps(measured.as_dict(), indent=1))
        return DONE
    print_columns(
        ("what", "baseline", "ours", "ratio (lowest..highest, pairs)", "baseline / ours"),
        measured.cells(),
    )
    for line in measured.notes():
        print(line)
    where = measured.environment
    versions = ", ".join(f"{name} {version}" for name, version in where["versions"].items())
    print(f"{where['device']}, {where['precision']}, Python {where['python']}, {versions}")
    return DONE
