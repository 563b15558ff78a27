"""The commands that only look answer without torch, pandas, SciPy and matplotlib."""

import subprocess
import sys
from pathlib import Path

import pytest

HEAVY = {"torch", "torchvision", "pandas", "scipy", "matplotlib", "seaborn", "optuna"}

SCRIPT = """
import sys
from bench.cli.app import main
sys.argv[1:] = {words!r}
try:
    main()
except SystemExit as error:
    assert error.code == 0, error.code
loaded = {heavy!r} & set(sys.modules)
assert not loaded, loaded
"""


@pytest.mark.parametrize(
    "words",
    [
        ["--help"],
        ["--version"],
        *(
            ["list", what]
            for what in ("grids", "datasets", "models", "decoders", "balances", "metrics")
        ),
        ["status", "quick"],
        ["run", "quick", "--dry-run"],
    ],
    ids=" ".join,
)
def test_it_loads_nothing_heavy(words: list[str], tmp_path: Path) -> None:
    script = SCRIPT.format(words=words, heavy=HEAVY)
    done = subprocess.run(
        [sys.executable, "-c", script], cwd=tmp_path, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout
