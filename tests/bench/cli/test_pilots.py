"""What `--engine slurm` submits, on a machine with neither Slurm nor a GPU."""

import shlex
from collections.abc import Callable
from pathlib import Path

import pytest

Call = Callable[..., tuple[int, str, str]]
Write = Callable[..., Path]


@pytest.fixture
def sbatch(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An `sbatch` that notes its arguments and its script in this folder, and accepts."""
    folder = tmp_path / "bin"
    folder.mkdir()
    program = folder / "sbatch"
    program.write_text(
        f'#!/bin/sh\nprintf "%s\\n" "$@" > {folder}/arguments\n/bin/cat > {folder}/script\necho 7\n'
    )
    program.chmod(0o755)
    monkeypatch.setenv("PATH", str(folder))
    return folder


@pytest.mark.parametrize(("device", "precision"), [("cuda", "bfloat16"), ("cpu", "float32")])
def test_pilots_are_told_what_auto_means_on_the_cluster(
    device: str, precision: str, sbatch: Path, write_grid: Write, call: Call, tmp_path: Path
) -> None:
    grid = write_grid(
        training={"epochs": 1, "batch": 70, "precision": "auto"},
        evaluation={"samples": 4, "features": "auto", "iwae": 0},
    )
    code, out, told = call(
        "run", grid, "--results", tmp_path / "r", "--engine", "slurm", "--device", device,
        "--jobs", 2, "--threads", 4, "--detach", "--set", "training.lr=0.002", "--only", "seed=0",
        "--engine-option", "gres=gpu:1", "--engine-option", "exclusive",
    )  # fmt: skip
    assert code == 0, told
    assert "small: 2 pilots submitted as slurm job 7" in out
    arguments = (sbatch / "arguments").read_text().splitlines()
    for argument in ("--gres=gpu:1", "--exclusive", "--array=0-1", "--cpus-per-task=4"):
        assert argument in arguments
    # What the user says comes last, where it replaces what is chosen here.
    assert arguments.index("--gres=gpu:1") > arguments.index("--signal=B:USR1@120")
    script = (sbatch / "script").read_text()
    words = shlex.split(script.splitlines()[-1])
    assert words[0] == "exec"
    asked = {words[i + 1] for i, word in enumerate(words) if word == "--set"}
    assert {"training.lr=0.002", f"training.precision={precision}"} < asked
    (features,) = (change for change in asked if change.startswith("evaluation.features="))
    assert features != "evaluation.features=auto"
    for option, value in (("--device", device), ("--threads", "4"), ("--only", "seed=0")):
        assert words[words.index(option) + 1] == value
    # The runs are those that a pilot or `status` finds by the same settings.
    planned = call(
        "run",
        *words[words.index("run") + 1 : words.index("--device")],
        "--dry-run",
        "--device",
        "cpu",
        "--only",
        "seed=0",
        *(word for change in sorted(asked) for word in ("--set", change)),
        "--json",
    )
    assert precision in planned[1]
    status = out.partition("next: sigma-bench ")[2]
    assert call(*shlex.split(status))[0] == 0


def test_a_request_that_no_pilot_could_meet_is_refused_at_once(
    sbatch: Path, write_grid: Write, call: Call, tmp_path: Path
) -> None:
    grid = write_grid()
    common = ("run", grid, "--results", tmp_path / "r")
    for words, told in (
        (("--engine", "slurm", "--device", "cuda:1"), "on an engine it is cuda or cpu"),
        (("--engine", "slurm", "--device", "cpu", "--engine-option", "array=0-9"), "is --jobs"),
        (("--detach",), "--engine local has no pilots to leave"),
        (("--engine-option", "gres=gpu:1"), "takes no address and no --engine-option"),
    ):
        code, _, err = call(*common, *words)
        assert code == 2
        assert told in err
        assert len(err.splitlines()) == 1
    (sbatch / "sbatch").unlink()
    code, _, err = call(*common, "--engine", "slurm", "--device", "cpu")
    assert code == 2
    assert "--engine slurm: sbatch is not on the path; run it where jobs are submitted" in err
