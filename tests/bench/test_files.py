"""Files are whole or absent, and their checksums are theirs."""

import hashlib
import os
import signal
import stat
import subprocess
import sys
import time
from pathlib import Path

import pytest

from bench.files import atomic, exclusive, set_aside, sha256_file, write_bytes


def test_a_file_that_fails_half_way_leaves_the_old_one(tmp_path: Path) -> None:
    path = tmp_path / "deep" / "file"
    write_bytes(path, b"old")

    def half_way() -> None:
        with atomic(path) as file:
            file.write(b"ne")
            raise RuntimeError("half-way")

    with pytest.raises(RuntimeError, match="half-way"):
        half_way()
    assert path.read_bytes() == b"old"
    assert list(path.parent.iterdir()) == [path]


def test_others_may_read_what_the_umask_lets_them(tmp_path: Path) -> None:
    path = tmp_path / "file"
    write_bytes(path, b"x")
    plain = tmp_path / "plain"
    plain.write_bytes(b"x")
    assert stat.S_IMODE(path.stat().st_mode) == stat.S_IMODE(plain.stat().st_mode)


def test_a_writer_killed_at_any_time_leaves_one_whole_file(tmp_path: Path) -> None:
    path = tmp_path / "file"
    script = (
        "import sys; from pathlib import Path; from bench.files import write_bytes\n"
        "n = 0\n"
        "while True:\n"
        "    write_bytes(Path(sys.argv[1]), bytes([n % 256]) * 300_000); n += 1\n"
    )
    for delay in (0.0, 0.01, 0.023):
        process = subprocess.Popen([sys.executable, "-c", script, str(path)])
        while not path.exists():
            time.sleep(0.001)
        time.sleep(delay)
        process.send_signal(signal.SIGKILL)
        process.wait()
        content = path.read_bytes()
        assert len(content) == 300_000
        assert len(set(content)) == 1
        path.unlink()


def test_files_set_aside_are_all_kept(tmp_path: Path) -> None:
    path = tmp_path / "file"
    for content in (b"1", b"2", b"3"):
        path.write_bytes(content)
        set_aside(path)
    names = sorted(p.name for p in tmp_path.iterdir())
    assert names == ["file.bad", "file.bad-2", "file.bad-3"]
    assert (tmp_path / "file.bad-3").read_bytes() == b"3"


def test_a_remembered_checksum_is_forgotten_when_the_file_changes(tmp_path: Path) -> None:
    path = tmp_path / "file"
    for content in (b"one", b"two"):
        path.write_bytes(content)
        os.utime(path, ns=(1, int.from_bytes(content, "big")))
        assert sha256_file(path) == hashlib.sha256(content).hexdigest()
        assert sha256_file(path) == hashlib.sha256(content).hexdigest()


COUNT = """
import sys
from pathlib import Path
from bench.files import exclusive
path = Path(sys.argv[1])
for _ in range(200):
    with exclusive(path):
        path.write_text(str(int(path.read_text() if path.exists() else 0) + 1))
"""


def test_one_process_at_a_time_has_a_file(tmp_path: Path) -> None:
    path = tmp_path / "deep" / "count.txt"
    counters = [subprocess.Popen([sys.executable, "-c", COUNT, str(path)]) for _ in range(2)]
    assert [process.wait() for process in counters] == [0, 0]
    assert path.read_text() == "400"


def test_a_folder_that_cannot_be_locked_is_an_error(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(OSError, match="file"), exclusive(tmp_path / "file" / "inside"):
        pytest.fail("there is no such folder")
