"""The examples of the docstrings are true, and every public class and function has one."""

import doctest
import importlib
import inspect
import pkgutil

import pytest
import torch

import baselines

MODULES = ["baselines", *(m.name for m in pkgutil.walk_packages(baselines.__path__, "baselines."))]


@pytest.mark.parametrize("name", MODULES)
def test_examples(name: str) -> None:
    torch.manual_seed(0)
    module = importlib.import_module(name)
    flags = doctest.NORMALIZE_WHITESPACE | doctest.ELLIPSIS
    assert doctest.testmod(module, optionflags=flags, raise_on_error=False).failed == 0
    lacking = [
        key
        for key, value in vars(module).items()
        if (inspect.isclass(value) or inspect.isfunction(value))
        and value.__module__ == name
        and not key.startswith("_")
        and ">>> " not in (value.__doc__ or "")
    ]
    assert lacking == []
