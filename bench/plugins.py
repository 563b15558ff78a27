"""Decoders, models and datasets of the user's own: a Python file, or a module of a package.

A plugin registers with the decorators of this module. What it registers is kept in the plugin's
own module, and this process knows it from `load` or `discover` until `forget`. The specs are made
from constructors, so a plugin's options are checked and listed as ours are. No torch in here: a
plugin that needs it brings it.
"""

import hashlib
import importlib
import inspect
import os
import sys
import traceback
from collections.abc import Callable, Iterable
from functools import partial
from importlib import metadata
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING, Any, Literal, NamedTuple, TypeVar, get_type_hints

import numpy as np
from pydantic import Field, create_model

from baselines.specs import DECODERS, MODELS, DecoderSpec, ModelSpec, Spec
from bench.data import sources
from bench.data.catalog import PUBLISHED
from bench.data.fingerprint import Parts
from bench.data.images import Images
from bench.data.user_files import parts_of
from bench.errors import RequestError

if TYPE_CHECKING:
    from baselines.decoders import Decoder
    from baselines.models import Model

GROUP = "sigma_vae_bench.plugins"
"""The group of the entry points whose modules are plugins."""

GIVEN = ("channels", "resolution", "outputs", "stopped")
"""What a model's constructor is given beside its options; it may leave `stopped` out."""

Kind = Literal["decoder", "model", "dataset"]
Make = Callable[[], Images | tuple[Images, Images]]
D = TypeVar("D", bound="type[Decoder]")
M = TypeVar("M", bound="type[Model]")
F = TypeVar("F", bound=Make)

_KEPT = "__sigma_vae_bench__"


class Plugin(NamedTuple):
    """A source of registrations, such that another process finds the same again.

    `path` is its file, or empty for a module of an installed package.
    """

    module: str
    path: str
    sha256: str


class Registration(NamedTuple):
    """What one decorator registers: a decoder's or a model's spec, or a dataset's function."""

    kind: Kind
    name: str
    place: str
    content: Any


_loaded: dict[Plugin, tuple[Registration, ...]] = {}


# -- registering -------------------------------------------------------------------------------


def decoder(name: str) -> Callable[[D], D]:
    """Register a `baselines.decoders.Decoder` under a name for `decoders` in a grid.

    Its constructor's keyword-only arguments, `link` among them, are its options in a grid, which
    the annotations check.
    """

    def register(implementation: D) -> D:
        from baselines.decoders import Decoder

        _require(implementation, Decoder)
        _register("decoder", name, implementation, _spec(DecoderSpec, name, implementation))
        return implementation

    return register


def model(name: str) -> Callable[[M], M]:
    """Register a `baselines.models.Model` under a name for `models` in a grid.

    Its constructor is given `channels`, `resolution`, `outputs` (per channel) and, where it takes
    it, `stopped` (the last so many of them see features whose gradient is stopped); its other
    keyword-only arguments, `latent` among them, are its options, as a decoder's.
    """

    def register(implementation: M) -> M:
        from baselines.models import Model

        _require(implementation, Model)
        parameters = inspect.signature(implementation).parameters
        if missing := [key for key in GIVEN[:3] if key not in parameters]:
            raise RequestError(f"the constructor of {implementation.__name__} lacks {missing[0]}")
        spec = _spec(ModelSpec, name, implementation, GIVEN)
        spec.takes_stopped = "stopped" in parameters
        _register("model", name, implementation, spec)
        return implementation

    return register


def dataset(name: str) -> Callable[[F], F]:
    """Register a function that returns images under a name for `datasets` in a grid.

    It returns `images`, uint8 (N, H, W, C), or `(images, test_images)`, as an npz file holds them.
    It is called once: what it returned is kept in the cache until the plugin changes.
    """

    def register(function: F) -> F:
        _register("dataset", name, function, function)
        return function

    return register


def _require(implementation: Any, base: type) -> None:
    if not (isinstance(implementation, type) and issubclass(implementation, base)):
        raise RequestError(f"{implementation!r} is not a subclass of {base.__name__}")


def _register(kind: Kind, name: str, owner: Any, content: Any) -> None:
    module = sys.modules[owner.__module__]
    kept: list[Registration] = vars(module).setdefault(_KEPT, [])
    bundled = PUBLISHED if kind == "dataset" else _bundled(kind)
    if not (isinstance(name, str) and name.isidentifier()):
        raise RequestError(f"{kind} {name!r}: a name is letters, digits and _")
    if name in bundled:
        raise RequestError(f"'{name}' is a bundled {kind}; choose another name")
    for other in kept:
        if (other.kind, other.name) == (kind, name):
            raise RequestError(f"{kind} '{name}' is registered at {other.place} too; rename one")
    # The decorator's line: below this frame are `register` and then the plugin.
    place = f"{module.__file__}:{sys._getframe(2).f_lineno}"
    kept.append(Registration(kind, name, place, content))


def _bundled(kind: Kind) -> list[str]:
    specs: dict[str, Any] = {**(DECODERS if kind == "decoder" else MODELS)}
    return [name for name, spec in specs.items() if spec.source is None]


S = TypeVar("S", bound=Spec)


def _spec(base: type[S], name: str, implementation: Any, given: Iterable[str] = ()) -> type[S]:
    """A spec whose options are the constructor's keyword-only arguments."""
    who = implementation.__name__
    parameters = inspect.signature(implementation).parameters
    hints = get_type_hints(implementation.__init__, include_extras=True)
    inherited = {key: field for key, field in base.model_fields.items() if key != "name"}
    for option in inherited:
        if option not in parameters:
            raise RequestError(f"the constructor of {who} lacks the option '{option}', which every "
                               f"{base.__name__.removesuffix('Spec').lower()} has")  # fmt: skip
    fields: dict[str, Any] = {"name": (Literal[name], name)}
    for option, parameter in parameters.items():
        if option in given:
            continue
        if parameter.kind is not parameter.KEYWORD_ONLY or option not in hints:
            raise RequestError(
                f"'{option}' in the constructor of {who} must be keyword-only and annotated, as in "
                f"`(self, *, {option}: float = 1.0)`"
            )
        if option not in inherited and (hasattr(base, option) or option in ("name", *GIVEN)):
            raise RequestError(f"the option '{option}' of {who} has a name that is taken")
        default = parameter.default
        if default is parameter.empty:
            default = inherited[option].default if option in inherited else ...
        fields[option] = (hints[option], Field(default, validate_default=True))
    spec = create_model(
        who,
        __base__=base,
        __module__=implementation.__module__,
        __doc__=implementation.__doc__ or who,
        __cls_kwargs__={"allow_inf_nan": False, "protected_namespaces": ()},
        **fields,
    )
    spec.implementation = f"{implementation.__module__}:{implementation.__qualname__}"
    # Pickle finds a class by its name: it hangs on the implementation.
    setattr(implementation, f"{name}_spec", spec)
    spec.__qualname__ = f"{implementation.__qualname__}.{name}_spec"
    return spec


# -- loading -----------------------------------------------------------------------------------


def load(path: Path) -> None:
    """Have what a file registers, beside what there is.

    A file that changed since it was last loaded is a new plugin.

    Raises:
        RequestError: there is no such file, it cannot be imported, it registers nothing, or a name
            that is taken; with the file and the line.
    """
    _execute(*_read(path))


def discover() -> None:
    """Have what the installed packages register, beside what there is.

    Raises:
        RequestError: one of them cannot be imported, or registers nothing, or a taken name.
    """
    for module in dict.fromkeys(point.module for point in metadata.entry_points(group=GROUP)):
        _add(_installed(module))


def loaded() -> tuple[Plugin, ...]:
    """The plugins that this process has."""
    return tuple(_loaded)


def restore(plugins: Iterable[Plugin]) -> None:
    """Have the plugins that another process of the same grid has.

    Raises:
        RequestError: a source is not what it was there.
    """
    for plugin in plugins:
        if plugin in _loaded:
            continue
        found, content = (
            _read(Path(plugin.path)) if plugin.path else (_installed(plugin.module), b"")
        )
        if found != plugin:
            raise RequestError(
                f"plugin {plugin.path or plugin.module} changed while the grid ran; start it again"
            )
        _execute(plugin, content)


def forget() -> None:
    """Have no plugins; the specs and runs that were made with some stay what they are."""
    for plugin in list(_loaded):
        for registration in _loaded.pop(plugin):
            del _registry(registration.kind)[registration.name]


def _read(path: Path) -> tuple[Plugin, bytes]:
    place = os.path.abspath(path)
    try:
        content = Path(place).read_bytes()
    except OSError as error:
        raise RequestError(f"plugin {place} cannot be read: {error.strerror}") from None
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
            exec(compile(content, plugin.path, "exec"), vars(module))
        except BaseException as error:
            del sys.modules[plugin.module]
            if isinstance(error, (Exception, SystemExit)):
                raise _told(error, plugin.path) from error
            raise
    _add(plugin)


def _installed(name: str) -> Plugin:
    """An installed module as a plugin; of a package, every Python file is the source."""
    try:
        file = Path(inspect.getfile(importlib.import_module(name)))
    except Exception as error:
        words = " ".join(f"{type(error).__name__}: {error}".split())
        raise RequestError(
            f"plugin {name}, an installed package, fails at import: {words}"
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
        for registration in vars(module).get(_KEPT, ())
    ]
    if not found:
        raise RequestError(
            f"{plugin.path or plugin.module}:1: registers nothing; decorate with `decoder`, "
            "`model` or `dataset` of bench.plugins"
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


def _registry(kind: Kind) -> dict[str, Any]:
    registries: dict[Kind, Any] = {
        "decoder": DECODERS,
        "model": MODELS,
        "dataset": sources.REGISTERED,
    }
    result: dict[str, Any] = registries[kind]
    return result


def _make(make: Make, name: str, place: str, resolution: int | None) -> Parts:
    """Call a dataset's function and check what it returns as an npz file's content is."""
    try:
        made = make()
    except Exception as error:
        raise _told(error, place.rpartition(":")[0]) from error
    arrays = made if isinstance(made, tuple) else (made,)
    if not (0 < len(arrays) < 3 and all(isinstance(array, np.ndarray) for array in arrays)):
        raise RequestError(
            f"{place}: dataset '{name}' must return `images` or `(images, test_images)`, uint8 "
            f"arrays (N, H, W, C), not {type(made).__name__}"
        )
    named = dict(zip(("images", "test_images"), arrays, strict=False))
    return parts_of(f"{place}: dataset '{name}'", named, resolution)


def _told(error: BaseException, path: str) -> RequestError:
    """What went wrong, on one line that begins with the plugin's line that it came from."""
    passed = traceback.extract_tb(error.__traceback__)
    line = next((frame.lineno for frame in reversed(passed) if frame.filename == path), 1)
    words = f"{type(error).__name__}: {error}"
    if isinstance(error, RequestError):
        words = str(error)
    elif isinstance(error, SyntaxError) and error.filename == path:
        line, words = error.lineno or 1, f"not Python: {error.msg}"
    return RequestError(f"{path}:{line}: {' '.join(words.split())}")
