"""Inception 2015-12-05, the network of published FIDs."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

from bench.evaluation.features.network import Fetched, for_inference, loading, state_dict_of

if TYPE_CHECKING:
    import torch
    from torch import Tensor, nn


class Inception(Fetched):
    """pytorch-fid's port; its distance is called `fid` with the published weights only."""

    name = "inception"
    words = ("inception", "inception:PATH")
    metric_name = "fid"
    place = 0
    dimension = 2048
    variable = "SIGMA_BENCH_INCEPTION"
    file = "pt_inception-2015-12-05-6726825d.pth"
    # The weights that published FIDs were computed with, ported to torch by pytorch-fid, 91 MiB.
    sha256 = "6726825d0af5f729cebd5821db510b11b1cfad8faad88a03f1befd49fb9129b2"
    expected = "pytorch-fid's Inception weights"

    def metric(self, weights: Path, sha256: str) -> str:
        return self.metric_name if sha256 == self.sha256 else f"fd_{self.name}"

    def address(self) -> str:
        from pytorch_fid.inception import FID_WEIGHTS_URL

        url: str = FID_WEIGHTS_URL
        return url

    def load(self, weights: Path, device: torch.device) -> Callable[[Tensor], Tensor]:
        network = for_inference(inception_network(weights), device)

        def features(images: Tensor) -> Tensor:
            pooled: Tensor = network(images.float() / 255)[0]
            return pooled.flatten(1)

        return features


def inception_network(weights: Path) -> nn.Module:
    """pytorch-fid's own network up to its 2048 pooled features, with the weights of a file.

    Raises `RequestError` where the file is unreadable or holds something else.
    """
    from pytorch_fid.inception import InceptionV3

    state = state_dict_of(weights)
    with loading(weights, Inception.expected), _instead_of_download(state):
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
