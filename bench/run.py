"""A Run: one experiment as a frozen value, and its identity."""

from collections.abc import Mapping
from functools import cached_property
from typing import Annotated, Any, ClassVar, Literal, Self

from pydantic import (
    AfterValidator,
    BaseModel,
    ConfigDict,
    Field,
    FiniteFloat,
    SerializeAsAny,
    SerializerFunctionWrapHandler,
    StrictBool,
    model_serializer,
    model_validator,
)

from baselines.options import (
    BALANCES,
    DECODERS,
    MODELS,
    BalanceSpec,
    Count,
    Decay,
    DecoderSpec,
    ModelSpec,
    Positive,
    Size,
    Spec,
)
from bench.errors import RequestError
from bench.files import digest
from bench.metrics import at_temperature

SCHEMA = 2
"""Of runs and records; part of every run's id, so a change of meaning is a new experiment."""

INT64 = 2**63 - 1
"""The largest seed and step number that torch and pandas take."""

HISTORY = "history.jsonl"
"""The file in a run's folder that gains a line with each epoch."""

CHECKPOINT = "checkpoint.pt"
"""The file in a run's folder that holds its whole training state, until the run is done."""

ELBO = "elbo"
"""The balance that weighs nothing: a run with it has none in its record and in its id."""

Precision = Literal["float32", "bfloat16"]
Split = Literal["validation", "test"]

SampleKind = Literal["means", "sampled", "reconstructions"]
"""Generated images whose features are compared with real ones: decoder means of prior draws, draws
from p(x|z) of the same, decoder means of posterior draws."""


class Value(BaseModel):
    """A frozen value whose unknown keys are errors."""

    model_config = ConfigDict(frozen=True, extra="forbid")


class Settings(Value):
    """Settings of which a record leaves out those that are off.

    Records are older than these, and a run without them keeps its id.
    """

    always: ClassVar[frozenset[str]]
    """Those that every record holds."""

    @model_serializer(mode="wrap")
    def _without_what_is_off(self, dump: SerializerFunctionWrapHandler) -> dict[str, Any]:
        off = self.off()
        return {k: v for k, v in dump(self).items() if k not in off or getattr(self, k) != off[k]}

    @classmethod
    def off(cls) -> dict[str, Any]:
        """The settings that a record leaves out where they have these values."""
        return {k: field.default for k, field in cls.model_fields.items() if k not in cls.always}


class TrainingSettings(Settings):
    """What a grid and a run say alike of optimisation.

    It lasts `epochs` or `steps`, one of the two. An option that is off is in no record and moves no
    id. `docs/grids.md` says what each means.

    >>> TrainingSettings(steps=500, ema=0.999).model_dump()
    {'batch': 128, 'optimizer': 'adam', 'lr': 0.001, 'steps': 500, 'ema': 0.999}
    """

    always = frozenset({"batch", "optimizer", "lr", "precision"})

    epochs: Size | None = 10
    batch: Size = 128
    optimizer: Literal["adam", "adamw"] = "adam"
    lr: Positive = 1e-3
    steps: Size | None = None
    betas: tuple[Decay, Decay] = (0.9, 0.999)
    weight_decay: Annotated[FiniteFloat, Field(ge=0)] = 0.0
    warm_up: Count = 0
    schedule: Literal["constant", "cosine"] = "constant"
    clip: Positive | None = None
    skip: Positive | None = None
    ema: Decay | None = None
    flips: StrictBool = False
    dequantise: StrictBool = False

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        if self.steps is not None and "epochs" not in self.model_fields_set:
            # Not in a `before` validator: behind one, a strict reader of JSON takes no list for a
            # tuple.
            self.__dict__["epochs"] = None
        if (self.epochs is None) == (self.steps is None):
            raise ValueError("expected `epochs` or `steps`, one of the two (the other null)")
        if self.weight_decay and self.optimizer != "adamw":
            raise ValueError("`weight_decay` needs `optimizer: adamw`")
        if self.steps is not None and self.warm_up >= self.steps:
            raise ValueError("`warm_up` must be below `steps`")
        return self

    @classmethod
    def off(cls) -> dict[str, Any]:
        return {**super().off(), "epochs": None}

    @property
    def unit(self) -> Literal["epochs", "steps"]:
        """What the length of training is given in."""
        return "epochs" if self.steps is None else "steps"

    @property
    def length(self) -> int:
        """How many `unit` training lasts."""
        length: int = getattr(self, self.unit)
        return length

    def done(self, line: Mapping[str, float]) -> int:
        """How many `unit` were done when an epoch wrote this line of history.jsonl."""
        return int(line["epoch"]) + 1 if self.unit == "epochs" else int(line["steps"])

    def steps_over(self, images: int) -> int:
        """How many steps training takes on so many images.

        >>> TrainingSettings(epochs=3, batch=128).steps_over(1000)  # 7 an epoch
        21
        """
        return self.length * (1 if self.unit == "steps" else images // self.batch)

    def epochs_over(self, images: int) -> int:
        """The same in epochs, the last of which `steps` may end early."""
        return -(-self.steps_over(images) // (images // self.batch))


class Training(TrainingSettings):
    """How a run is optimised; every epoch drops the last, incomplete batch."""

    precision: Precision = "float32"


class Features(Value):
    """The network whose features the Fréchet distance compares.

    `source` is the file of its weights on this machine, which no record keeps.
    """

    name: str
    metric: str
    sha256: str
    source: str = Field(default="", exclude=True)


def _at_least_three(samples: int) -> int:
    """The kernel distance's standard error needs three images a side."""
    if samples in (1, 2):
        raise ValueError("at least 3, or 0 for no distances")
    return samples


TEMPERATURES = 8
"""The most temperatures of one run; each costs as much as the distance itself."""


def _told_apart(temperatures: tuple[float, ...]) -> tuple[float, ...]:
    names = {at_temperature("", temperature) for temperature in (1.0, *temperatures)}
    if len(names) <= len(temperatures) or len(temperatures) > TEMPERATURES:
        raise ValueError(
            f"expected at most {TEMPERATURES} numbers, each once (six digits count) and not 1, "
            "which is always measured"
        )
    return tuple(sorted(temperatures))


class EvaluationSettings(Settings):
    """What a grid and a run say alike of what is measured."""

    always = frozenset({"samples", "iwae", "distances", "batch", "split", "features", "precision"})

    samples: Annotated[Count, AfterValidator(_at_least_three)] = 10_000
    iwae: Count = 64
    distances: tuple[SampleKind, ...] = ("means", "sampled", "reconstructions")
    temperatures: Annotated[tuple[Positive, ...], AfterValidator(_told_apart)] = ()
    rollouts: Count = 0
    clips: Annotated[Size, Field(ge=2)] = 256
    batch: Size = 100

    @property
    def compared(self) -> int:
        """How many images of the model the distances take features of, at most."""
        return self.samples * (len(self.distances) + len(self.temperatures))


class Evaluation(EvaluationSettings):
    """What is measured, on which split, and the protocol that moves the numbers."""

    split: Split = "test"
    features: Features | None = None
    fvd: Features | None = None
    precision: Precision = "float32"


class Run(Value):
    """One experiment: a model with a decoder, trained once under a balance, and measured.

    `id` is the hash of everything that decides its numbers. The name of the data set is left out of
    it, as it only says where the data were found; the hash of their content is in. `data` says
    where they are, if that is not the name; no record keeps it.
    """

    dataset: str
    data: str | None = None
    content: str | None
    model: SerializeAsAny[ModelSpec]
    decoder: SerializeAsAny[DecoderSpec]
    balance: SerializeAsAny[BalanceSpec] = Field(default_factory=lambda: BALANCES[ELBO](name=ELBO))
    seed: int
    split_seed: int
    training: Training
    evaluation: Evaluation

    @property
    def identity(self) -> dict[str, Any]:
        """The canonical content behind `id`."""
        if self.content is None:
            raise RequestError(f"dataset {self.dataset} is not prepared, so its runs have no id")
        return {"schema": SCHEMA, **self.model_dump(mode="json", exclude={"dataset", "data"})}

    @cached_property
    def id(self) -> str:
        """16 hexadecimal digits of the sha256 of the canonical JSON of `identity`."""
        return digest(self.identity)[:16]

    def model_copy(self, *, update: Mapping[str, Any] | None = None, deep: bool = False) -> Self:
        copied = super().model_copy(update=update, deep=deep)
        copied.__dict__.pop("id", None)  # another experiment has another id
        return copied

    @model_serializer(mode="wrap")
    def _with_plugins(self, dump: SerializerFunctionWrapHandler) -> dict[str, Any]:
        fields = dump(self)
        if self.data is None:
            fields.pop("data", None)
        if self.balance.name == ELBO:
            fields.pop("balance", None)
        return {**fields, **({"plugins": self.plugins} if self.plugins else {})}

    @property
    def place(self) -> str:
        """What `bench.data` calls the data set."""
        return self.data or self.dataset

    @property
    def plugins(self) -> dict[str, str]:
        """The sha256 of the source behind each part, where that is a user's own."""
        sources = {part: getattr(self, part).source for part in ("model", "decoder", "balance")}
        return {part: source for part, source in sources.items() if source is not None}

    @property
    def training_id(self) -> str:
        """The same of what decides the trained weights: `identity` without the evaluation."""
        identity = self.identity
        del identity["evaluation"]
        return digest(identity)[:16]

    @classmethod
    def read(cls, fields: Mapping[str, Any]) -> "Run":
        """The Run that `model_dump` wrote, or the file `run.json`, which has the id as well.

        Raises:
            RequestError: its model, decoder or balance is not here, or comes from another source.
        """
        specs: dict[str, Spec] = {}
        registries: Mapping[str, Mapping[str, type[Spec]]]
        registries = {"model": MODELS, "decoder": DECODERS, "balance": BALANCES}
        for part, registry in registries.items():
            options = fields.get(part, {"name": ELBO}) if part == "balance" else fields[part]
            source = fields.get("plugins", {}).get(part)
            kind = registry.get(options["name"])
            if kind is None or kind.source != source:
                raise RequestError(f"the {part} '{options['name']}' of this run is not here")
            specs[part] = kind(**options)
        own = {key: value for key, value in fields.items() if key not in ("plugins", "id")}
        return cls(**own | specs)
