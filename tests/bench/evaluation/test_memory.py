"""Scoring needs no memory for all images but what it keeps of each."""

import weakref
from typing import Any

import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from bench.data import Dataset
from bench.data.dataset import Description
from bench.evaluation.evaluate import evaluate
from bench.evaluation.rollouts import Rollouts, measured
from bench.evaluation.scorer import Scorer
from bench.run import Evaluation, Run, Training
from bench.training.checkpoint import Trained
from bench.training.train import build
from tests.sequences import clips, walk
from tests.specs import decoder_spec, model_spec

SIDE = 32


class Live(TorchDispatchMode):
    """The bytes of all tensors that were made under it and are alive, and their most so far."""

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.now = self.peak = 0
        self._known: dict[int, int] = {}

    def __torch_dispatch__(
        self, func: Any, types: Any, args: Any = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        made = func(*args, **(kwargs or {}))
        for value in tree_leaves(made):
            if not isinstance(value, torch.Tensor):
                continue
            storage = value.untyped_storage()
            key = storage.data_ptr()
            if key and key not in self._known:
                self._known[key] = storage.nbytes()
                self.now += storage.nbytes()
                self.peak = max(self.peak, self.now)
                weakref.finalize(storage, self._freed, key)
        return made

    def _freed(self, key: int) -> None:
        self.now -= self._known.pop(key)


def peak_of(count: int) -> int:
    """Bytes at the peak of scoring so many images, each with 65,600 latents."""
    spec = model_spec(
        "hierarchical", width=8, middle=4, latent=64, groups="1@1 1@full", encoder="1@1"
    )
    run = Run(
        dataset="made",
        content="0" * 64,
        split_seed=0,
        model=spec,
        decoder=decoder_spec("per_pixel"),
        training=Training(dequantise=True),
        evaluation=Evaluation(iwae=2, samples=0),
        seed=0,
    )
    vae = build(run, 1, SIDE).eval()
    assert vae.model.noise_size == 65_600
    images = torch.randint(0, 256, (count, 1, SIDE, SIDE), dtype=torch.uint8)
    description = Description("made", "0" * 64, 1, SIDE, *3 * (count,))
    data = Dataset(description, images, images[:8], images)
    live = Live()
    with live:
        evaluate(run, Trained(vae, vae.initial_state()), data, None)
    assert live.now < images.nbytes + 1e5  # what was freed is counted as freed
    return live.peak


@pytest.mark.slow
def test_scoring_more_images_needs_what_is_kept_of_each() -> None:
    """Some 5 KiB: the image, two histograms of 200 cells, the top group's encoding.

    Its noise has 256 KiB, the dither and each feature map 4 KiB or more.
    """
    few, many = peak_of(512), peak_of(2048)
    assert few > 200 * 65_600 * 4  # a chunk has 221 images
    assert (many - few) / (2048 - 512) < 8 * 2**10


@pytest.mark.parametrize("decoder", ["per_pixel", "bitwise_categorical"])
def test_rollouts_need_no_memory_of_their_own(decoder: str) -> None:
    """Of a clip itself 1.3 KiB and 200 cells of 3 frames, 4.7 KiB, of a rollout nothing."""
    side = SIDE // 2
    vae = walk(decoder_spec(decoder), side=side)

    def peak(count: int, rollouts: int) -> int:
        videos = clips(count, side=side)
        live = Live()
        with live:
            of = Rollouts(Scorer(vae, vae.initial_state(), torch.float32, most=40), videos, 0)
            measured(of, rollouts, mass=True)
        return live.peak

    few = peak(16, 10)  # a chunk has 8 predictions, a block 8 clips
    assert few > 8 * 3 * side**2 * 255 * 4  # the mixtures' F
    assert abs(peak(16, 30) - few) < 1e5
    assert (peak(48, 10) - few) / 32 < 7e3
