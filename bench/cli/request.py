"""The grid that a command is about, and what it asks for on this machine."""

import sys
from collections.abc import Sequence
from pathlib import Path

from bench.errors import RequestError
from bench.grid.expand import Row, expand
from bench.grid.read import read_grid
from bench.grid.schema import Grid
from bench.run import Features


def grid_of(name: str, changes: Sequence[str], results: Path) -> Grid:
    """The grid of a name or path, with the `changes` of `--set`.

    Raises:
        RequestError: there is none, or it is wrong; with a hint where `results` has its records.
    """
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


def features_of(grid: Grid, *, say: bool = False) -> Features | None:
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


def fvd_of(grid: Grid) -> Features | None:
    """What the grid's `fvd` means on this machine."""
    from bench.evaluation.features.video import resolve_video

    return resolve_video(grid.evaluation.fvd) if grid.evaluation.fvd else None


def rows_of(grid: Grid, device: str, only: Sequence[str]) -> list[Row]:
    """The rows of a grid on a device, of which nothing is prepared."""
    return expand(grid, device=device, features=features_of(grid), fvd=fvd_of(grid), only=only)
