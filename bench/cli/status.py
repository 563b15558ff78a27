"""The command `status`."""

import json
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

from bench.cli.options import (
    DONE,
    Device,
    Engine,
    GridName,
    Json,
    Only,
    Results,
    Set,
    app,
    print_columns,
)
from bench.cli.progress import progress_text, seconds_left
from bench.cli.request import grid_of, rows_of
from bench.execution.engine import LAUNCHERS, devices_on
from bench.execution.launcher import tallies
from bench.execution.status import ALL, Line, survey
from bench.records.labels import row_label, run_label
from bench.records.store import Store
from bench.run import Run


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
    chosen = grid_of(grid, set_, results)
    rows = rows_of(chosen, devices_on(engine, device, to_compute=False)[0], only)
    lines = survey(rows, Store(results / chosen.name))
    count = Counter(line.state for line in lines)
    pilots = tallies(Store(results / chosen.name), LAUNCHERS.values())
    if as_json:
        told = {
            "grid": chosen.name,
            "runs": {state: count[state] for state in ALL},
            "seconds_left": seconds_left(lines),
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
    print(f"{chosen.name}: {progress_text(lines)}")
    return DONE


def _running(lines: Sequence[Line]) -> list[tuple[Line, Run]]:
    return [(line, line.run) for line in lines if line.run and line.state == "running"]
