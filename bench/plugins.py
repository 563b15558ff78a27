"""Decoders, models, balances and data of the user's own: a Python file, or a package's module.

A plugin registers with `decoder`, `model` and `balance` of `baselines.options` and with `dataset`
of this module. What it registers is kept in the plugin's own module, and this process knows it from
`load` or `discover` until `forget`. No torch in here: a plugin imports what it needs.
"""

import atexit
import contextlib
import hashlib
import importlib
import inspect
import os
import sys
import traceback
from collections.abc import Callable, Iterable, Iterator, Mapping
from functools import partial
from importlib import metadata
from pathlib import Path
from types import ModuleType
from typing import Any, NamedTuple, TypeVar

import numpy as np

from baselines.declarations import DeclarationError
from baselines.options import BALANCES, DECODERS, MODELS
from baselines.registration import Registration, register, registrations
from bench.data import sources
from bench.data.catalog import PUBLISHED
from bench.data.fingerprint import Parts
from bench.data.images import Images
from bench.data.user_files import AXES, parts_of
from bench.errors import RequestError, one_line

GROUP = "sigma_vae_bench.plugins"
"""The group of the entry points whose modules are plugins."""

Make = Callable[[], Images | tuple[Images, Images]]
F = TypeVar("F", bound=Make)


class Plugin(NamedTuple):
    """A source of registrations, such that another process finds the same again.

    `path` is its file, or empty for a module of an installed package.
    """

    module: str
    path: str
    sha256: str


_loaded: dict[Plugin, tuple[Registration, ...]] = {}


# -- registering -------------------------------------------------------------------------------


def dataset(name: str) -> Callable[[F], F]:
    """Register a function that returns images or videos under a name for `datasets` in a grid.

    It returns `images`, uint8 (N, H, W, C), or `(images, test_images)`, as an npz file holds them;
    or videos, (N, T, H, W, C).
    It is called once: what it returned is kept in the cache until the plugin changes.
    """

    def apply(function: F) -> F:
        register("dataset", name, function, function, PUBLISHED)
        return function

    return apply


# -- loading -----------------------------------------------------------------------------------


def load(path: Path) -> None:
    """Register what a file declares, in addition to what is registered already.

    A file that changed since it was last loaded is a new plugin.

    Raises:
        RequestError: there is no such file, it cannot be imported, it registers nothing, or a name
            that is taken; with the file and the line.
    """
    _execute(*_read(path))


def discover() -> None:
    """Register what installed packages declare, in addition to what is registered already.

    Raises:
        RequestError: one of them cannot be imported, or registers nothing, or a taken name.
    """
    for module in dict.fromkeys(point.module for point in metadata.entry_points(group=GROUP)):
        _add(_installed(module))


def loaded() -> tuple[Plugin, ...]:
    """The plugins that this process has."""
    return tuple(_loaded)


def behind(sources: Iterable[str]) -> list[str]:
    """The file, or the package, of each plugin whose sha256 is among `sources`."""
    wanted = set(sources)
    return [plugin.path or plugin.module for plugin in _loaded if plugin.sha256 in wanted]


def restore(plugins: Iterable[Plugin], contents: Mapping[Plugin, bytes] | None = None) -> None:
    """Have the plugins that another process of the same grid has.

    `contents` has what files held there, for a process that may not see them.

    Raises:
        RequestError: a source is not what it was there.
    """
    known = contents or {}
    for plugin in plugins:
        if plugin not in _loaded:
            _execute(plugin, known[plugin] if plugin in known else content_of(plugin))


def content_of(plugin: Plugin) -> bytes:
    """What the file of a plugin holds; empty for a module of an installed package.

    Raises:
        RequestError: the source is no longer what was loaded, or cannot be read.
    """
    found, held = _read(Path(plugin.path)) if plugin.path else (_installed(plugin.module), b"")
    if found != plugin:
        raise RequestError(
            f"plugin {plugin.path or plugin.module} changed while the grid ran; start it again"
        )
    return held


def forget() -> None:
    """Have no plugins; the specs and runs that were made with some stay what they are."""
    for plugin in list(_loaded):
        for registration in _loaded.pop(plugin):
            del _registry(registration.kind)[registration.name]


def _read(path: Path) -> tuple[Plugin, bytes]:
    place = os.path.abspath(path)
    try:
        if Path(place).is_fifo():  # whose reader would wait
            raise RequestError(f"plugin {place} is a pipe; give a file")
        content = Path(place).read_bytes()
    except OSError as error:
        raise RequestError(f"plugin {place} cannot be read: {error.strerror}") from None
    except ValueError:  # a surrogate or a NUL
        raise RequestError(f"plugin {place!r}: no path has such characters") from None
    digest = hashlib.sha256(content).hexdigest()
    # Named by place and content: a file that was edited is another module.
    name = hashlib.sha256(os.fsencode(f"{place}\0{digest}")).hexdigest()[:16]
    return Plugin(f"sigma_vae_bench_plugin_{name}", place, digest), content


def _execute(plugin: Plugin, content: bytes) -> None:
    """Import what was read, not what the file may hold by now, and add what it registers."""
    if plugin.module not in sys.modules:
        module = ModuleType(plugin.module)
        module.__file__ = plugin.path
        sys.modules[plugin.module] = module
        try:
            with contained():
                exec(compile(content, plugin.path, "exec"), vars(module))
        except BaseException as error:
            del sys.modules[plugin.module]
            if isinstance(error, (Exception, SystemExit)):
                raise RequestError(told(error, plugin.path)) from error
            raise
    _add(plugin)


@contextlib.contextmanager
def contained() -> Iterator[None]:
    """A block in which a user's own code runs: standard output and the working folder are ours.

    What it prints goes to standard error, also what a library or a child process writes below
    Python: standard output may be JSON. The paths of a request start from where it was made.
    """
    try:
        before = os.getcwd()
    except FileNotFoundError:  # removed meanwhile
        before = ""
    try:
        with _output_to_error(), contextlib.redirect_stdout(sys.stderr):
            yield
    finally:
        if before:
            os.chdir(before)


@contextlib.contextmanager
def _output_to_error() -> Iterator[None]:
    """Standard output as the system knows it, descriptor 1, leads to standard error."""
    ours = sys.__stdout__
    if ours is not None:
        ours.flush()
    try:
        kept = os.dup(1)
        os.dup2(2, 1)
    except OSError:  # one of them is closed
        yield
        return
    try:
        yield
    finally:
        with contextlib.suppress(OSError):
            if ours is not None:
                ours.flush()
        os.dup2(kept, 1)
        os.close(kept)


def _installed(name: str) -> Plugin:
    """An installed module as a plugin; of a package, every Python file is the source."""
    try:
        with contained():
            file = Path(inspect.getfile(importlib.import_module(name)))
    except (Exception, SystemExit) as error:
        raise RequestError(
            f"plugin {name}, an installed package, fails at import: {one_line(error)}"
        ) from error
    digest = hashlib.sha256()
    for path in sorted(file.parent.rglob("*.py")) if file.name == "__init__.py" else [file]:
        digest.update(hashlib.sha256(path.read_bytes()).digest())
    return Plugin(name, "", digest.hexdigest())


def _add(plugin: Plugin) -> None:
    """Enter what the plugin's module, or those below it, registered."""
    if plugin in _loaded:
        return
    found = [
        registration
        for name, module in list(sys.modules.items())
        if f"{name}.".startswith(f"{plugin.module}.")
        for registration in registrations(module)
    ]
    if not found:
        raise RequestError(
            f"{plugin.path or plugin.module}:1: registers nothing; decorate with `decoder`, "
            "`model` or `balance` of baselines.options, or with `dataset` of bench.plugins"
        )
    others = {(entry.kind, entry.name): entry for kept in _loaded.values() for entry in kept}
    for entry in found:
        if other := others.get(entry[:2]):
            raise RequestError(
                f"{entry.place}: {entry.kind} '{entry.name}' is registered at {other.place} too; "
                "rename one"
            )
    for kind, name, place, content in found:
        if kind == "dataset":
            content = sources.Registered(partial(_make, content, name, place), plugin.sha256)
        else:
            content.source = plugin.sha256
        _registry(kind)[name] = content
    _loaded[plugin] = tuple(found)
    # At exit it is called before whatever the plugin has registered to be called then.
    atexit.register(setattr, sys, "stdout", sys.stderr)


def _registry(kind: str) -> dict[str, Any]:
    registries: dict[str, Any] = {
        "decoder": DECODERS,
        "model": MODELS,
        "balance": BALANCES,
        "dataset": sources.REGISTERED,
    }
    result: dict[str, Any] = registries[kind]
    return result


def _make(make: Make, name: str, place: str, resolution: int | None) -> Parts:
    """Call a dataset's function and check what it returns as an npz file's content is."""
    try:
        with contained():
            made = make()
    except (Exception, SystemExit) as error:
        raise RequestError(told(error, place.rpartition(":")[0])) from error
    arrays = made if isinstance(made, tuple) else (made,)
    if not (0 < len(arrays) < 3 and all(isinstance(array, np.ndarray) for array in arrays)):
        raise RequestError(
            f"{place}: dataset '{name}' must return `images` or `(images, test_images)`, uint8 "
            f"arrays (N, H, W, C) or, of videos, (N, T, H, W, C), not {type(made).__name__}"
        )
    kind = next((kind for kind, axes in AXES.items() if arrays[0].ndim == len(axes)), "images")
    named = dict(zip((kind, f"test_{kind}"), arrays, strict=False))
    return parts_of(f"{place}: dataset '{name}'", named, resolution)


def told(error: BaseException, path: str) -> str:
    """What went wrong, on one line that begins with the plugin's line that it came from."""
    passed = traceback.extract_tb(error.__traceback__)
    line = next((frame.lineno for frame in reversed(passed) if frame.filename == path), 1)
    words = one_line(error)
    if isinstance(error, RequestError | DeclarationError):
        words = str(error)
    elif isinstance(error, SyntaxError) and error.filename == path:
        line, words = error.lineno or 1, f"not Python: {error.msg}"
    return f"{path}:{line}: {' '.join(words.split())}"
