"""A decoder of colour images on grey data is refused before anything runs."""

from collections.abc import Callable
from pathlib import Path

from bench.grid.expand import expand
from bench.grid.read import read_grid
from tests.refusal import refused


def test_coupled_channels_on_grey_data(write_grid: Callable[..., Path]) -> None:
    grid = write_grid(decoders=["gaussian", {"name": "logistic_mixture", "coupled": True}])
    told = refused(lambda: expand(read_grid(str(grid)), device="cpu", features=None, prepare=True))
    assert "decoder logistic_mixture on " in told
    assert "coupled: it needs images of three channels, not of 1" in told
