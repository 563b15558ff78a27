"""The grid `latent-diffusion`, and what its model asks of the images."""

import shlex
from collections.abc import Callable
from importlib import resources
from pathlib import Path

import pytest

from baselines.beta import translate
from bench.errors import RequestError
from bench.grid.expand import expand
from bench.grid.read import read_grid
from tests.bench.conftest import Call

NAME = "latent-diffusion"


def commands() -> list[list[str]]:
    """Those in the grid's comments."""
    text = resources.files("bench").joinpath("grids", f"{NAME}.yaml").read_text(encoding="utf-8")
    lines = [line.removeprefix("#").strip() for line in text.splitlines() if line.startswith("#  ")]
    _, *found = " ".join(lines).split("sigma-bench ")
    return [shlex.split(command) for command in found]


def test_its_fixed_row_has_latent_diffusions_own_weight() -> None:
    """1e-6 · KL beside the sum of absolute errors on [-1, 1]."""
    (fixed,) = (
        entry.spec for entry in read_grid(NAME).decoders if entry.spec.name == "laplace_fixed"
    )
    theirs = translate("l1-sum", 1e-6, "3x256x256", data_range=2)
    assert fixed.options["b"] == theirs.laplace_b


def test_the_commands_in_its_comments_expand(
    call: Call, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    assert len(commands()) == 2
    for command in [*commands(), ["run", NAME]]:
        code, out, err = call(*command, "--dry-run")
        assert (code, err) == (0, "")
        # Seven rows of three seeds, and the trials of one.
        assert "27 runs: 0 done" in out


def test_images_that_cannot_be_halved_so_often_are_refused_before_any_run(
    write_grid: Callable[..., Path],
) -> None:
    grid = read_grid(str(write_grid(models=[{"name": "residual_vae", "size": "kl_f8"}])))
    with pytest.raises(RequestError, match=r"residual_vae on .*: downsampling 8 does not divide"):
        expand(grid, device="cpu", features=None, prepare=True)


@pytest.mark.parametrize("value", [3, 16, 0, "half", True])
def test_another_downsampling_is_refused(write_grid: Callable[..., Path], value: object) -> None:
    path = write_grid(models=[{"name": "residual_vae", "downsampling": value}])
    with pytest.raises(RequestError, match=r"models\.0\.downsampling: .*2, 4 or 8"):
        read_grid(str(path))
