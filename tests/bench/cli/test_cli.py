"""The command line: exit codes, one clear line for what is wrong, data as JSON."""

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from bench.devices import cuda_capabilities
from bench.records.store import Store

Write = Callable[..., Path]
Call = Callable[..., tuple[int, str, str]]


@pytest.fixture
def refused(call: Call) -> Callable[..., str]:
    """The one line of a request that is refused with exit code 2."""

    def line(*words: object) -> str:
        code, out, err = call(*words)
        assert code == 2, err
        assert out == ""
        told = [text for text in err.splitlines() if not text.startswith("features:")]
        assert len(told) == 1, err
        assert told[0].startswith("sigma-bench: ")
        assert "Traceback" not in err
        return told[0]

    return line


Refused = Callable[..., str]


# -- ten kinds of wrong ----------------------------------------------------------------------------


def test_unknown_decoder(refused: Refused, write_grid: Write) -> None:
    assert "did you mean 'optimal'?" in refused("run", write_grid(decoders=["optimol"]))


def test_misspelt_key(refused: Refused, write_grid: Write) -> None:
    assert "did you mean 'seeds'?" in refused("run", write_grid(seed=[0]))


def test_negative_beta(refused: Refused, write_grid: Write) -> None:
    line = refused("run", write_grid(decoders=[{"name": "beta", "beta": -0.1}]))
    assert "decoders.0.beta" in line
    assert "greater than 0" in line


def test_empty_seeds(refused: Refused, write_grid: Write) -> None:
    assert "seeds" in refused("run", write_grid(seeds=[]))


def test_missing_file(refused: Refused, write_grid: Write, tmp_path: Path) -> None:
    assert "none.yaml" in refused("run", tmp_path / "none.yaml")
    assert "none.npz" in refused("run", write_grid(datasets=[f"npz:{tmp_path}/none.npz"]))


def test_folder_without_images(refused: Refused, write_grid: Write, tmp_path: Path) -> None:
    folder = tmp_path / "pictures"
    folder.mkdir()
    (folder / "notes.txt").write_text("no image")
    assert str(folder) in refused("run", write_grid(datasets=[f"folder:{folder}"]))


def test_npz_with_floats(refused: Refused, write_grid: Write, tmp_path: Path) -> None:
    path = tmp_path / "floats.npz"
    np.savez(path, images=np.random.default_rng(0).random((50, 28, 28)))
    line = refused("run", write_grid(datasets=[f"npz:{path}"]), "--results", tmp_path / "r")
    assert "uint8" in line
    assert "floats.npz" in line


def test_unreadable_weights(refused: Refused, write_grid: Write, tmp_path: Path) -> None:
    weights = tmp_path / "weights.pth"
    weights.write_bytes(b"not weights at all")
    evaluation = {"samples": 10, "iwae": 0, "features": f"inception:{weights}"}
    path = write_grid(evaluation=evaluation)
    line = refused("run", path, "--results", tmp_path / "r")
    assert str(weights) in line
    assert "weights_only" not in line
    evaluation["features"] = f"inception:{tmp_path}/none.pth"
    assert "none.pth" in refused("run", write_grid(evaluation=evaluation), "--results", tmp_path)


def test_results_folder_that_cannot_be_written(
    refused: Refused, write_grid: Write, tmp_path: Path
) -> None:
    (tmp_path / "file").write_text("in the way")
    line = refused("run", write_grid(), "--results", tmp_path / "file")
    assert "--results" in line
    assert "choose another folder" in line


@pytest.mark.skipif(bool(cuda_capabilities()), reason="this machine has CUDA")
def test_cuda_where_there_is_none(refused: Refused, write_grid: Write) -> None:
    assert "no CUDA device" in refused("run", write_grid(), "--device", "cuda:0")


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (["run", "quikc"], "did you mean 'quick'?"),
        (["run", "quick", "--jbos", "2"], "--jobs"),
        (["run", "quick", "--jobs", "0"], "--jobs"),
        (["run", "quick", "--device", "gpu"], "expected auto, cpu, cuda"),
        (["run", "quick", "--only", "decoder=optimol", "--dry-run"], "no run of grid"),
        (["run", "quick", "--set", "training.epochs=0", "--dry-run"], "--set training.epochs=0"),
        (["run"], "GRID"),
        (["rum"], "rum"),
        (["list", "decoder"], "did you mean 'decoders'?"),
        (["fetch", "mnits"], "did you mean 'mnist'?"),
        (["status", "quick", "--resluts", "x"], "--results"),
        (["report", "quick", "--results", "nowhere"], "no finished run"),
        (["report", "quick", "--format", "docx"], "possible: html"),
        (["report", "--results", "nowhere"], "no folder of a grid with records"),
        (["report", "--columns", "mse"], "name the GRID"),
    ],
)
def test_wrong_words(refused: Refused, words: list[str], told: str) -> None:
    assert told in refused(*words)


# -- what is printed -------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "command", ["run", "report", "compare", "status", "list", "doctor", "fetch"]
)
def test_every_command_has_help_with_an_example(call: Call, command: str) -> None:
    code, out, _ = call(command, "--help")
    assert code == 0
    assert f"Example: sigma-bench {command}" in out


@pytest.mark.parametrize("words", [[], ["-h"], ["--help"]])
def test_help_is_asked_for_in_three_ways(call: Call, words: list[str]) -> None:
    code, out, err = call(*words)
    assert (code, err) == (0, "")
    assert "--install-completion" in out
    assert "--version" in out
    # A line each, not one that is run together.
    assert {"run", "status", "report"} <= {line.split()[0] for line in out.splitlines() if line}


@pytest.mark.parametrize("what", ["grids", "datasets", "models", "decoders", "balances", "metrics"])
def test_lists(call: Call, what: str) -> None:
    code, out, _ = call("list", what)
    assert code == 0
    entries = json.loads(call("list", what, "--json")[1])
    for entry in entries:
        assert str(next(iter(entry.values()))) in out


def test_dry_run_computes_nothing(call: Call, write_grid: Write, tmp_path: Path) -> None:
    code, out, _ = call("run", write_grid(), "--results", tmp_path / "r", "--dry-run")
    assert code == 0
    assert "2 runs: 0 done" in out
    assert "distances" not in out
    assert not (tmp_path / "r").exists()


def test_a_dry_run_says_what_distances_cost(call: Call, write_grid: Write) -> None:
    evaluation = {"samples": 500, "distances": ["means", "sampled"], "features": "auto"}
    evaluation["temperatures"] = [0.7]
    code, out, _ = call("run", write_grid(evaluation=evaluation), "--dry-run")
    assert code == 0
    assert "efficientnet_lite0 takes features of up to 1,500 images a run" in out


def test_run_status_and_report_of_a_small_grid(
    call: Call, write_grid: Write, tmp_path: Path
) -> None:
    grid, results = write_grid(seeds=[0, 1]), tmp_path / "results"
    code, out, err = call("run", grid, "--results", results, "--jobs", 2)
    assert code == 0, err
    assert "gaussian" in out
    assert "4 runs done, 0 failed, 0 diverged, 0 left, 4 computed now" in err

    code, out, err = call("run", grid, "--results", results, "--json")
    assert code == 0
    assert "0 computed now" in err
    rows = json.loads(out)
    assert [row["n"] for row in rows] == [2, 2]

    code, out, _ = call("status", grid, "--results", results, "--json")
    told = json.loads(out)
    assert {state: count for state, count in told["runs"].items() if count} == {"done": 4}
    assert (told["grid"], told["seconds_left"], told["running"]) == ("small", 0, [])
    assert "nothing left" in call("status", grid, "--results", results)[1]

    code, out, _ = call("report", grid, "--results", results, "--out", tmp_path / "reports")
    assert code == 0
    assert {Path(line).name for line in out.splitlines()} >= {
        "table.md", "table.tex", "table.csv", "index.html",
    }  # fmt: skip
    (results / "notes").mkdir()
    code, out, err = call("report", "--results", results, "--out", tmp_path / "all",
                          "--format", "markdown")  # fmt: skip
    assert code == 0
    assert [Path(line).name for line in out.splitlines()] == ["table.md", "index.md"]
    assert (
        err == f"sigma-bench: {results / 'notes'}: left out, no grid's folder (it has no runs/)\n"
    )
    # A change of a key is another experiment beside the first.
    call("run", grid, "--results", results, "--set", "training.epochs=1", "--only", "seed=0")
    assert len(Store(results / "small").run_folders()) == 6


def test_a_folder_of_images_is_a_dataset(call: Call, write_grid: Write, tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    folder = tmp_path / "pictures" / "deep"
    folder.mkdir(parents=True)
    for index in range(40):
        pixels = rng.integers(0, 256, (32, 32, 3), dtype=np.uint8)
        Image.fromarray(pixels).save(folder / f"{index}.png")
    path = write_grid(
        datasets=[f"folder:{tmp_path}/pictures"], training={"epochs": 1, "batch": 8},
        decoders=["shared"],
    )  # fmt: skip
    code, out, err = call("run", path, "--results", tmp_path / "results")
    assert code == 0, err
    assert "shared" in out


def test_doctor_examines(call: Call) -> None:
    code, out, _ = call("doctor", "--json")
    assert code == 0
    findings = {finding["what"]: finding for finding in json.loads(out)}
    assert findings["torch"]["verdict"] == "ok"
    assert findings["data mnist5k"]["verdict"] == "ok"
    assert findings["features efficientnet_lite0"]["verdict"] == "ok"
    assert "TFLOP/s" in findings["cpu precision"]["found"]
