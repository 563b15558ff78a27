"""A knob: a numeric option whose value a search chooses, and the values that it tries first."""

import math
from collections.abc import Sequence
from typing import Any, Literal, Self

from pydantic import FiniteFloat, StrictBool, model_validator

from bench.run import Run, Settings, Training

Part = Literal["decoder", "balance", "model", "training"]
"""The part of a run that has the option."""

Scale = Literal["log", "linear"]
Each = Literal["row", "model"]
"""What has a value of its own: each row of the table, or each model on each data set."""

Number = int | float


class Range(Settings):
    """The values that `{tune: …}` lets a knob have: from `low` to `high`, both included.

    `scale` says in which measure they are spread evenly: `log` (the default of a range above 0) or
    `linear`.

    >>> Range(low=1e-4, high=1e-2).measure, Range(low=0, high=1).measure
    ('log', 'linear')
    """

    low: FiniteFloat
    high: FiniteFloat
    scale: Scale | None = None

    @classmethod
    def off(cls) -> dict[str, Any]:
        return {"scale": None}

    @property
    def measure(self) -> Scale:
        """The scale that is meant where none is given."""
        return self.scale or ("log" if self.low > 0 else "linear")


class Knob(Settings):
    """An option of a part of a run, and its range; `whole` where it takes whole numbers only.

    >>> knob = Knob(part="training", option="lr", low=1e-4, high=1e-2)
    >>> knob.name, knob.at(0.5), round(knob.place(1e-3), 12)
    ('training.lr', 0.001, 0.5)
    """

    part: Part
    option: str
    low: FiniteFloat
    high: FiniteFloat
    scale: Scale = "log"
    whole: StrictBool = False
    each: Each = "row"

    @classmethod
    def off(cls) -> dict[str, Any]:
        return {"each": "row"}

    @model_validator(mode="after")
    def _sound(self) -> Self:
        if not self.low < self.high or (self.scale == "log" and self.low <= 0):
            raise ValueError("expected low < high, and of a logarithmic range 0 < low")
        return self

    @property
    def name(self) -> str:
        """The option's name, after its part's where that is not the decoder."""
        return self.option if self.part == "decoder" else f"{self.part}.{self.option}"

    @property
    def column(self) -> str:
        """The column of the option in a frame of records."""
        return f"run.{self.part}.{self.option}"

    def at(self, share: float) -> Number:
        """The value at a share, in [0, 1], of the range."""
        if self.scale == "log":
            return self.rounded(self.low * math.exp(math.log(self.high / self.low) * share))
        return self.rounded(self.low + (self.high - self.low) * share)

    def place(self, value: float) -> float:
        """The share of the range that lies below a value: the inverse of `at`."""
        if self.scale == "log":
            return math.log(value / self.low) / math.log(self.high / self.low)
        return (value - self.low) / (self.high - self.low)

    def rounded(self, value: float) -> Number:
        """A tried value to four significant digits, inside the range; a whole number as such.

        Values that differ in the last bits of a float count as one experiment.
        """
        if self.whole:
            return round(min(max(value, self.low), self.high))
        return min(max(float(f"{value:.4g}"), self.low), self.high)

    @property
    def lowest(self) -> Number:
        """The low end of the range."""
        return round(self.low) if self.whole else self.low


Values = tuple[Number, ...]
"""A value for each of several knobs, in their order."""


def with_values(run: Run, knobs: Sequence[Knob], values: Sequence[Number]) -> Run:
    """The same run with options set, checked as a grid's would be.

    Raises:
        pydantic.ValidationError: values that do not go together.
    """
    changed: dict[str, dict[str, Number]] = {}
    for knob, value in zip(knobs, values, strict=True):
        changed.setdefault(knob.part, {})[knob.option] = value
    update: dict[str, Any] = {}
    for part, options in changed.items():
        own = getattr(run, part)
        kind = Training if part == "training" else type(own)
        update[part] = kind.model_validate({**own.model_dump(), **options})
    return run.model_copy(update=update)


def spread(knobs: Sequence[Knob], count: int) -> tuple[Values, ...]:
    """The values that a search tries first: `count` points, even in each knob's own scale.

    One knob has the middles of `count` equal parts of its range; of whole numbers each once. Of
    several, the points are the first of Sobol's sequence (1967, USSR Comput. Math. Math. Phys.
    7:86), moved to the middles of its cells: where `count` is a power of two each knob has every
    one of `count` equal parts once.

    >>> lr = Knob(part="training", option="lr", low=1e-4, high=1.0)
    >>> spread([lr], 2)
    ((0.001,), (0.1,))
    >>> beta = Knob(part="decoder", option="beta", low=1e-4, high=1.0)
    >>> spread([beta, lr], 2)
    ((0.001, 0.001), (0.1, 0.1))
    """
    if len(knobs) == 1:
        shares = [[(index + 0.5) / count] for index in range(count)]
    else:
        from scipy.stats import qmc

        bits = max(0, (count - 1).bit_length())
        cells = qmc.Sobol(len(knobs), scramble=False).random_base2(bits)
        shares = (cells[:count] + 0.5 / 2**bits).tolist()
    points = (tuple(k.at(s) for k, s in zip(knobs, row, strict=True)) for row in shares)
    return tuple(dict.fromkeys(points)) if any(k.whole for k in knobs) else tuple(points)
