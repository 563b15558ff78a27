"""No file that may come from somebody else runs code when it is read."""

import hashlib
import io
import os
import pickle
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch

from bench.data import load
from bench.errors import RequestError
from bench.evaluation.features.network import state_dict_of
from bench.training.checkpoint import Checkpoint
from tests.refusal import refused


class Bomb:
    """Makes a folder when it is unpickled."""

    def __init__(self, mark: Path) -> None:
        self.mark = mark

    def __reduce__(self) -> tuple[Callable[..., object], tuple[str]]:
        return os.mkdir, (str(self.mark),)


@pytest.fixture
def bomb(tmp_path: Path) -> Bomb:
    return Bomb(tmp_path / "executed")


def test_the_bomb_works(bomb: Bomb) -> None:
    pickle.loads(pickle.dumps(bomb))
    assert bomb.mark.is_dir()


def test_data_hold_no_code(bomb: Bomb, tmp_path: Path) -> None:
    path = tmp_path / "mine.npz"
    np.savez(path, images=np.array([bomb], dtype=object))
    assert "uint8" in refused(lambda: load(f"npz:{path}"))
    assert not bomb.mark.exists()


def test_feature_weights_hold_no_code(bomb: Bomb, tmp_path: Path) -> None:
    torch.save({"layer.weight": bomb}, tmp_path / "weights.pth")
    with pytest.raises(RequestError, match="expected a file of weights"):
        state_dict_of(tmp_path / "weights.pth")
    assert not bomb.mark.exists()


@pytest.mark.parametrize("inside", ["code", "no run", "a list", "no zip"])
def test_a_checkpoint_with_its_checksum_and_a_wrong_inside_is_none_and_runs_no_code(
    inside: str, bomb: Bomb, tmp_path: Path
) -> None:
    buffer = io.BytesIO()
    content: dict[str, object] = {
        "code": {"run": "0" * 16, "parameters": bomb},
        "no run": {"parameters": {}},
        "a list": [1],
    }
    torch.save(content.get(inside), buffer)
    written = b"no zip" if inside == "no zip" else buffer.getvalue()
    path = tmp_path / "checkpoint.pt"
    path.write_bytes(hashlib.sha256(written).digest() + written)
    assert Checkpoint(path, "0" * 16).read() is None
    assert not bomb.mark.exists()
