"""The engines by name. Another one is a class with the interface `bench.execution.messages.Engine`.

A package adds its own by an entry point of the group `sigma_vae_bench.engines`.
"""

from importlib import metadata

from bench.errors import RequestError, one_line
from bench.execution.launcher import Launcher
from bench.execution.messages import Launch
from bench.execution.processes import Pool
from bench.execution.slurm import Slurm

GROUP = "sigma_vae_bench.engines"

BUNDLED: dict[str, Launch] = {Pool.name: Pool}

LAUNCHERS: dict[str, type[Launcher]] = {Slurm.name: Slurm}
"""Those that start pilots, which take their runs by themselves."""


def find_engine(name: str) -> Launch:
    """The engine that `--engine NAME` asks for.

    Raises:
        RequestError: there is no such engine, or its package cannot be imported.
    """
    if name in BUNDLED:
        return BUNDLED[name]
    added = {point.name: point for point in metadata.entry_points(group=GROUP)}
    if name not in added:
        raise RequestError(
            f"--engine {name}: unknown; possible: {', '.join([*BUNDLED, *LAUNCHERS, *added])}"
        )
    try:
        launch: Launch = added[name].load()
    except Exception as error:  # whatever an import may raise
        raise RequestError(
            f"--engine {name}: {added[name].value} fails at import: {one_line(error)}"
        ) from error
    return launch
