"""The mixture example, run as the script that it is."""

import math
import runpy
from collections.abc import Callable
from pathlib import Path

import pytest

SCRIPT = Path(__file__).parents[2] / "examples" / "gaussian_mixture.py"
ENTROPY = 2.98
"""Of the five clouds, in nats; the committed records have 2.979 on 25,000 points."""

Run = Callable[..., tuple[str, str]]


@pytest.fixture
def run(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Run:
    """Run the script with these words; what it prints on stdout and stderr."""

    def script(*words: object) -> tuple[str, str]:
        monkeypatch.setattr("sys.argv", [SCRIPT.name, *map(str, words)])
        runpy.run_path(str(SCRIPT), run_name="__main__")
        return capsys.readouterr()

    return script


def numbers(printed: str) -> dict[str, list[float]]:
    """The table's rows: -log p, σ, components used, the means alone."""
    rows = [line for line in printed.splitlines()[1:] if "±" in line and "%" not in line]
    return {
        line[:16].strip(): [float(cell) for cell in line[16:].replace("± ?", "").split()]
        for line in rows
    }


def test_a_learned_sigma_beats_both_fixed_ones(run: Run, tmp_path: Path) -> None:
    out = tmp_path / "fits.png"
    printed, _ = run("--seeds", 1, "--points", 200, "--out", out)
    rows = numbers(printed)
    large, small, shared, own = (
        rows[name] for name in ("fixed, σ = 2.5", "fixed, σ = 0.1", "shared", "per component")
    )
    truth = rows["the truth"][0]
    assert truth == pytest.approx(ENTROPY, abs=0.06)  # 4 standard errors of 5000 points
    assert truth < own[0] < shared[0] < min(large[0], small[0]) - 0.5
    # The components of the large σ coincide, and no density of theirs exceeds 1 / 2πσ².
    assert large[2] < 2 < 4 < shared[2] < 5
    assert large[0] > math.log(2 * math.pi * 2.5**2)
    assert (large[1], small[1]) == (2.5, 0.1)
    assert shared[1] == pytest.approx(math.sqrt(0.282), abs=0.08)  # Σ w σ² of the clouds
    assert out.read_bytes().startswith(b"\x89PNG")
    assert str(out) in printed


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (("--seeds", 0), "--seeds 0"),
        (("--seeds", "many"), "--seeds"),
        (("--points", 4), "--points 4: have at least 5"),
        (("--seed", 1, "--sigma", 1), "--sigma"),
        (("--seeds", 1, "--points", 20, "--out", "absent/fits.png"), "--out absent/fits.png"),
        (("--seeds", 1, "--points", 20, "--out", "fits.doc"), "--out fits.doc"),
    ],
)
def test_bad_arguments_are_one_line_and_exit_code_2(
    run: Run,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
    words: tuple[object, ...],
    told: str,
) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(SystemExit) as stopped:
        run(*words)
    assert stopped.value.code == 2
    error = capsys.readouterr().err
    assert told in error
    assert len(error.splitlines()) == 1
