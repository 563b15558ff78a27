"""Downloads are whole and right, or they are not there."""

from __future__ import annotations

import hashlib
import os
import signal
import subprocess
import sys
import types
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from bench.data.download import console_progress, download
from bench.errors import RequestError

if TYPE_CHECKING:
    from tests.bench.data.conftest import Server

CONTENT = bytes(range(256)) * 400
MD5 = hashlib.md5(CONTENT).hexdigest()
SHA256 = hashlib.sha256(CONTENT).hexdigest()


def test_a_file_arrives_whole_and_the_progress_ends_at_its_size(
    server: Server, tmp_path: Path
) -> None:
    server.files["x.gz"] = CONTENT
    seen: list[tuple[str, int, int | None]] = []
    target = download(
        [f"{server.url}/x.gz"],
        tmp_path / "deep" / "x.gz",
        sha256=SHA256,
        progress=lambda *state: seen.append(state),
    )
    assert target.read_bytes() == CONTENT
    assert seen[-1] == ("x.gz", len(CONTENT), len(CONTENT))
    assert os.listdir(target.parent) == ["x.gz"]


def test_a_file_address_is_an_address(tmp_path: Path) -> None:
    (tmp_path / "a b").write_bytes(CONTENT)
    target = download([(tmp_path / "a b").as_uri()], tmp_path / "c", md5=MD5)
    assert target.read_bytes() == CONTENT


def test_a_right_file_is_not_brought_again_and_a_torn_one_is_mended(
    server: Server, tmp_path: Path
) -> None:
    server.files["x"] = CONTENT
    target = tmp_path / "x"
    for _ in range(2):
        download([f"{server.url}/x"], target, md5=MD5)
    assert server.asked == ["/x"]
    target.write_bytes(CONTENT[:10])
    download([f"{server.url}/x"], target, md5=MD5)
    assert target.read_bytes() == CONTENT


def test_the_next_mirror_is_asked_when_one_fails(server: Server, tmp_path: Path) -> None:
    server.files |= {"x": CONTENT, "y": CONTENT[:-1]}
    urls = [f"{server.url}/{path}" for path in ("cut/x", "absent", "y", "x")]
    assert download(urls, tmp_path / "x", md5=MD5).read_bytes() == CONTENT


def test_failure_names_every_address_and_reason_and_leaves_nothing(
    server: Server, tmp_path: Path
) -> None:
    server.files |= {"x": CONTENT, "y": CONTENT[:-1]}
    absent = (tmp_path / "absent").as_uri()
    urls = [f"{server.url}/{path}" for path in ("cut/x", "absent", "y")] + [absent]
    with pytest.raises(RequestError) as caught:
        download(urls, tmp_path / "new" / "x", md5=MD5)
    message = str(caught.value)
    assert "\n" not in message
    for reason in (*urls, "IncompleteRead", "404", MD5, "No such file"):
        assert reason in message
    assert os.listdir(tmp_path / "new") == []


def test_a_failure_keeps_the_file_that_was_there(server: Server, tmp_path: Path) -> None:
    target = tmp_path / "x"
    target.write_bytes(b"older")
    server.files["x"] = CONTENT
    with pytest.raises(RequestError):
        download([f"{server.url}/cut/x"], target, md5=MD5)
    assert target.read_bytes() == b"older"


def test_a_kill_leaves_nothing_that_looks_finished(server: Server, tmp_path: Path) -> None:
    server.files["x"] = CONTENT
    target = tmp_path / "x"
    script = (
        "import sys, pathlib; from bench.data.download import download;"
        "download([sys.argv[1]], pathlib.Path(sys.argv[2]), md5=sys.argv[3])"
    )
    url = f"{server.url}/slow/x"
    process = subprocess.Popen([sys.executable, "-c", script, url, str(target), MD5])
    assert server.started.wait(20)
    process.send_signal(signal.SIGKILL)
    process.wait()
    assert not target.exists()
    assert download([f"{server.url}/x"], target, md5=MD5).read_bytes() == CONTENT


def test_google_drive_is_asked_through_gdown(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fake(id: str, output: str, quiet: bool) -> None:
        if id != "good":
            raise RuntimeError("quota exceeded")
        Path(output).write_bytes(CONTENT)

    monkeypatch.setitem(sys.modules, "gdown", types.SimpleNamespace(download=fake))
    assert download(["gdrive:good"], tmp_path / "x", md5=MD5).read_bytes() == CONTENT
    with pytest.raises(RequestError, match="gdrive:bad: quota exceeded"):
        download(["gdrive:bad"], tmp_path / "y", md5=MD5)


def test_without_gdown_the_error_says_what_to_install(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "gdown", None)
    with pytest.raises(RequestError, match="pip install gdown"):
        download(["gdrive:x"], tmp_path / "x", md5=MD5)


def test_the_console_shows_the_file_and_its_size(
    server: Server, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    server.files["x.gz"] = CONTENT
    with console_progress() as progress:
        download([f"{server.url}/x.gz"], tmp_path / "x.gz", progress=progress)
    out, err = capsys.readouterr()
    assert not out
    assert "x.gz" in err
    assert "102.4/102.4 kB" in err
