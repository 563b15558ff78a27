"""The engines by name. Another one is a class with the interface `bench.execution.messages.Engine`.

An engine whose workers take their runs by themselves is a subclass of `Launcher` instead. A package
adds its own by an entry point of the group `sigma_vae_bench.engines`.
"""

from collections.abc import Sequence
from importlib import metadata

from typing_extensions import TypeIs

from bench.errors import RequestError, one_line
from bench.execution.launcher import Launcher
from bench.execution.messages import Launch
from bench.execution.processes import Pool
from bench.execution.slurm import Slurm

GROUP = "sigma_vae_bench.engines"

LAUNCHERS: tuple[type[Launcher], ...] = (Slurm,)

BUNDLED: dict[str, Launch | type[Launcher]] = {
    Pool.name: Pool,
    **{launcher.name: launcher for launcher in LAUNCHERS},
}


def find_engine(name: str) -> Launch | type[Launcher]:
    """The engine that `--engine NAME` asks for.

    Raises:
        RequestError: there is no such engine, or its package cannot be imported.
    """
    if name in BUNDLED:
        return BUNDLED[name]
    added = {point.name: point for point in metadata.entry_points(group=GROUP)}
    if name not in added:
        raise RequestError(f"--engine {name}: unknown; possible: {', '.join([*BUNDLED, *added])}")
    try:
        launch: Launch | type[Launcher] = added[name].load()
    except Exception as error:  # whatever an import may raise
        raise RequestError(
            f"--engine {name}: {added[name].value} fails at import: {one_line(error)}"
        ) from error
    return launch


def is_launcher(engine: Launch | type[Launcher]) -> TypeIs[type[Launcher]]:
    """Whether an engine only starts pilots, which take their runs by themselves."""
    return isinstance(engine, type) and issubclass(engine, Launcher)


def engine_options(words: Sequence[str]) -> dict[str, str]:
    """The values of `--engine-option KEY=VALUE`; a KEY alone has an empty value."""
    return {key: value for key, _, value in (word.partition("=") for word in words)}
