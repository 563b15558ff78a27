"""Sizes of a model by name: a word in a grid that stands for several options."""

from collections.abc import Mapping
from typing import Any

Sizes = Mapping[str, Mapping[str, Any]]
"""Options by the name of a size."""


def of_size(sizes: Sizes, given: Mapping[str, Any]) -> dict[str, Any]:
    """Options with `size` replaced by those that it stands for; what is given besides wins.

    A run so records what it was made of, whatever a later version means by that size.

    Raises:
        ValueError: there is no such size.

    >>> of_size({"small": {"width": 64, "latent": 16}}, {"size": "small", "latent": 8})
    {'width': 64, 'latent': 8}
    """
    if not sizes or "size" not in given:
        return dict(given)
    options = dict(given)
    size = options.pop("size")
    if not isinstance(size, str) or size not in sizes:
        raise ValueError(f"unknown size {size!r}; possible: {', '.join(sizes)}")
    return {**sizes[size], **options}
