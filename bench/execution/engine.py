"""The engines by name. Another one is a class with the interface `bench.execution.messages.Engine`.

A package adds its own by an entry point of the group `sigma_vae_bench.engines`.
"""

from collections.abc import Sequence
from dataclasses import replace

from bench import devices
from bench.errors import RequestError
from bench.execution import ray
from bench.execution.added import added, imported
from bench.execution.launcher import Launcher
from bench.execution.messages import Engine, Launch, Resources
from bench.execution.processes import Pool
from bench.execution.slurm import Slurm
from bench.records.store import Store

GROUP = "sigma_vae_bench.engines"

BUNDLED: dict[str, Launch] = {Pool.name: Pool, ray.RayCluster.name: ray.launch}

LAUNCHERS: dict[str, type[Launcher]] = {Slurm.name: Slurm}
"""Those that start pilots, which take their runs by themselves."""


def find_engine(
    asked: str, options: Sequence[str] = (), checkpoint_every: float | None = None
) -> Launch:
    """The engine that `--engine NAME[:ADDRESS]` asks for, with its `KEY=VALUE` options.

    Raises:
        RequestError: there is no such engine, its package cannot be imported, or it is `local`,
            which takes neither an address nor options.
    """
    name, _, address = asked.partition(":")
    launch = _named(name)
    settings = dict(_setting(option) for option in options)
    if launch is Pool:
        if address or settings:
            raise RequestError(f"--engine {asked}: it takes no address and no --engine-option")
        return launch

    def with_settings(store: Store, resources: Resources) -> Engine:
        every = resources.checkpoint_every if checkpoint_every is None else checkpoint_every
        return launch(
            store, replace(resources, address=address, options=settings, checkpoint_every=every)
        )

    return with_settings


def devices_on(engine: str, asked: str, *, to_compute: bool = True) -> tuple[str, ...]:
    """What `--device` means on an engine: devices of this machine, or a class of them elsewhere.

    Raises:
        RequestError: not a device name, or none of this machine where it is `to_compute`.
    """
    only_told = asked == "cuda" and not (to_compute or devices.cuda_capabilities())
    if engine == Pool.name and not only_told:
        return devices.resolve_devices(asked)
    return (devices.resolve_class(asked),)


def _setting(option: str) -> tuple[str, str]:
    key, equals, value = option.partition("=")
    if not (key and equals):
        raise RequestError(f"--engine-option {option}: expected KEY=VALUE")
    return key, value


def _named(name: str) -> Launch:
    if name in BUNDLED:
        return BUNDLED[name]
    points = added(GROUP)
    if name not in points:
        raise RequestError(
            f"--engine {name}: unknown; possible: {', '.join([*BUNDLED, *LAUNCHERS, *points])}"
        )
    launch: Launch = imported(points[name], f"--engine {name}")
    return launch
