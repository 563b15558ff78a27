"""Grids of any shape, and sound grids with anything in any place: runs are listed, or one line."""

import copy
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tests.bench.test_hostile import Place, places

Call = Callable[..., tuple[int, str, str]]

LONGEST = 1000
"""Characters of a refusal: a path, a key and a remedy."""

ODD = st.sampled_from([
    *(0, -1, 1, 2, 3, 1.5, 2**31, 2**63, 2**64, 10**400, 1e308, -1e308, 5e-324, 1e-400),
    *(float("nan"), float("inf"), True, False, None, "", " ", "nan", "1e-3", "~", "null"),
    *("auto", "none", "optimal", "mnist5k", "conv_vae", "neg_log_p", "iwae_8", "iwae_", "fid"),
    *("mnist5k@28", "mnist5k@29", "mnist5k[:5]", "mnist5k[:0]", "mnist5k[:50]@28", "npz:", "npz:x"),
    *("folder:none", "folder:\0", "npz:\ud83d", "@", ":", "[:3]", "mnist5k:"),
    *("../x", "a/b", "x" * 300),
    *("\0", "\ud83d", "\ud83d\ude00", "σ", "\u202e", "\n", "{}", "&a", "*a", "<b>", "%s", "{name}"),
    *("inception:", "inception:none", "none.pt", "efficientnet_lite0"),
])  # fmt: skip
KEYS = st.sampled_from([
    *("name", "tune", "low", "high", "trials", "data", "beta", "seeds", "over", "scale", "lr"),
    *("search", "balances", "decoders"),
])  # fmt: skip
TEXT = st.text(max_size=4) | st.text(st.characters(codec=None), max_size=3)
SCALARS = ODD | st.integers() | st.floats() | TEXT
VALUES = st.recursive(
    SCALARS,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(KEYS | TEXT, inner, max_size=3),
    max_leaves=5,
)


def sound(data: str) -> dict[str, Any]:
    """A grid with every kind of entry."""
    search = {"trials": 5, "objective": "neg_log_p", "seeds": [7, 8], "sampler": "tpe"}
    return {
        "name": "sound",
        "description": "any",
        "plugins": [],
        "datasets": [data, {"name": "mine", "data": data}],
        "models": [
            {"name": "conv_vae", "width": 2, "latent": {"tune": {"low": 2, "high": 9}}},
            "linear_vae",
        ],
        "decoders": [
            {"name": "beta", "beta": {"tune": {"low": 0.1, "high": 1, "scale": "linear"}}},
            {"name": "shared", "initial_log_sigma": 0.5, "min_log_sigma": -6},
            {"name": "optimal", "over": "pixel"},
            "gaussian",
        ],
        "balances": [{"name": "elbo", "decoders": ["beta", "shared", "optimal", "gaussian"]}],
        "seeds": [0, 1],
        "split_seed": 0,
        "search": {**search, "startup": 2},
        "training": {"epochs": 2, "batch": 70, "lr": 1e-3, "precision": "float32"},
        "evaluation": {"samples": 5, "iwae": 2, "features": "none", "distances": ["means"]},
    }


def mutated(draw: st.DataObject, grid: dict[str, Any]) -> dict[str, Any]:
    """The grid with up to three places replaced, dropped, doubled or added to."""
    changed = copy.deepcopy(grid)
    for _ in range(draw.draw(st.integers(1, 3))):
        spots: list[Place] = list(places(changed))
        if not spots:
            break
        *above, key = draw.draw(st.sampled_from(spots))
        inside: Any = changed
        for part in above:
            inside = inside[part]
        match draw.draw(st.sampled_from(["replace", "drop", "add", "nest", "double"])):
            case "replace":
                inside[key] = draw.draw(VALUES)
            case "drop":
                del inside[key]
            case "nest":
                inside[key] = draw.draw(st.sampled_from([[inside[key]], {"name": inside[key]}]))
            case "double":
                inside[key] = [inside[key]] * 2
            case "add" if isinstance(inside, dict):
                inside[draw.draw(KEYS | TEXT)] = draw.draw(VALUES)
            case "add":
                inside.append(draw.draw(VALUES))
    return changed


def as_json(value: Any) -> str:
    return json.dumps(value)


def as_yaml(value: Any) -> str:
    """Aliases for what occurs twice, block style, and text that only YAML can quote."""
    written: str = yaml.safe_dump(value, allow_unicode=True)
    return written.encode("utf-8", "replace").decode()


@pytest.fixture
def runs_or_one_line(call: Call, tmp_path: Path) -> Callable[[str], None]:
    """A file's text through `run --dry-run`."""

    def check(text: str) -> None:
        path = tmp_path / "hostile.yaml"
        path.write_text(text, encoding="utf-8", newline="")
        code, out, err = call("run", path, "--dry-run", "--results", tmp_path / "results")
        told = [line for line in err.splitlines() if line]
        if code == 0:
            assert "runs: " in out or "run: " in out
            assert not told
            return
        assert code == 2, err
        assert out == ""
        assert len(told) == 1, err
        assert told[0].startswith("sigma-bench: ")
        assert len(err.replace(str(tmp_path), "")) < LONGEST

    return check


def bounded(examples: int) -> Callable[[Any], Any]:
    quiet = [HealthCheck.function_scoped_fixture, HealthCheck.too_slow]
    return settings(max_examples=examples, suppress_health_check=quiet)


Check = Callable[[str], None]


@bounded(150)
@given(draw=st.data(), write=st.sampled_from([as_json, as_yaml]))
def test_a_sound_grid_with_anything_in_any_place(
    draw: st.DataObject, write: Callable[[Any], str], runs_or_one_line: Check, tiny: Path
) -> None:
    runs_or_one_line(write(mutated(draw, sound(f"npz:{tiny}"))))


@bounded(80)
@given(value=VALUES, write=st.sampled_from([as_json, as_yaml]))
def test_yaml_of_any_shape(
    value: Any, write: Callable[[Any], str], runs_or_one_line: Check
) -> None:
    runs_or_one_line(write(value))


@bounded(120)
@given(draw=st.data())
def test_text_with_characters_changed(
    draw: st.DataObject, runs_or_one_line: Check, tiny: Path
) -> None:
    text = as_yaml(sound(f"npz:{tiny}"))
    for _ in range(draw.draw(st.integers(1, 4))):
        place = draw.draw(st.integers(0, len(text)))
        cut = draw.draw(st.integers(0, 3) | st.integers(0, 200))
        new = draw.draw(st.text(alphabet="&*!{}[]:,-#|>?'\"%@`\\\n\t \0\ufeff01eσa", max_size=6))
        text = text[:place] + new + text[place + cut :]
    runs_or_one_line(text)


@pytest.mark.slow
@bounded(1500)
@given(draw=st.data(), write=st.sampled_from([as_json, as_yaml]))
def test_a_sound_grid_with_anything_in_any_place_at_length(
    draw: st.DataObject, write: Callable[[Any], str], runs_or_one_line: Check, tiny: Path
) -> None:
    runs_or_one_line(write(mutated(draw, sound(f"npz:{tiny}"))))


def test_the_sound_grid_is_sound(call: Call, tmp_path: Path, tiny: Path) -> None:
    path = tmp_path / "sound.yaml"
    for write in (as_json, as_yaml):
        path.write_text(write(sound(f"npz:{tiny}")))
        code, out, _ = call("run", path, "--dry-run")
        assert code == 0
        # Two data sets; four decoders with two seeds, under one model all of them with five trials
        # of two too, under the other one of them.
        assert "132 runs: " in out


def test_a_file_without_end_is_no_grid(call: Call) -> None:
    code, _, err = call("run", "/dev/zero", "--dry-run")
    assert code == 2
    assert "is longer than a grid may be" in err
