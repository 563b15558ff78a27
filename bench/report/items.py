"""What a record's nats are of: an image, or a sequence of frames."""

from __future__ import annotations

import pandas as pd

from baselines.options import MODELS
from bench.records.frame import column_of

FRAMES = "protocol.likelihood.frames"
"""The column that a scored run on videos has."""


PROTOCOL = "protocol.prediction."
"""What the columns of a measured prediction's protocol begin with."""
GIVEN, PREDICTED = f"{PROTOCOL}given", f"{PROTOCOL}predicted"


def are_sequences(records: pd.DataFrame) -> pd.Series[bool]:
    """Whether each record is of a model of videos.

    A record says so once it was scored; before that its model does, where the model is here.
    """
    known = [
        name in MODELS and MODELS[name].is_sequence for name in column_of(records, "run.model.name")
    ]
    return column_of(records, FRAMES).notna() | pd.Series(known, index=records.index, dtype=bool)


def item(records: pd.DataFrame) -> str:
    """`image` or `sequence`, for records of one model."""
    return "sequence" if are_sequences(records).any() else "image"
