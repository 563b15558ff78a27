"""Features on tensors that have a device and no values: what leaves the GPU, or waits for it."""

from pathlib import Path

import pytest
import torch
from torch import nn
from torch._subclasses.fake_tensor import FakeTensorMode

from bench.evaluation.features.base import network_named
from bench.evaluation.features.networks import efficientnet

Lite = pytest.importorskip("efficientnet_lite_pytorch", reason="needs the extra `embedded`")


@pytest.mark.parametrize("channels", [1, 3])
def test_the_embedded_network_stays_on_a_gpu(
    channels: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its architecture is made there; such tensors can be neither copied nor moved."""

    def without_weights(weights: Path) -> nn.Module:
        made: nn.Module = Lite.EfficientNet.from_name("efficientnet-lite0")
        return made

    monkeypatch.setattr(efficientnet, "efficientnet_network", without_weights)
    cuda = torch.device("cuda")
    with FakeTensorMode(), cuda, torch.no_grad():
        features = network_named("efficientnet_lite0").load(Path("none"), cuda)
        images = torch.zeros(4, channels, 32, 32, dtype=torch.uint8).expand(-1, 3, -1, -1)
        found = features(images)
    assert (found.device.type, found.shape, found.dtype) == ("cuda", (4, 1280), torch.float32)
