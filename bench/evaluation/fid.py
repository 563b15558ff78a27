"""The Fréchet distance between two sets of images, from the moments of their features."""

import contextlib
import hashlib
import logging
import operator
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from functools import reduce
from pathlib import Path

import filelock
import numpy as np
import scipy.linalg
import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save
from torch import Tensor

from bench.evaluation.features import Extractor
from bench.files import cache_root, canonical_json, set_aside, write_bytes

LAYOUT = 1
"""Of the cached statistics; raised when an extractor's preprocessing or the file changes."""


@dataclass(frozen=True)
class Moments:
    """Count, mean `(F,)` and scatter `(F, F)` about that mean, in float64; sums join two samples.

    Joining follows Chan, Golub & LeVeque (1983), which loses nothing to cancellation where
    E[xxᵀ] - μμᵀ does.
    """

    count: int
    mean: Tensor
    scatter: Tensor

    @classmethod
    def of(cls, features: Tensor) -> "Moments":
        """The moments of one batch of features `(B, F)`, on their device."""
        rows = features.double()
        mean = rows.mean(0)
        rows = rows - mean
        return cls(len(rows), mean, rows.T @ rows)

    def __add__(self, other: "Moments") -> "Moments":
        total = self.count + other.count
        gap = other.mean - self.mean
        scatter = self.scatter + other.scatter
        scatter.addr_(gap, gap, alpha=self.count * other.count / total)
        return Moments(total, self.mean + gap * (other.count / total), scatter)

    @property
    def covariance(self) -> Tensor:
        """The unbiased covariance `(F, F)`; raises ValueError for fewer than 2 samples."""
        if self.count < 2:
            raise ValueError(f"a covariance needs at least 2 samples, not {self.count}")
        return self.scatter / (self.count - 1)


def moments(batches: Iterable[Tensor], extractor: Extractor) -> Moments:
    """The moments of the features of batches of 8-bit images `(B, C, H, W)`.

    Raises ValueError where there is no batch.
    """
    parts = (Moments.of(extractor(batch)) for batch in batches)
    try:
        first = next(parts)
    except StopIteration:
        raise ValueError("no images, so no moments") from None
    return reduce(operator.add, parts, first)


def frechet_distance(
    mean1: Tensor, covariance1: Tensor, mean2: Tensor, covariance2: Tensor
) -> float:
    """The squared Fréchet distance between two Gaussians, given their means and covariances.

    ||μ₁ - μ₂||² + tr(C₁ + C₂ - 2 (C₁^½ C₂ C₁^½)^½), as Heusel et al. (2017) use it after Dowson &
    Landau (1982), from two symmetric eigenvalue problems in float64. Singular covariances are
    fine; the result is never below 0. Raises ValueError for values that are not finite.
    """
    mu1, c1, mu2, c2 = (
        value.detach().cpu().double().numpy() for value in (mean1, covariance1, mean2, covariance2)
    )
    if not all(np.isfinite(value).all() for value in (mu1, c1, mu2, c2)):
        raise ValueError("means and covariances must be finite")
    # SciPy's divide-and-conquer driver: half torch.linalg's time at 2048 features.
    values, vectors = scipy.linalg.eigh(c1, driver="evd", check_finite=False)
    # Directions below rounding carry no variance of their own; without them M is smaller too.
    kept = values > values[-1] * len(values) * np.finfo(np.float64).eps
    root = vectors[:, kept] * np.sqrt(values[kept])
    # M = Λ^½ Vᵀ C₂ V Λ^½ has the eigenvalues of C₁^½ C₂ C₁^½ other than zeros.
    shared = 0.0
    if kept.any():
        squares = scipy.linalg.eigvalsh(root.T @ c2 @ root, driver="evd", check_finite=False)
        shared = np.sqrt(squares.clip(min=0)).sum()
    gap = mu1 - mu2
    return max(float(gap @ gap + np.trace(c1) + np.trace(c2) - 2 * shared), 0.0)


def real_moments(images: Tensor, content_key: str, extractor: Extractor, *, batch: int) -> Moments:
    """The moments of real images `(N, C, H, W)`, 8 bits, kept in the cache between runs.

    Arguments:
        content_key: identifies the contents of `images`, by hash.
        batch: images handed to the extractor at once; part of the key, like the extractor, its
            precision and kind of device, and the shape of `images`.
    """
    key = canonical_json(
        {
            "layout": LAYOUT,
            "content": content_key,
            "images": list(images.shape),
            "extractor": extractor.spec.name,
            "weights": extractor.spec.sha256,
            "precision": extractor.precision,
            "device": extractor.device.type,
            "batch": batch,
        }
    )
    name = hashlib.sha256(key.encode()).hexdigest()[:32]
    path = cache_root() / "features" / f"{name}.safetensors"
    with _alone(path):
        cached = _read(path, key)
        if cached is not None:
            return Moments(
                cached.count, cached.mean.to(extractor.device), cached.scatter.to(extractor.device)
            )
        computed = moments(torch.split(images, batch), extractor)
        # A cache that cannot be written costs time, never the answer.
        with contextlib.suppress(OSError):
            _write(path, key, computed)
        return computed


@contextlib.contextmanager
def _alone(path: Path) -> Iterator[None]:
    """One process at a time computes what `path` will hold; the others wait and read it."""
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        lock = filelock.FileLock(path.with_suffix(".lock"))
        lock.acquire()
    except OSError:  # a cache that cannot be written
        yield
        return
    try:
        yield
    finally:
        lock.release()


def _write(path: Path, key: str, value: Moments) -> None:
    tensors = {
        "count": torch.tensor(value.count),
        "mean": value.mean.cpu(),
        "scatter": value.scatter.cpu(),
    }
    write_bytes(path, save(tensors, metadata={"key": key, "sha256": _digest(key, tensors)}))


def _read(path: Path, key: str) -> Moments | None:
    """What `path` holds, or None where there is nothing or nothing to be believed."""
    if not path.exists():
        return None
    try:
        with safe_open(path, framework="pt") as file:
            tensors = {name: file.get_tensor(name) for name in ("count", "mean", "scatter")}
            if (file.metadata() or {}).get("sha256") == _digest(key, tensors):
                return Moments(int(tensors["count"]), tensors["mean"], tensors["scatter"])
            reason = "wrong checksum"
    except (OSError, SafetensorError) as error:
        reason = str(error)
    # Another process may have set it aside first.
    with contextlib.suppress(FileNotFoundError):
        logging.getLogger("sigma-bench").warning(
            "cached feature statistics are damaged (%s): computing them again; the file is now %s",
            reason,
            set_aside(path),
        )
    return None


def _digest(key: str, tensors: dict[str, Tensor]) -> str:
    summer = hashlib.sha256(key.encode())
    for name in sorted(tensors):
        summer.update(tensors[name].numpy().tobytes())
    return summer.hexdigest()
