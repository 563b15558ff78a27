"""The code of this installation as one hash, to tell whether two machines have the same."""

import hashlib
from functools import cache
from pathlib import Path

TOP = Path(__file__).resolve().parents[2]
"""The folder that holds the packages, installed or checked out."""


@cache
def code_digest() -> str:
    """The sha256 (hex) of every Python file of the packages `baselines` and `bench`."""
    digest = hashlib.sha256()
    for package in ("baselines", "bench"):
        for path in sorted((TOP / package).rglob("*.py")):
            name = path.relative_to(TOP).as_posix()
            digest.update(f"{name}\0{hashlib.sha256(path.read_bytes()).hexdigest()}\n".encode())
    return digest.hexdigest()
