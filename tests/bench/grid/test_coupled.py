"""A decoder of colour images on grey data is refused before anything runs."""

import math
from collections.abc import Callable
from pathlib import Path

from baselines.options import DECODERS
from bench.grid.expand import expand
from bench.grid.read import read_grid
from bench.records.identity import recorded
from tests.refusal import refused


def test_coupled_channels_on_grey_data(write_grid: Callable[..., Path]) -> None:
    grid = write_grid(decoders=["gaussian", {"name": "logistic_mixture", "coupled": True}])
    told = refused(lambda: expand(read_grid(str(grid)), device="cpu", features=None, prepare=True))
    assert "decoder logistic_mixture on " in told
    assert "coupled: it needs images of three channels, not of 1" in told


def test_rows_with_and_without_it_have_labels_of_their_own() -> None:
    """A record that is silent about a switch means that it is off."""
    silent = {"run.decoder.name": "logistic_mixture", "run.decoder.components": 5.0}
    for value in (math.nan, None):
        found = recorded(DECODERS, "run.decoder", {**silent, "run.decoder.coupled": value})
        assert found == recorded(DECODERS, "run.decoder", silent)
        assert found.changed == {}
    coupled = recorded(DECODERS, "run.decoder", {**silent, "run.decoder.coupled": True})
    assert coupled.changed == {"coupled": True}
