"""The keys of a grid file, checked by pydantic."""

import math
from collections.abc import Sequence
from typing import Annotated, Any, Literal

from pydantic import (
    AfterValidator,
    Field,
    SerializeAsAny,
    StrictInt,
    field_validator,
)

from baselines.options import BALANCES, BalanceSpec, DecoderSpec, ModelSpec, Size
from bench.catalogue import METRICS
from bench.grid.knob import Each, Knob, Range, Values, spread
from bench.metrics import is_objective
from bench.run import (
    ELBO,
    INT64,
    EvaluationSettings,
    SampleKind,
    Settings,
    TrainingSettings,
    Value,
    out_of_distribution,
)

Name = Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]*$", max_length=100)]
Seed = Annotated[StrictInt, Field(ge=0, le=INT64)]


def _check_objective(name: str) -> str:
    if not is_objective(name):
        known = ", ".join(metric.name for metric in METRICS if metric.objective)
        raise ValueError(f"a search cannot optimise '{name}'; possible: {known}")
    return name


class Search(Settings):
    """How values of options are searched for, on validation data.

    The first `startup` trials are spread over the range of every option (see `start`); Optuna's
    `sampler` places the rest, `together` at a time. A trial is one Run for each of `seeds`, which
    no row of the grid uses; with several, `pruner` may stop a trial after any of them.
    """

    trials: Size
    objective: Annotated[str, AfterValidator(_check_objective)] = "neg_log_p"
    seeds: Annotated[tuple[Seed, ...], Field(min_length=1)] = (1000,)
    startup: Size | None = None
    sampler: Literal["gp", "tpe", "random", "qmc"] = "gp"
    pruner: Literal["none", "median", "wilcoxon"] = "none"
    sampler_seed: Annotated[StrictInt, Field(ge=0, lt=2**32)] = 0
    """Optuna's limit."""
    together: Size = 1
    """Trials of a round, whose values are all chosen before any of them has a score."""

    @classmethod
    def off(cls) -> dict[str, Any]:
        return {"together": 1}

    def start(self, knobs: Sequence[Knob]) -> tuple[Values, ...]:
        """The values to try first, `spread` over the knobs' ranges.

        By default half of the trials, of several knobs the largest power of two within that half,
        and at least four.
        """
        count = max(4, math.ceil(self.trials / 2))
        if len(knobs) > 1:
            count = 1 << (count.bit_length() - 1)
        return spread(knobs, min(self.trials, self.startup or count))


class Tune(Range, Search):
    """What `{tune: …}` says of one option: its range, and what the key `search` leaves open.

    With `each: model` the rows of one data set and model share its value, which the first of them
    chooses.
    """

    each: Each = "row"


AskedPrecision = Literal["auto", "float32", "bfloat16"]


class TrainingOptions(TrainingSettings):
    """The key `training`; `auto` is the precision in which the device is fastest."""

    precision: AskedPrecision = "auto"


class EvaluationOptions(EvaluationSettings):
    """The key `evaluation`; `features` names a feature network by a word or a path.

    `fvd` is the path of an I3D network, which the distance between videos needs. `ood` are other
    data sets.
    """

    features: str = "auto"
    fvd: str | None = None
    ood: tuple[str, ...] = ()
    precision: AskedPrecision = "float32"

    @field_validator("distances")
    @classmethod
    def _not_empty(cls, kinds: tuple[SampleKind, ...]) -> tuple[SampleKind, ...]:
        if not kinds or len(set(kinds)) < len(kinds):
            raise ValueError("expected at least one kind of images, each once")
        return kinds

    @field_validator("ood")
    @classmethod
    def _told_apart(cls, names: tuple[str, ...]) -> tuple[str, ...]:
        measures = [out_of_distribution(name) for name in names]
        if twins := [name for name in measures if measures.count(name) > 1]:
            raise ValueError(f"two data sets would both be called {twins[0]}; keep one")
        return names


class DatasetEntry(Value):
    """A data set of the grid: the name that is shown, and what `bench.data` calls it."""

    name: str
    data: str


class Tuning(Value):
    """Options whose values one search chooses; without any there is none."""

    knobs: tuple[Knob, ...] = ()
    search: Search | None = None


class DecoderEntry(Tuning):
    """A decoder of the grid; an option that is tuned is at the low end of its range."""

    spec: SerializeAsAny[DecoderSpec]


class ModelEntry(Tuning):
    """The same of a model."""

    spec: SerializeAsAny[ModelSpec]


class BalanceEntry(Tuning):
    """The same of a balance; `decoders` names those that are trained under it, None for all."""

    spec: SerializeAsAny[BalanceSpec]
    decoders: tuple[str, ...] | None = None

    def takes(self, decoder: DecoderEntry) -> bool:
        """Whether the grid has rows of this decoder under this balance."""
        return self.decoders is None or decoder.spec.name in self.decoders


UNBALANCED = (BalanceEntry(spec=BALANCES[ELBO](name=ELBO)),)
"""The balances of a grid that names none."""


class Grid(Value):
    """The file's top level."""

    name: Name
    description: str = ""
    plugins: tuple[str, ...] = ()
    datasets: Annotated[tuple[DatasetEntry, ...], Field(min_length=1)]
    models: Annotated[tuple[ModelEntry, ...], Field(min_length=1)]
    decoders: Annotated[tuple[DecoderEntry, ...], Field(min_length=1)]
    balances: Annotated[tuple[BalanceEntry, ...], Field(min_length=1)] = UNBALANCED
    seeds: Annotated[tuple[Seed, ...], Field(min_length=1)]
    split_seed: Seed = 0
    training: TrainingOptions = TrainingOptions()
    evaluation: EvaluationOptions = EvaluationOptions()
    search: Tuning = Tuning()
    """What every row tunes of `training`, by the settings of the key `search`."""

    @property
    def finals(self) -> int:
        """How many runs its table is of; a search's trials come on top."""
        pairs = sum(balance.takes(one) for balance in self.balances for one in self.decoders)
        return pairs * math.prod(map(len, (self.datasets, self.models, self.seeds)))
