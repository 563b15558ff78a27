"""What an engine of several machines must provide: places for agents, and calls to them."""

from typing import Any, Protocol


class Unreachable(Exception):
    """A call got no answer; the agent may live, and may have received it."""


class Gone(Exception):
    """An agent is dead, for the reason given in words."""


class Broken(Exception):
    """A method of an agent raised, for the reason given in words."""


class Link(Protocol):
    """The way to one agent, which has a share of a machine to itself."""

    @property
    def node(self) -> str:
        """The agent's machine, in words; known once a call was answered."""

    def call(self, method: str, *arguments: Any) -> Any:
        """What this method of the `Agent` returns; the first call waits until there is a place.

        Arguments and results are strings, numbers, bytes, None, arrays, and lists, tuples and
        dictionaries of them. A call may be repeated, so it need not arrive exactly once.

        Raises:
            Unreachable: it got no answer.
            Gone: the agent is dead, or `end` was called.
            Broken: the method raised.
        """

    def end(self) -> None:
        """Kill the agent and give its place back; calls that wait then raise `Gone`."""


class Cluster(Protocol):
    """Machines that agents can be placed on."""

    name: str
    """The word for it in `--engine`."""

    def place(self) -> Link:
        """Ask for one more place, which may take any time; returns at once."""

    def share(self, content: Any) -> Any:
        """What to pass in a call in place of `content`, which many agents are sent."""

    def places(self) -> int:
        """How many agents the machines that are here now have room for."""

    def leaving(self) -> set[str]:
        """The nodes that will be taken away soon, as `Link.node` names them."""

    def close(self) -> None:
        """Leave the cluster."""
