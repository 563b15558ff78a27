"""The trackers by name. A package adds its own by an entry point of `sigma_vae_bench.trackers`."""

from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path

from rich.console import Console

from bench.errors import RequestError, nearest, one_line
from bench.execution.added import added, imported
from bench.execution.listeners import Listener
from bench.execution.trackers.background import Background
from bench.execution.trackers.mlflow import MLflow
from bench.execution.trackers.tensorboard import TensorBoard
from bench.execution.trackers.wandb import Trackio, WandB
from bench.plugins import contained

GROUP = "sigma_vae_bench.trackers"

Make = Callable[[str, str], Listener]
"""Makes a tracker of where the numbers go (what follows `NAME:`) and the grid's name."""

BUNDLED: dict[str, Make] = {
    "tensorboard": TensorBoard,
    "trackio": Trackio,
    "wandb": WandB,
    "mlflow": MLflow,
}


def find_tracker(asked: str, grid: str) -> Listener:
    """The tracker that `--track NAME[:WHERE]` asks for.

    Raises:
        RequestError: there is no such tracker, its package is not here or cannot be imported, or it
            refuses what it is asked.
    """
    name, _, where = asked.partition(":")
    with contained():
        make = _named(name)
        try:
            return make(where, grid)
        except RequestError:
            raise
        except Exception as error:  # whatever a library raises that is asked too much
            raise RequestError(f"--track {asked}: {one_line(error)}") from error


def tracking(asked: Sequence[str], grid: str, console: Console) -> list[Listener]:
    """The trackers of a command, each in the background; what goes wrong is told on `console`.

    Raises:
        RequestError: as `find_tracker` does.
    """
    tell = partial(console.print, markup=False, highlight=False, soft_wrap=True)
    return [Background(one, find_tracker(one, grid), tell) for one in dict.fromkeys(asked)]


def anywhere(asked: str) -> str:
    """The same request for a process with another working folder.

    >>> anywhere("mlflow:http://host:5000"), anywhere("tensorboard:/shared/board")
    ('mlflow:http://host:5000', 'tensorboard:/shared/board')
    """
    name, _, where = asked.partition(":")
    return f"{name}:{Path(where).absolute()}" if name == "tensorboard" and where else asked


def _named(name: str) -> Make:
    if name in BUNDLED:
        return BUNDLED[name]
    points = added(GROUP)
    if name not in points:
        possible = [*BUNDLED, *points]
        raise RequestError(f"--track {name}: unknown tracker; {nearest(name, possible)}")
    make: Make = imported(points[name], f"--track {name}")
    return make
