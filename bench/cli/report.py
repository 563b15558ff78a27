"""The commands `report` and `compare`."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from bench.cli.options import DONE, SOME_FAILED, Json, app, print_columns, warn
from bench.errors import RequestError
from bench.grid.read import bundled_grids, read_grid
from bench.records.labels import JOINT

if TYPE_CHECKING:
    from bench.regression.gate import Comparisons
    from bench.regression.power import Detectable
    from bench.regression.results import ResultSet


@app.command(epilog="Example: sigma-bench report quick --results here --results copied/from/there")
def report(
    grid: Annotated[
        str | None,
        typer.Argument(
            metavar="[GRID]",
            help="A bundled grid's name, or a path; without it every grid that has records, and "
            "an index page that joins their reports.",
            autocompletion=lambda: list(bundled_grids()),
        ),
    ] = None,
    results: Annotated[
        list[Path],
        typer.Option("--results", help="Folder of records; several (of other machines) merge."),
    ] = [Path("results")],  # noqa: B006
    out: Annotated[Path, typer.Option("--out", help="Folder of reports.")] = Path("reports"),
    format_: Annotated[
        str, typer.Option("--format", help="Which to write; optuna: the searches as a journal.")
    ] = "html,markdown,latex,csv",
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
    caption: Annotated[
        str, typer.Option("--caption", metavar="full|short|none", help="Of the LaTeX tables.")
    ] = "full",
) -> int:
    """Write a grid's table, figures and pages from its records, finished or not."""
    from bench.report import pages, site

    named = [column for column in columns.split(",") if column]
    if grid is None:
        if named:
            raise RequestError("report --columns: name the GRID whose columns they are")
        joined = site.write(results, out, format_.split(","), run_pages, caption)
        for path in joined.paths:
            print(path)
        for complaint in (*joined.left_out, *joined.failed):
            warn(complaint)
        return SOME_FAILED if joined.failed else DONE
    name, chosen = grid, None
    # A folder of results may outlive its grid file: its name alone is enough.
    if grid in bundled_grids() or not any((folder / grid).is_dir() for folder in results):
        chosen = read_grid(grid)
        name = chosen.name
    written = pages.write(
        name,
        [folder / name for folder in results],
        out,
        format_.split(","),
        chosen.finals if chosen else None,
        grid=chosen,
        columns=named,
        run_pages=run_pages,
        caption=caption,
    )
    for path in written.paths:
        print(path)
    return DONE


@app.command(epilog="Example: sigma-bench compare results/reference/regression results/regression")
def compare(
    baseline: Annotated[Path, typer.Argument(metavar="BASELINE", help="A folder of results.")],
    candidate: Annotated[
        Path | None, typer.Argument(metavar="CANDIDATE", help="Another such folder.")
    ] = None,
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
    show_power: Annotated[
        bool,
        typer.Option("--power", help="Say how small a change of the baseline would be found."),
    ] = False,
    as_json: Json = False,
) -> int:
    """Say what is better, same, worse or not measured; exit 1 if anything is worse or missing."""
    from bench.regression.gate import ALPHA, parse_threshold
    from bench.regression.gate import compare as compared
    from bench.regression.power import power
    from bench.regression.results import read_results

    if candidate is None and not show_power:
        raise RequestError("compare: name the CANDIDATE's folder, or ask for --power alone")
    level = ALPHA if alpha is None else alpha
    chosen = dict(map(parse_threshold, threshold))
    sides = [read_results(path) for path in (baseline, candidate) if path is not None]
    told: dict[str, Any] = {}
    smallest: tuple[Detectable, ...] = ()
    if show_power:
        smallest = power(sides[0], alpha=level, thresholds=chosen, metrics=metric)
        told["power"] = [asdict(one) for one in smallest]
    if candidate is None:
        if as_json:
            print(json.dumps(told, indent=1))
        else:
            _print_power(smallest, level)
        return DONE
    gate = compared(*sides, alpha=level, thresholds=chosen, metrics=metric, across=across)
    if as_json:
        print(json.dumps({**gate.as_dict(), **told}, indent=1))
        return DONE if gate.passed else SOME_FAILED
    _print_gate(gate, sides)
    if show_power:
        _print_power(smallest, level)
    return DONE if gate.passed else SOME_FAILED


def _print_power(smallest: Sequence[Detectable], alpha: float) -> None:
    from bench.regression.power import POWER

    print_columns(
        ("dataset · model · decoder", "metric", "seeds", "baseline", "threshold", "is found"),
        [
            (
                JOINT.join((one.dataset, one.model, one.decoder)),
                one.metric,
                str(one.seeds),
                f"{one.mean:.6g}",
                f"{one.threshold:.2g}",
                "unknown" if one.change is None else f"{one.change:.4g}",
            )
            for one in smallest
        ],
    )
    print(
        f"is found: the smallest change that is called with probability {POWER:g} at level "
        f"{alpha:g}, if the baseline's seeds scatter anew (paired t, Holm's first step)"
    )


def _print_gate(gate: Comparisons, sides: Sequence[ResultSet]) -> None:
    print_columns(
        ("dataset · model · decoder", "metric", "baseline", "candidate", "change", "threshold",
         "p", "test", "verdict"),
        [
            (
                JOINT.join((one.dataset, one.model, one.decoder)),
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
