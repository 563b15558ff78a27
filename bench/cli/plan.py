"""What `run --dry-run` shows: every run of a grid, its state and its cost."""

import json
from collections.abc import Sequence

from bench import data
from bench.cli.options import print_columns
from bench.cli.progress import progress_text
from bench.execution.status import survey
from bench.grid.expand import Row
from bench.records.labels import row_label, run_label
from bench.records.store import Store
from bench.text import duration


def print_plan(rows: Sequence[Row], store: Store, as_json: bool) -> None:
    """Print the runs of the rows, as a table or as JSON."""
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
    print(progress_text(lines))
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
        "real images of each split and of as many training images"
    )


def _missing(row: Row) -> str:
    """What a run without an id waits for."""
    return "data to prepare" if data.available(row.runs[0].place) else "data to fetch"
