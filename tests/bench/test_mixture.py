"""The mixture experiment: its grid, its records, and every command on it."""

import json
import math
import shlex
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml

from bench import grid as grids
from bench import mixture
from bench.errors import RequestError
from bench.records import Store
from bench.report.runs import command

Write = Callable[..., Path]
Call = Callable[..., tuple[int, str, str]]


@pytest.fixture
def write(tmp_path: Path) -> Write:
    """Write a small mixture grid; keywords replace its keys."""

    def grid(**changes: object) -> Path:
        components = [
            {"weight": 1, "mean": [-2, 0], "sigma": 0.3},
            {"weight": 1, "mean": [2, 0], "sigma": 0.6},
        ]
        content = {
            "name": "two",
            "experiment": "mixture",
            "data": {"train": 200, "test": 1000, "components": components},
            "models": [{"name": "gaussian_mixture", "components": 2}],
            "decoders": [{"name": "fixed", "sigma": 4}, "shared", "per_component"],
            "seeds": [0, 1],
            "training": {"starts": 3},
            **changes,
        }
        path = tmp_path / "two.yaml"
        path.write_text(yaml.safe_dump(content, sort_keys=False))
        return path

    return grid


def runs(path: Path, *only: str) -> list[mixture.MixtureRun]:
    grid = grids.read(str(path))
    assert isinstance(grid, mixture.MixtureGrid)
    return [run for row in mixture.expand(grid, only) for run in row.runs]


def test_a_run_is_known_by_what_decides_its_numbers(write: Write) -> None:
    first = runs(write())
    assert len({run.id for run in first}) == 6
    assert [run.id for run in runs(write(description="other"))] == [run.id for run in first]
    other = write(models=[{"name": "gaussian_mixture", "components": 3}])
    assert not {run.id for run in runs(other)} & {run.id for run in first}


def test_filters_keep_what_they_name(write: Write) -> None:
    kept = runs(write(), "decoder=shared", "decoder=fixed", "seed=1")
    assert [(run.decoder.name, run.seed) for run in kept] == [("fixed", 1), ("shared", 1)]
    with pytest.raises(RequestError, match="no run of grid 'two' fits"):
        runs(write(), "decoder=optimal")


@pytest.mark.parametrize(
    ("changes", "told"),
    [
        ({"decoders": ["shard"]}, r"two\.yaml:\d+: decoders\.0: unknown variance rule 'shard'"),
        ({"decoders": ["fixed"]}, r"two\.yaml:\d+: decoders\.0\.sigma: 'sigma' is missing"),
        ({"decoders": ["shared", "shared"]}, r"two\.yaml:\d+: decoders\.1: stands twice"),
        ({"experiment": "mixtur"}, r"two\.yaml:2: experiment: .*'mixture'"),
        ({"seed": [0]}, r"two\.yaml:\d+: seed: unknown key 'seed'; did you mean 'seeds'\?"),
        ({"data": {"components": []}}, r"two\.yaml:\d+: data\.components"),
        (
            {"data": {"components": [{"weight": 1, "mean": [0, 0], "sgma": 1}]}},
            r"two\.yaml:\d+: data\.components\.0\.sgma: .* did you mean 'sigma'\?",
        ),
        (
            {"models": [{"name": "gaussian_mixture", "components": 201}]},
            r"two\.yaml:\d+: models\.0\.components: 201 components for 200 training points",
        ),
    ],
)
def test_what_is_wrong_is_named_with_its_line(
    write: Write, changes: dict[str, Any], told: str
) -> None:
    with pytest.raises(RequestError, match=told):
        grids.read(str(write(**changes)))


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (("--jobs", 2), "leave --jobs out"),
        (("--set", "training.starts=0"), "--set training.starts=0"),
        (("--only", "decoder=gaussian"), "no run of grid 'two' fits"),
    ],
)
def test_a_wrong_request_is_one_line(
    call: Call, write: Write, tmp_path: Path, words: tuple[object, ...], told: str
) -> None:
    code, out, err = call("run", write(), "--results", tmp_path / "r", *words)
    assert (code, out) == (2, "")
    assert told in err
    assert len(err.splitlines()) == 1


def test_every_command_works_on_it(call: Call, write: Write, tmp_path: Path) -> None:
    grid, results = write(), tmp_path / "results"
    there = ("--results", results)

    code, out, _ = call("run", grid, *there, "--dry-run")
    assert (code, "6 runs: 0 done" in out) == (0, True)
    assert not results.exists()

    code, out, err = call("run", grid, *there, "--json")
    assert code == 0, err
    assert "6 runs done, 0 failed, 0 diverged, 0 left, 6 computed now" in err
    rows = {row["decoder"]: row for row in json.loads(out)}
    assert rows.keys() == {"fixed (sigma=4)", "shared", "per_component"}
    assert rows["per_component"]["neg_log_p"] < rows["shared"]["neg_log_p"]
    assert rows["shared"]["neg_log_p"] < rows["fixed (sigma=4)"]["neg_log_p"] - 1
    assert rows["fixed (sigma=4)"]["components_used"] == pytest.approx(1, abs=1e-3)
    assert rows["fixed (sigma=4)"]["sigma"] == 4

    code, out, err = call("run", grid, *there)
    assert "0 computed now" in err
    assert "per_component" in out
    for absent in ("epochs", "ELBO", "images", "learning rate", "search"):
        assert absent not in out

    assert json.loads(call("status", grid, *there, "--json")[1])["runs"] == {"done": 6}
    words = ("--out", tmp_path / "reports", "--format", "html,markdown", "--run-pages", "none")
    code, out, err = call("report", grid, *there, *words)
    assert code == 0, err
    names = {Path(line).name for line in out.splitlines()}
    assert names >= {"index.html", "table.md", "mixtures.png", "mixtures.pdf"}


def test_the_command_that_a_run_page_gives_makes_that_run(write: Write) -> None:
    grid = grids.read(str(write()))
    for run in runs(write()):
        words = shlex.split(command(run.model_dump(mode="json"), "two.yaml", grid))
        repeated = grids.read(str(write()), words[4::2])
        assert isinstance(repeated, mixture.MixtureGrid)
        assert [row.runs[0].id for row in mixture.expand(repeated)] == [run.id]
        assert len(words) == 3 + 2 * 2  # the decoder and the seed; the rest is the grid's


def test_a_torn_record_is_computed_again_to_the_same_numbers(
    call: Call, write: Write, tmp_path: Path
) -> None:
    grid, store = write(), Store(tmp_path / "two")
    call("run", grid, "--results", tmp_path)
    before = {record["id"]: record["metrics"] for record in store.records()}
    torn = store.run_folder(runs(grid)[2]) / "record.json"
    torn.write_bytes(torn.read_bytes()[:100])
    code, _, err = call("run", grid, "--results", tmp_path)
    assert (code, "1 computed now" in err) == (0, True)
    assert {record["id"]: record["metrics"] for record in store.records()} == before


def test_a_record_has_what_every_record_has(call: Call, write: Write, tmp_path: Path) -> None:
    call("run", write(), "--results", tmp_path, "--only", "decoder=shared")
    record = next(Store(tmp_path / "two").records())
    assert record["run"]["dataset"] == "clouds"
    assert record["run"]["model"]["name"] == "gaussian_mixture"
    assert record["run"]["decoder"]["name"] == "shared"
    assert record["status"] == "completed"
    assert record["protocol"]["selection"] == {"rule": "by hand"}
    assert record["environment"]["precision"] == "float64"
    assert record["cost"]["seconds"] > 0
    assert (tmp_path / "two" / "runs" / record["id"] / record["artifacts"]["weights"]).is_file()


def test_the_mixture_that_made_the_points_scores_its_entropy(
    call: Call, write: Write, tmp_path: Path
) -> None:
    # Of one Gaussian it is 1 + ln 2πσ² in two dimensions.
    data = {"test": 20_000, "components": [{"weight": 7, "mean": [1, 2], "sigma": 0.5}]}
    models = [{"name": "gaussian_mixture", "components": 1}]
    call("run", write(data=data, models=models, seeds=[0]), "--results", tmp_path)
    entropy = 1 + math.log(2 * math.pi * 0.25)
    for record in Store(tmp_path / "two").records():
        if record["run"]["decoder"]["name"] != "fixed":
            truth, error = (record["metrics"][k] for k in ("neg_log_p_truth", "neg_log_p_se"))
            assert truth == pytest.approx(entropy, abs=4 * error)
            assert record["metrics"]["sigma"] == pytest.approx(0.5, abs=0.05)
            assert record["metrics"]["neg_log_p"] >= truth - 4 * error
