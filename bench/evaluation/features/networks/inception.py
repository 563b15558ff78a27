"""Inception 2015-12-05, the network of published FIDs."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

from bench.data.download import Progress, download
from bench.evaluation.features.network import (
    Network,
    for_inference,
    found_by,
    hub_checkpoint,
    loading,
    state_dict_of,
)
from bench.run import Features

if TYPE_CHECKING:
    import torch
    from torch import Tensor, nn

VARIABLE = "SIGMA_BENCH_INCEPTION"
FILE = "pt_inception-2015-12-05-6726825d.pth"

SHA256 = "6726825d0af5f729cebd5821db510b11b1cfad8faad88a03f1befd49fb9129b2"
"""Of the weights that published FIDs were computed with, ported to torch by pytorch-fid."""


class Inception(Network):
    """pytorch-fid's port; its distance is called `fid` with the published weights only."""

    name = "inception"
    words = ("inception", "inception:PATH")
    metric_name = "fid"
    place = 0
    dimension = 2048
    fetchable = True

    def find(self, word: str) -> Features | None:
        return found_by(self, word, VARIABLE, cached(), "pytorch-fid's Inception weights")

    def is_here(self) -> bool:
        return bool(os.environ.get(VARIABLE)) or cached().is_file()

    def metric(self, weights: Path, sha256: str) -> str:
        return self.metric_name if sha256 == SHA256 else f"fd_{self.name}"

    def load(self, weights: Path, device: torch.device) -> Callable[[Tensor], Tensor]:
        network = for_inference(inception_network(weights), device)

        def features(images: Tensor) -> Tensor:
            pooled: Tensor = network(images.float() / 255)[0]
            return pooled.flatten(1)

        return features

    def fetch(self, progress: Progress | None = None) -> Path:
        """Download pytorch-fid's weights (91 MiB) to torch.hub's cache, whole or not at all."""
        from pytorch_fid.inception import FID_WEIGHTS_URL

        return download([FID_WEIGHTS_URL], cached(), sha256=SHA256, progress=progress)


def cached() -> Path:
    """Where torch.hub, hence pytorch-fid, keeps the weights."""
    return hub_checkpoint(FILE)


def inception_network(weights: Path) -> nn.Module:
    """pytorch-fid's own network up to its 2048 pooled features, with the weights of a file.

    Raises `RequestError` where the file is unreadable or holds something else.
    """
    from pytorch_fid.inception import InceptionV3

    state = state_dict_of(weights)
    with loading(weights, "pytorch-fid's Inception weights"), _instead_of_download(state):
        network: nn.Module = InceptionV3([InceptionV3.BLOCK_INDEX_BY_DIM[2048]], resize_input=True)
    return network


@contextlib.contextmanager
def _instead_of_download(state: dict[str, Any]) -> Iterator[None]:
    # pytorch-fid's network has no argument for its weights; it asks this name for them.
    from pytorch_fid import inception

    original = inception.load_state_dict_from_url
    inception.load_state_dict_from_url = lambda *_, **__: state
    try:
        yield
    finally:
        inception.load_state_dict_from_url = original
