"""Registrations: what a decorator keeps in the module that it was used in."""

import sys
from collections.abc import Collection
from typing import Any, NamedTuple

from baselines.declarations import DeclarationError


class Registration(NamedTuple):
    """What a decorator registers under a name; `place` is its file and line.

    >>> Registration("decoder", "laplace", "mine.py:7", None).place
    'mine.py:7'
    """

    kind: str
    name: str
    place: str
    content: Any


_REGISTERED = "__sigma_vae_bench__"


def registrations(module: object) -> tuple[Registration, ...]:
    """What the decorators in a module registered, in their order.

    >>> registrations(sys)
    ()
    """
    return tuple(vars(module).get(_REGISTERED, ()))


def register(kind: str, name: str, owner: Any, content: Any, bundled: Collection[str]) -> None:
    """Keep `content` in the module of `owner`; the caller of the caller is the decorated line.

    Raises:
        DeclarationError: a name that is no identifier, is bundled, or is registered there already.

    >>> register("decoder", "mse", Registration, None, ["mse"])
    Traceback (most recent call last):
    baselines.declarations.DeclarationError: 'mse' is a bundled decoder; choose another name
    """
    module = sys.modules[owner.__module__]
    if not (isinstance(name, str) and name.isidentifier()):
        raise DeclarationError(f"{kind} {name!r}: a name is letters, digits and _")
    if name in bundled:
        raise DeclarationError(f"'{name}' is a bundled {kind}; choose another name")
    file = getattr(module, "__file__", None)
    others = registrations(module)
    for other in others:
        # A cell of a notebook runs again: the later registration replaces the earlier one.
        if (other.kind, other.name) == (kind, name) and file is not None:
            raise DeclarationError(
                f"{kind} '{name}' is registered at {other.place} too; rename one"
            )
    place = f"{file or module.__name__}:{sys._getframe(2).f_lineno}"
    kept = [other for other in others if (other.kind, other.name) != (kind, name)]
    setattr(module, _REGISTERED, [*kept, Registration(kind, name, place, content)])
