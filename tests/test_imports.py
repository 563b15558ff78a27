"""The import graph: no circle, and no import that climbs. Lazy and type-only imports count."""

import ast
from collections.abc import Iterator
from graphlib import CycleError, TopologicalSorter
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]

LAYERS = (
    ("baselines",),
    ("bench.errors", "bench.metric"),
    ("bench.catalogue",),
    (
        "bench.text",
        "bench.files",
        "bench.rng",
        "bench.metrics",
        "bench.significance",
    ),
    ("bench.processor",),
    ("bench.devices",),
    ("bench.run",),
    ("bench.data",),
    ("bench.plugins",),
    ("bench.grid",),
    ("bench.training",),
    ("bench.evaluation",),
    ("bench.records",),
    ("bench.tuning",),
    ("bench.execution",),
    ("bench.report", "bench.regression"),
    ("bench.doctor", "bench.speed", "bench"),
    ("bench.cli",),
    ("bench.__main__",),
)
"""From the bottom up: a module imports from its own layer's package and from lower layers only."""


def modules() -> dict[str, Path]:
    found = {}
    for package in ("baselines", "bench"):
        for path in (ROOT / package).rglob("*.py"):
            name = ".".join(path.relative_to(ROOT).with_suffix("").parts)
            found[name.removesuffix(".__init__")] = path
    return found


MODULES = modules()


def imported(name: str, path: Path) -> Iterator[str]:
    """Every module of ours that a file imports, wherever in it the import is written."""
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names if alias.name in MODULES)
        elif isinstance(node, ast.ImportFrom) and node.module:
            assert node.level == 0, f"{name}: imports are absolute"
            for alias in node.names:
                inner = f"{node.module}.{alias.name}"
                if inner in MODULES:
                    yield inner
                elif node.module in MODULES:
                    yield node.module


GRAPH = {name: set(imported(name, path)) - {name} for name, path in MODULES.items()}


def layer(name: str) -> tuple[int, str]:
    """The layer of a module, and the entry of `LAYERS` that it belongs to."""
    fits = [
        (len(entry), height, entry)
        for height, entries in enumerate(LAYERS)
        for entry in entries
        if name == entry or (entry != "bench" and name.startswith(f"{entry}."))
    ]
    assert fits, f"{name} is in no layer: give it one in tests/test_imports.py"
    return max(fits)[1:]


def test_there_is_no_circle() -> None:
    try:
        tuple(TopologicalSorter(GRAPH).static_order())
    except CycleError as error:
        pytest.fail(" -> ".join(error.args[1]))


@pytest.mark.parametrize("name", sorted(GRAPH))
def test_imports_run_downward(name: str) -> None:
    height, entry = layer(name)
    climbing = {
        other for other in GRAPH[name] if layer(other)[1] != entry and layer(other)[0] >= height
    }
    assert not climbing, f"{name} imports from its own height or above: {sorted(climbing)}"


def test_no_file_is_long_and_none_only_forwards() -> None:
    for name, path in MODULES.items():
        text = path.read_text()
        assert text.count("\n") <= 400, f"{name} has more than 400 lines"
        body = ast.parse(text).body
        rest = [
            node for node in body if not isinstance(node, ast.Expr | ast.Import | ast.ImportFrom)
        ]
        assert rest or path.name == "__init__.py", f"{name} only forwards"


def test_a_circle_and_a_climb_are_seen() -> None:
    """The checks above can fail."""
    with pytest.raises(CycleError):
        tuple(TopologicalSorter({"a": {"b"}, "b": {"a"}}).static_order())
    assert layer("bench.records.store")[0] < layer("bench.report.tables")[0]
