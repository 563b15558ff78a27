"""Data sets by name: uint8 tensors with fixed splits and a content hash."""

from bench.data.binary import binarised
from bench.data.dataset import (
    Dataset,
    Description,
    available,
    describe,
    frames,
    load,
    prepare,
    training_images,
)
from bench.data.fetch import fetch, fetchable, remedy
from bench.data.sources import names, note, stem

__all__ = [
    "Dataset",
    "Description",
    "available",
    "binarised",
    "describe",
    "fetch",
    "fetchable",
    "frames",
    "load",
    "names",
    "note",
    "prepare",
    "remedy",
    "stem",
    "training_images",
]
