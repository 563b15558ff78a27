"""Sizes of a model by name: a word in a grid that stands for several options."""

from collections.abc import Mapping
from typing import Any

from pydantic import ValidationError
from pydantic_core import PydanticCustomError

Sizes = Mapping[str, Mapping[str, Any]]
"""Options by the name of a size."""


def of_size(sizes: Sizes, given: Mapping[str, Any]) -> dict[str, Any]:
    """Options with `size` replaced by those that it stands for; what is given besides wins.

    A run so records what it was made of, whatever a later version means by that size. Without
    `sizes` it is an option like any other.

    Raises:
        pydantic.ValidationError: there is no such size.

    >>> of_size({"small": {"width": 64, "latent": 16}}, {"size": "small", "latent": 8})
    {'width': 64, 'latent': 8}
    """
    if not sizes or "size" not in given:
        return dict(given)
    options = dict(given)
    size = options.pop("size")
    if not isinstance(size, str) or size not in sizes:
        problem = PydanticCustomError("size", "expected {names}", {"names": " or ".join(sizes)})
        detail: Any = {"type": problem, "loc": ("size",), "input": size}
        raise ValidationError.from_exception_data("size", [detail])
    return {**sizes[size], **options}


def fewest(defaults: Mapping[str, Any], sizes: Sizes, options: Mapping[str, Any]) -> dict[str, Any]:
    """The fewest options that give all of `options`, a size among them where that is shorter.

    >>> defaults, sizes = {"width": 32, "latent": 8}, {"small": {"width": 64, "latent": 16}}
    >>> fewest(defaults, sizes, {"width": 64, "latent": 16})
    {'size': 'small'}
    """
    written = [
        {**named, **{key: value for key, value in options.items() if value != usual[key]}}
        for named, usual in [
            ({}, defaults),
            *(({"size": size}, {**defaults, **of}) for size, of in sizes.items()),
        ]
    ]
    return min(written, key=len)
