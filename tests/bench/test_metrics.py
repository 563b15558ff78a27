"""The catalogue: it knows every number that a record holds, and nobody else knows their names."""

from __future__ import annotations

import ast
import json
import re
from collections.abc import Iterator
from importlib.util import find_spec
from pathlib import Path

import pytest

from bench import metrics
from bench.catalogue import METRICS
from bench.metric import Units
from bench.metrics import better, find, heading, threshold

ROOT = Path(__file__).resolve().parents[2]


def test_every_number_of_every_committed_record_has_a_line() -> None:
    names: set[str] = set()
    for path in (ROOT / "results" / "reference").glob("*/runs/**/record.json"):
        names |= json.loads(path.read_text())["metrics"].keys()
    assert len(names) > 30
    assert not {name for name in names if not find(name) and not find(name.removesuffix("_se"))}


@pytest.mark.parametrize(
    ("name", "line"),
    [
        ("fid", "fid"),
        ("fid_sampled", "fid_sampled"),
        ("fd_my-net.v2", "fd_<extractor>"),
        ("fd_a_b_reconstruction", "fd_<extractor>_reconstruction"),
        ("iwae_64", "iwae_K"),
        ("iwae_64_ess", "iwae_K_ess"),
        ("iwae_64_monte_carlo_se", "iwae_K_monte_carlo_se"),
        ("iwae_64_gain", "iwae_K_gain"),
        ("precision_colour", "precision_<extractor>"),
        ("fd_my-net_floor", "fd_<extractor>_floor"),
        ("kd_a_b_floor", "kd_<extractor>_floor"),
        ("fid_t0.7", "fid_t<t>"),
        ("fd_a_b_t1.25", "fd_<extractor>_t<t>"),
        ("fd_x_t1e-05", "fd_<extractor>_t<t>"),
        ("fd_x_total", "fd_<extractor>"),
    ],
)
def test_the_most_specific_line_is_found(name: str, line: str) -> None:
    metric = find(name)
    assert metric is not None
    assert metric.name == line


@pytest.mark.parametrize(
    "name", ["neg_log_p_se", "kd_colour_se", "iwae_64_se", "iwae_0", "fd_", "mine"]
)
def test_a_standard_error_or_anybodys_number_has_no_line_and_no_direction(name: str) -> None:
    assert find(name) is None
    assert better(name) is None


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("fd_efficientnet_lite0_sampled", "FD efficientnet lite0, drawn pixels"),
        ("iwae_16", "IWAE 16"),
        ("neg_log_p", "-log p"),
        ("KD_mine", "KD mine"),
        ("kd_KID", "KD KID"),
        ("fd_a_b_t0.7", "FD a b at t = 0.7"),
    ],
)
def test_headings(name: str, expected: str) -> None:
    assert heading(name) == expected


@pytest.mark.parametrize("name", ["neg_log_p", "iwae_64", "bits_per_dim", "fid_sampled", "kd_x"])
def test_thresholds_are_small_parts_of_what_is_measured(name: str) -> None:
    assert 0 < threshold(name).of(100.0, 784) < 2.1


def test_what_a_metric_is_for_agrees_with_what_it_is() -> None:
    names = [metric.name for metric in METRICS]
    assert len(set(names)) == len(names)
    for metric in METRICS:
        assert (metric.units is Units.FRECHET) == (metric.compares is not None)
        assert not metric.objective or metric.better
        in_a_table = {"table", "balanced"} & set(metric.shown)
        assert in_a_table or not (metric.shown or metric.expendable)
        assert find_spec(f"bench.evaluation.{metric.home}") is not None


def test_a_bound_from_below_is_minimised_by_its_negative() -> None:
    assert [metrics.sign(name) for name in ("iwae_8", "neg_log_p", "sigma")] == [-1, 1, 1]


@pytest.mark.parametrize("temperature", [1e-9, 0.7, 0.123456789, 2.0, 1e30])
def test_a_distance_at_a_temperature_is_found_and_optimised_by_nobody(temperature: float) -> None:
    for name in ("fid", "fd_x"):
        tempered = metrics.at_temperature(name, temperature)
        found = find(tempered)
        assert found is not None
        assert found.compares == "tempered"
        assert metrics.extractor(tempered) == metrics.extractor(name)
        assert metrics.is_objective(name)
        assert not metrics.is_objective(tempered)


@pytest.mark.parametrize("name", ["fid", "kid", "cmmd", "mind", "fd_x", "kd_x", "md_x"])
def test_the_floor_of_a_distance_is_no_result(name: str) -> None:
    found = find(metrics.floor_of(name))
    assert found is not None
    assert found.better is None
    assert found.units is metrics.find(name).units  # type: ignore[union-attr]
    assert not found.shown
    assert metrics.extractor(metrics.floor_of(name)) == metrics.extractor(name)


def texts(path: Path) -> Iterator[str]:
    """Every text in a file's code but its documentation."""
    tree = ast.parse(path.read_text())
    # A text that is a statement of its own documents what is above it.
    alone = {id(node.value) for node in ast.walk(tree) if isinstance(node, ast.Expr)}
    for node in ast.walk(tree):
        if isinstance(node, ast.Constant) and isinstance(node.value, str) and id(node) not in alone:
            yield node.value


PATTERN = re.compile(r"(?<![a-z_])(iwae|fd|kd)_|\bk?fid[|_\\(]|neg_log_p\|")
"""A part of a name that has many forms, or several names in one expression."""


def test_no_other_file_spells_a_pattern_of_names() -> None:
    spelled = {
        (str(path.relative_to(ROOT)), text)
        for path in (ROOT / "bench").rglob("*.py")
        if "evaluation" not in path.parts and path.name != "catalogue.py"
        for text in texts(path)
        if PATTERN.search(text)
    }
    assert not spelled
    assert {metric.name for metric in METRICS if PATTERN.search(metric.name)}
