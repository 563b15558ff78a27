"""The commands that only look answer without torch, pandas, SciPy and matplotlib."""

import json
import subprocess
import sys

import pytest

HEAVY = ("torch", "torchvision", "pandas", "scipy", "matplotlib", "seaborn", "optuna")

SCRIPT = f"""
import contextlib, io, json, sys
from bench.cli.app import main
for words in json.load(sys.stdin):
    sys.argv[1:], out, code = words, io.StringIO(), None
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(out):
        try:
            main()
        except SystemExit as error:
            code = error.code or 0
    print(json.dumps([code, sorted(set({HEAVY}) & set(sys.modules)), out.getvalue()]))
"""

COMMANDS = [
    ["--help"],
    ["--version"],
    *(
        ["list", what]
        for what in ("grids", "datasets", "models", "decoders", "balances", "metrics")
    ),
    ["status", "quick"],
    ["run", "quick", "--dry-run"],
]

Told = dict[str, tuple[int | None, list[str], str]]


@pytest.fixture(scope="module")
def told(tmp_path_factory: pytest.TempPathFactory) -> Told:
    """What one process that has been asked all commands says after each: what one loads stays."""
    done = subprocess.run(
        [sys.executable, "-c", SCRIPT],
        cwd=tmp_path_factory.mktemp("startup"),
        input=json.dumps(COMMANDS),
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    lines = map(json.loads, done.stdout.splitlines())
    return {" ".join(words): tuple(line) for words, line in zip(COMMANDS, lines, strict=True)}


@pytest.mark.parametrize("words", COMMANDS, ids=" ".join)
def test_it_loads_nothing_heavy(words: list[str], told: Told) -> None:
    code, loaded, out = told[" ".join(words)]
    assert code == 0, out
    assert not loaded
    assert out
