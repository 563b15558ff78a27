"""Output streams that are closed, full or of another encoding, and limits of the machine."""

import os
import resource
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

Shell = Callable[..., tuple[int, str, str]]


@pytest.fixture
def shell(tmp_path: Path, write_grid: Callable[..., Path]) -> Shell:
    """A line of bash, in which `sb` is the command and g.yaml a grid."""
    write_grid().rename(tmp_path / "g.yaml")

    def run(line: str) -> tuple[int, str, str]:
        script = f'sb() {{ "{sys.executable}" -m bench "$@"; }}; set -o pipefail; {line}'
        done = subprocess.run(
            ["bash", "-c", script],
            cwd=tmp_path,
            env={**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, sys.path))},
            capture_output=True,
            timeout=200,
        )
        out, err = (text.decode(errors="replace") for text in (done.stdout, done.stderr))
        return done.returncode, out, err

    return run


@pytest.mark.parametrize(
    "line",
    [
        "sb status g.yaml >&-",
        "sb status g.yaml 2>&-",
        "sb status g.yaml >&- 2>&- <&-",
        "sb list metrics | true",
        "sb run g.yaml --dry-run | head -n 1 > /dev/null",
        *(
            f"PYTHONIOENCODING={encoding} sb {command}"
            for encoding in ("latin-1", "ascii", "cp1252")
            for command in ("list decoders", "run g.yaml --dry-run")
        ),
        "LC_ALL=C PYTHONUTF8=0 PYTHONCOERCECLOCALE=0 sb list decoders",
        r"sb status g.yaml --results $'r\xff'",
        r"mkdir $'w\xff'; cp g.yaml $'w\xff'; cd $'w\xff'; sb status g.yaml",
        "mkdir gone; cd gone; rmdir ../gone; sb list grids",
        "unset HOME; sb list grids",
    ],
)
def test_an_odd_stream_or_place_changes_no_exit_code(shell: Shell, line: str) -> None:
    code, _, err = shell(line)
    assert code == 0, err
    assert err == ""


@pytest.mark.parametrize("command", ["list metrics", "run g.yaml --dry-run --json"])
def test_a_full_output_is_told_in_one_line(shell: Shell, command: str) -> None:
    code, _, err = shell(f"sb {command} > /dev/full")
    assert code == 1
    assert "standard output goes to, is full" in err
    assert err.count("\n") == 1


@pytest.mark.parametrize(
    ("limit", "told"), [("-n 8", "too many open files"), ("-v 200000", "memory ran out")]
)
def test_a_limit_of_the_machine_is_told_in_one_line(shell: Shell, limit: str, told: str) -> None:
    """On a machine that needs less, the command does its work."""
    code, _, err = shell(f"ulimit {limit}; sb status g.yaml")
    assert code in (0, 1)
    assert err == "" or (err.count("\n") == 1 and told in err)


def test_a_worker_without_room_for_torch_is_told_in_one_line(shell: Shell) -> None:
    megabytes = 1500
    assert resource.getrlimit(resource.RLIMIT_AS)[0] == resource.RLIM_INFINITY
    code, out, err = shell(f"ulimit -v {megabytes * 1000}; sb run g.yaml --jobs 1")
    assert (code, out) == (2, "")
    assert err.count("\n") == 1
    assert "a worker cannot start (" in err
    assert "ulimit -v" in err


def test_bytes_that_are_no_text_are_refused_in_one_line(shell: Shell) -> None:
    for words in (r"$'\xff.yaml'", r"g.yaml --only $'decoder=\xff'", r"g.yaml --set $'a=\xff'"):
        code, out, err = shell(f"sb run {words} --dry-run")
        assert (code, out) == (2, ""), words
        assert err.count("\n") == 1
