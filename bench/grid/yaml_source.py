"""YAML text that knows the line of every key, so that an error can name it."""

import reprlib
from collections.abc import Iterator, Sequence
from typing import Any, TypeVar

import yaml
from pydantic import BaseModel, ValidationError

from bench.errors import RequestError, nearest

Path_ = tuple[str | int, ...]
T = TypeVar("T", bound=BaseModel)


class Source:
    """A YAML text that knows the line of every key, for messages that name it."""

    def __init__(self, text: str, name: str, overrides: Sequence[str] = ()) -> None:
        self.name = name
        self.lines: dict[Path_, int] = {}
        self.overridden: dict[Path_, str] = {}
        self._visited: set[int] = set()
        try:
            # The composed tree has the lines; the same tree constructed has the values.
            loader = yaml.SafeLoader(text)
            node = loader.get_single_node()
            if node is None:
                raise RequestError(f"{name}: the file is empty; see `sigma-bench list grids`")
            self._walk(node, (), ())
            self.value: Any = loader.construct_document(node)
        except yaml.MarkedYAMLError as error:
            mark = error.problem_mark or error.context_mark
            line = mark.line + 1 if mark else 1
            raise RequestError(f"{name}:{line}: not YAML: {error.problem}") from None
        except yaml.YAMLError as error:
            raise RequestError(f"{name}: not YAML: {' '.join(str(error).split())}") from None
        except RecursionError:
            raise RequestError(f"{name}: nested too deeply for a grid") from None
        if not isinstance(self.value, dict):
            raise RequestError(f"{name}:1: a grid is a mapping of keys (name, datasets, …)")
        for override in overrides:
            self._override(override)

    def _walk(self, node: yaml.Node, path: Path_, outer: tuple[yaml.Node, ...]) -> None:
        """Note the line of each key; a node with several aliases is visited once."""
        self.lines.setdefault(path, node.start_mark.line + 1)
        if node in outer:
            raise self.error(path, "refers to itself")
        if id(node) in self._visited:
            return
        self._visited.add(id(node))
        inside = (*outer, node)
        if isinstance(node, yaml.MappingNode):
            for key, child in node.value:
                inner = (*path, str(key.value))
                if inner in self.lines:
                    raise self.error(inner, f"key '{key.value}' is given twice; keep one")
                self.lines[inner] = key.start_mark.line + 1
                self._walk(child, inner, inside)
        elif isinstance(node, yaml.SequenceNode):
            for index, child in enumerate(node.value):
                self._walk(child, (*path, index), inside)

    def _override(self, override: str) -> None:
        keys, equals, text = override.partition("=")
        path: Path_ = tuple(int(part) if part.isdigit() else part for part in keys.split("."))
        if not equals or not all(str(part) for part in path):
            raise RequestError(f"--set {override}: expected key.path=value, as training.epochs=2")
        try:
            value = yaml.safe_load(text)
        except yaml.YAMLError:
            raise RequestError(f"--set {override}: '{text}' is not a YAML value") from None
        place: Any = self.value
        for part, after in zip(path, [*path[1:], None], strict=True):
            inside = isinstance(place, list) and isinstance(part, int) and part < len(place)
            if not isinstance(place, dict) and not inside:
                raise RequestError(f"--set {override}: there is no '{part}' to set")
            if after is None:
                place[part] = value
            else:
                place = place[part] if inside else place.setdefault(part, {})
        self.overridden[path] = override

    def error(self, path: Path_, message: str) -> RequestError:
        """`quick.yaml:7: decoders.4: message`, or the `--set` that set the value."""
        for changed, override in self.overridden.items():
            # Inside what was set, or a key that exists only because of the setting.
            if changed == path[: len(changed)] or (
                changed[: len(path)] == path and path not in self.lines
            ):
                return RequestError(f"--set {override}: {message}")
        known = path
        while known and known not in self.lines:
            known = known[:-1]
        key = ".".join(str(part) for part in path)
        where = f"{self.name}:{self.lines.get(known, 1)}"
        return RequestError(f"{where}: {key}: {message}" if key else f"{where}: {message}")

    def check(self, model: type[T], value: Any, path: Path_) -> T:
        """`value` as `model`; the first thing wrong with it as one line."""
        if not isinstance(value, dict):
            raise self.error(path, f"expected keys ({', '.join(model.model_fields)})")
        try:
            return model.model_validate(value)
        except ValidationError as error:
            # An unknown key is usually the cause of a missing one: name it first.
            problems = sorted(error.errors(), key=lambda e: e["type"] != "extra_forbidden")
            first = problems[0]
            inner = tuple(part for part in first["loc"] if (*path, part) != path)
            raise self.error((*path, *inner), _plain_problem(first, model, inner)) from None


PLAIN = {
    "tuple_type": "expected a list",
    "list_type": "expected a list",
    "too_short": "expected at least one entry",
    "dict_type": "expected keys and values",
    "model_type": "expected keys and values",
    "string_type": "expected text",
    "string_pattern_mismatch": "expected letters, digits and . _ -, a letter or digit first",
    "int_from_float": "expected a whole number",
    "int_type": "expected a whole number",
    "finite_number": "expected a finite number",
}
"""What pydantic says of a value, in the words of somebody who writes YAML, by its type of error."""


def _short(value: Any) -> str:
    """A value as an error message shows it: cut where it is long or deep."""
    return reprlib.repr(value)


def _plain_problem(problem: Any, model: type[BaseModel], path: Path_) -> str:
    if problem["type"] == "extra_forbidden":
        fields = list(_fields_at(model, path[:-1]))
        return f"unknown key '{path[-1]}'; {nearest(str(path[-1]), fields)}"
    if problem["type"] == "missing":
        return f"'{path[-1]}' is missing"
    message = PLAIN.get(problem["type"], problem["msg"].removeprefix("Value error, "))
    message = message[0].lower() + message[1:]
    return f"{message}, not {_short(problem['input'])}"


def _fields_at(model: type[BaseModel], path: Path_) -> Iterator[str]:
    for part in path:
        inner = model.model_fields[str(part)].annotation
        assert isinstance(inner, type)
        assert issubclass(inner, BaseModel)
        model = inner
    yield from model.model_fields
