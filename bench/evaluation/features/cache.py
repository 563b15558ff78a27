"""The features of a set of images; those of real images are cached between runs."""

import contextlib
import hashlib
import logging
import operator
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from functools import partial, reduce
from pathlib import Path
from typing import Any, TypeVar

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save
from torch import Tensor

from bench.evaluation.features.base import Extractor
from bench.evaluation.features.video import VideoExtractor
from bench.evaluation.fid import Moments
from bench.evaluation.out_of_memory import Chunks, joined
from bench.files import cache_root, canonical_json, exclusive, set_aside, write_bytes

T = TypeVar("T")

LAYOUT = 3
"""The version of cached features; raised when an extractor's arithmetic or the file changes."""


@dataclass(frozen=True)
class FeatureSet:
    """The features `(N, F)` of an image set, float32, and their moments, on one device."""

    features: Tensor
    moments: Moments

    def to(self, device: torch.device) -> "FeatureSet":
        moments = self.moments
        return FeatureSet(
            self.features.to(device),
            Moments(moments.count, moments.mean.to(device), moments.scatter.to(device)),
        )


def feature_set(batches: Iterable[Tensor], extractor: Callable[[Tensor], Tensor]) -> FeatureSet:
    """The features of batches of what an extractor takes.

    Raises ValueError where there is no batch.
    """
    chunks = Chunks()
    parts = [chunks.attempt(len(batch), partial(joined, extractor, (batch,))) for batch in batches]
    if not parts:
        raise ValueError("no images, so no features")
    return FeatureSet(torch.cat(parts), reduce(operator.add, map(Moments.of, parts)))


def real_features(
    images: Tensor, content_key: str, extractor: Extractor | VideoExtractor, *, batch: int
) -> FeatureSet:
    """The features of real 8-bit images `(N, C, H, W)`, or videos, cached between runs.

    Arguments:
        content_key: identifies the contents of `images`, by hash, and which frames of videos.
        batch: images, or videos, handed to the extractor at once; part of the key, like the
            extractor, its precision and kind of device, and the shape of `images`.
    """
    path, key = place(
        "features/{}.safetensors",
        extractor,
        layout=LAYOUT,
        content=content_key,
        images=list(images.shape),
        batch=batch,
    )
    found: FeatureSet = kept(
        path,
        partial(_read, path, key),
        lambda: feature_set(torch.split(images, batch), extractor),
        partial(_write, path, key),
    )
    return found.to(extractor.device)


def kept(
    path: Path,
    read: Callable[[], T | None],
    compute: Callable[[], T],
    write: Callable[[T], None],
) -> T:
    """What `read` finds in the file, or else what `compute` returns, which `write` then keeps.

    Of several processes one computes, and the others wait for it.
    """
    with contextlib.ExitStack() as held:
        with contextlib.suppress(OSError):  # without the lock two processes may compute the same
            held.enter_context(exclusive(path))
        known = read()
        if known is not None:
            return known
        computed = compute()
        # A cache that cannot be written costs time, never the answer.
        with contextlib.suppress(OSError):
            write(computed)
        return computed


def place(name: str, extractor: Extractor | VideoExtractor, **facts: Any) -> tuple[Path, str]:
    """The file in the cache for what an extractor made of images, and the key that it repeats.

    Arguments:
        name: the file's, with {} for the hash of its key.
        facts: what the content depends on besides the extractor, its precision and kind of device.
    """
    key = canonical_json(
        {
            **facts,
            "extractor": extractor.features.name,
            "weights": extractor.features.sha256,
            "precision": extractor.precision,
            "device": extractor.device.type,
        }
    )
    return cache_root() / name.format(hashlib.sha256(key.encode()).hexdigest()[:32]), key


def _write(path: Path, key: str, value: FeatureSet) -> None:
    tensors = {
        "features": value.features.cpu().contiguous(),
        "mean": value.moments.mean.cpu(),
        "scatter": value.moments.scatter.cpu(),
    }
    write_bytes(path, save(tensors, metadata={"key": key, "sha256": _digest(key, tensors)}))


def _read(path: Path, key: str) -> FeatureSet | None:
    """The content of `path`, or None where it is missing or damaged."""
    if not path.exists():
        return None
    try:
        with safe_open(path, framework="pt") as file:
            tensors = {name: file.get_tensor(name) for name in ("features", "mean", "scatter")}
            if (file.metadata() or {}).get("sha256") == _digest(key, tensors):
                features = tensors["features"]
                moments = Moments(len(features), tensors["mean"], tensors["scatter"])
                return FeatureSet(features, moments)
            reason = "wrong checksum"
    except (OSError, SafetensorError) as error:
        reason = str(error)
    # Another process may have set it aside first.
    with contextlib.suppress(FileNotFoundError):
        logging.getLogger("sigma-bench").warning(
            "cached features are damaged (%s): computing them again; the file is now %s",
            reason,
            set_aside(path),
        )
    return None


def _digest(key: str, tensors: dict[str, Tensor]) -> str:
    summer = hashlib.sha256(key.encode())
    for name in sorted(tensors):
        summer.update(tensors[name].numpy().data.cast("B"))
    return summer.hexdigest()
