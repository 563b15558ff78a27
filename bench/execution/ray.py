"""The engine `ray`: agents as actors of a running Ray cluster.

Ray finds places, counts GPUs, follows an autoscaler and tells when a node has died. It retries
nothing: what becomes of a run is up to the scheduler.
"""

import contextlib
import logging
import math
import signal
import socket
import sys
from collections.abc import Iterator, Mapping
from typing import Any

import yaml

from bench.devices import DeviceClass
from bench.errors import RequestError, one_line
from bench.execution.cluster import Broken, Gone, Unreachable
from bench.execution.messages import Resources
from bench.execution.remote import Remote
from bench.execution.signals import SIGNALS
from bench.records.store import Store

OWN_ADDRESS = "node_ip_address"
"""The option that names this machine among the cluster's nodes; every other is an actor's."""

AMOUNTS = {"num_cpus": "CPU", "num_gpus": "GPU", "memory": "memory"}
"""An actor's options that are amounts of what a node has, and Ray's names for those."""


def launch(store: Store, resources: Resources) -> Remote:
    """The engine on the cluster at `resources.address`, or on that which this machine is part of.

    Raises:
        RequestError: Ray is not installed, there is no such cluster, or an option is unknown.
    """
    return Remote(RayCluster(resources), store, resources)


class RayCluster:
    """The nodes of a Ray cluster."""

    name = "ray"

    def __init__(self, resources: Resources) -> None:
        address = resources.address or "auto"
        if address.startswith("ray://"):
            raise RequestError(
                f"--engine ray:{address}: a client's connection ends with the laptop's; run the "
                "command on the cluster: ray job submit --address http://HEAD:8265 -- "
                "sigma-bench run GRID --engine ray"
            )
        try:
            import ray
        except ImportError:
            raise RequestError(
                '--engine ray: Ray is not installed; pip install "sigma-vae-bench[ray]"'
            ) from None
        self.ray: Any = ray
        options = {name: yaml.safe_load(value) for name, value in resources.options.items()}
        own_address = options.pop(OWN_ADDRESS, None)
        on_cuda = resources.devices[0] == DeviceClass.CUDA
        self.wanted = {
            "num_cpus": resources.threads,
            "num_gpus": 1 / resources.per_gpu if on_cuda else 0,
            **options,
            "max_restarts": 0,
            "max_task_retries": 0,
        }
        try:
            self.host: Any = ray.remote(_host()).options(**self.wanted)
        except (ValueError, TypeError) as error:
            raise RequestError(f"--engine-option: Ray takes no such option ({error})") from None
        try:
            _reach(address)
            # Ray prints a cluster's errors, and standard output may be JSON.
            self._printing = contextlib.redirect_stdout(sys.stderr)
            self._printing.__enter__()
            with _own_signals():
                ray.init(
                    address,
                    log_to_driver=False,
                    logging_level=logging.ERROR,
                    **({"_node_ip_address": own_address} if own_address else {}),
                )
        except (OSError, RuntimeError, ValueError) as error:
            raise RequestError(
                f"--engine ray: no cluster at '{address}' can be used ({one_line(error)}); "
                "`ray start --head` begins one on this machine"
            ) from None

    def place(self) -> "RayLink":
        return RayLink(self.ray, self.host.remote())

    def share(self, content: Any) -> Any:
        return self.ray.put(content)

    def places(self) -> int:
        return sum(self._room(node["Resources"]) for node in self.ray.nodes() if node["Alive"])

    def _room(self, has: Mapping[str, float]) -> int:
        needs: dict[str, float] = {
            **{theirs: self.wanted.get(ours, 0) for ours, theirs in AMOUNTS.items()},
            **self.wanted.get("resources", {}),
        }
        # A third of a GPU goes into one three times.
        rooms = [has.get(name, 0) / need + 1e-6 for name, need in needs.items() if need]
        return math.floor(min(rooms, default=0))

    def leaving(self) -> set[str]:
        # Not among Ray's public names: so far only its own serving library asks for this.
        from ray._private.state import state

        draining = state.get_draining_nodes()
        return {
            described(node["NodeManagerAddress"], node["NodeID"])
            for node in self.ray.nodes()
            if node["NodeID"] in draining
        }

    def close(self) -> None:
        self.ray.shutdown()
        self._printing.__exit__(None, None, None)


class RayLink:
    """The way to an agent inside an actor."""

    def __init__(self, ray: Any, actor: Any) -> None:
        self.ray, self.actor = ray, actor
        self.node = "without a place yet"

    def call(self, method: str, *arguments: Any) -> Any:
        try:
            node, fault, result = self.ray.get(self.actor.call.remote(method, *arguments))
        except self.ray.exceptions.ActorUnavailableError as error:
            raise Unreachable from error
        except self.ray.exceptions.RayError as error:
            raise Gone(str(error).partition("\n")[0]) from error
        self.node = described(*node)
        if fault:
            raise Broken(fault)
        return result

    def end(self) -> None:
        self.ray.kill(self.actor)


def described(address: str, identity: str) -> str:
    """A node in words."""
    return f"{address} ({identity[:8]})"


def _host() -> type:
    """The actor's class, which Ray sends to the nodes as code, since this is no module's name.

    A node without our packages, or with others, can so say what is wrong there.
    """

    class Host:
        def __init__(self) -> None:
            import ray

            context = ray.get_runtime_context()
            self.node = (ray.util.get_node_ip_address(), context.get_node_id())
            self.agent: Any = None

        def call(self, method: str, *arguments: Any) -> tuple[tuple[str, str], str, Any]:
            try:
                if self.agent is None:
                    from bench.execution.agent import Agent

                    self.agent = Agent()
                return self.node, "", getattr(self.agent, method)(*arguments)
            except Exception as error:
                return self.node, f"{type(error).__name__}: {error}", None

    return Host


def _reach(address: str) -> None:
    """Raise OSError or ValueError where no cluster listens at an address; Ray would try for long.

    Not among Ray's public names; its own command line resolves addresses so.
    """
    from ray._private.services import canonicalize_bootstrap_address_or_die

    host, _, port = canonicalize_bootstrap_address_or_die(address).rpartition(":")
    socket.create_connection((host.strip("[]"), int(port)), timeout=5).close()


@contextlib.contextmanager
def _own_signals() -> Iterator[None]:
    """A block after which this process's signals are handled as before: Ray takes SIGTERM."""
    former = {number: signal.getsignal(number) for number in SIGNALS}
    try:
        yield
    finally:
        for number, handler in former.items():
            signal.signal(number, handler)
