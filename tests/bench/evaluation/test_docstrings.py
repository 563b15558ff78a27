"""The examples of the docstrings are true."""

import doctest
import importlib

import pytest


@pytest.mark.parametrize(
    "name", ["cmmd", "features.networks.squeezenet", "features.vit", "mind", "precision_recall"]
)
def test_examples(name: str) -> None:
    found = doctest.testmod(importlib.import_module(f"bench.evaluation.{name}"))
    assert found.attempted
    assert not found.failed
