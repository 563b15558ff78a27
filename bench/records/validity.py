"""What a record and a search's summary must hold, so that whoever reads one need not ask again.

A checksum says that a file is as somebody wrote it, not that its content makes sense.
"""

from functools import cache
from pathlib import Path
from typing import Annotated, Any, Literal, NotRequired

from pydantic import (
    AfterValidator,
    ConfigDict,
    Field,
    StringConstraints,
    TypeAdapter,
    ValidationError,
)

# Pydantic asks for this one up to Python 3.11.
from typing_extensions import TypedDict

from bench.errors import RequestError
from bench.grid.knob import Knob
from bench.run import INT64, SCHEMA, Evaluation, Features, Training

COMPLETED, DIVERGED, FAILED = "completed", "diverged", "failed"
"""How a run ended."""

LARGEST = 1e100
"""The largest measurement: the square of a larger one is soon no float any more."""

Number = Annotated[float, Field(ge=-LARGEST, le=LARGEST)]
Seconds = Annotated[float, Field(ge=0, le=1e12)]
Whole = Annotated[int, Field(ge=-INT64 - 1, le=INT64)]
Id = Annotated[str, StringConstraints(pattern="^[0-9a-z]{1,64}$")]

# What a later version adds is no fault, so unknown keys are allowed throughout; what may be absent
# from a record is so because some records are older than it.
_LATER = ConfigDict(extra="ignore", hide_input_in_errors=True)


class _Training(Training):
    model_config = _LATER


class _Features(Features):
    model_config = _LATER


class _Evaluation(Evaluation):
    model_config = _LATER

    features: _Features | None = None


class _Named(TypedDict):
    name: str


class _Run(TypedDict):
    dataset: str
    content: str
    model: _Named
    decoder: _Named
    balance: NotRequired[_Named]
    seed: Whole
    split_seed: Whole
    training: _Training
    evaluation: _Evaluation
    plugins: NotRequired[dict[str, str]]


class _Selection(TypedDict):
    rule: str
    search: NotRequired[str]


class _Likelihood(TypedDict):
    dimensions: NotRequired[Annotated[int, Field(ge=1, le=INT64)]]
    images: NotRequired[Whole]
    frames: NotRequired[Whole]
    given: NotRequired[Whole]
    frames_are: NotRequired[str]
    fitted_sigma_images: NotRequired[Whole]
    fitted_sigma_split: NotRequired[str]
    split: NotRequired[str]
    precision: NotRequired[str]
    sigma: NotRequired[str]
    of: NotRequired[str]


class _Information(TypedDict):
    bound: NotRequired[Number]


class _Distance(TypedDict):
    metric: NotRequired[str]
    extractor: NotRequired[str]
    weights_sha256: NotRequired[str]
    samples: NotRequired[Whole]
    samples_are: NotRequired[str]
    sampled_are: NotRequired[str]
    reconstructions_are: NotRequired[str]
    real_images: NotRequired[Whole]
    real_split: NotRequired[str]
    dimension: NotRequired[Whole]
    training_images: NotRequired[Whole]
    batch: NotRequired[Whole]
    precision: NotRequired[str]


class _Prediction(TypedDict):
    given: NotRequired[Whole]
    predicted: NotRequired[Whole]
    clips: NotRequired[Whole]
    rollouts: NotRequired[Whole]


class _Protocol(TypedDict):
    selection: _Selection
    likelihood: NotRequired[_Likelihood]
    information: NotRequired[_Information]
    distance: NotRequired[_Distance]
    prediction: NotRequired[_Prediction]


class _Coverage(TypedDict):
    nominal: list[Number]
    observed: list[Number]


def _paired(coverage: _Coverage) -> _Coverage:
    if len(coverage["nominal"]) != len(coverage["observed"]):
        raise ValueError("nominal and observed shares differ in number")
    return coverage


class _Curves(TypedDict):
    coverage: NotRequired[Annotated[_Coverage, AfterValidator(_paired)]]
    pit: NotRequired[Annotated[list[Number], Field(min_length=1)]]
    pit_density: NotRequired[Annotated[list[Number], Field(min_length=1)]]


class _Cost(TypedDict):
    seconds: Seconds
    images_per_second: NotRequired[Number]
    peak_memory_bytes: NotRequired[Number]


class _Environment(TypedDict):
    commit: NotRequired[str | None]
    dirty: NotRequired[bool | None]
    python: NotRequired[str]
    platform: NotRequired[str]
    device: NotRequired[str]
    device_class: NotRequired[str]
    cuda: NotRequired[str | None]
    threads: NotRequired[Whole]
    precision: NotRequired[str]
    versions: NotRequired[dict[str, str]]


class _Divergence(TypedDict):
    step: Whole
    what: str


class _Failure(TypedDict):
    type: str
    message: str


class _Record(TypedDict):
    run: _Run
    status: Literal["completed", "diverged", "failed"]
    metrics: dict[str, Number]
    protocol: _Protocol
    curves: NotRequired[_Curves]
    cost: _Cost
    environment: _Environment
    artifacts: dict[str, str]
    divergence: NotRequired[_Divergence]
    failure: NotRequired[_Failure]


class _SearchOptions(TypedDict):
    trials: Whole
    objective: str
    seeds: list[Whole]
    startup: Whole
    sampler: str
    pruner: str
    together: NotRequired[Whole]


class _Trial(TypedDict):
    values: list[Number]
    runs: list[Id]
    scores: list[Number | None]
    score: Number | None
    seconds: Seconds
    status: str


class _SearchCost(TypedDict):
    runs: Whole
    seconds: Seconds


class _Knob(Knob):
    model_config = _LATER


class _Summary(TypedDict):
    dataset: str
    model: _Named
    decoder: _Named
    balance: NotRequired[_Named]
    runs: list[Id]
    cost: _SearchCost


class _Search(_Summary):
    knobs: Annotated[list[_Knob], Field(min_length=1)]
    search: _SearchOptions
    trials: list[_Trial]
    chosen: list[Number] | None


def _within(search: _Search) -> _Search:
    knobs = search["knobs"]
    for values in [search["chosen"], *(trial["values"] for trial in search["trials"])]:
        if values is None:
            continue
        if len(values) != len(knobs):
            raise ValueError("a value for each of the knobs is expected")
        if not all(k.low <= value <= k.high for k, value in zip(knobs, values, strict=True)):
            raise ValueError("a value is outside its range")
    return search


class _RangeOfOne(_SearchOptions):
    low: Number
    high: Number


class _TrialOfOne(TypedDict):
    value: Number
    runs: list[Id]
    scores: list[Number | None]
    score: Number | None
    seconds: Seconds
    status: str


class _SearchOfOne(_Summary):
    """Of a version that tuned one option of a decoder."""

    option: str
    search: _RangeOfOne
    trials: list[_TrialOfOne]
    chosen: Number | None


def _within_one(search: _SearchOfOne) -> _SearchOfOne:
    low, high = search["search"]["low"], search["search"]["high"]
    values = [search["chosen"], *(trial["value"] for trial in search["trials"])]
    if not 0 < low < high or not all(value is None or low <= value <= high for value in values):
        raise ValueError("a value is outside its range")
    return search


_OPTIONS = Annotated[_Search, AfterValidator(_within)]
_ONE_OPTION = Annotated[_SearchOfOne, AfterValidator(_within_one)]


class _WeightsNote(TypedDict):
    run: Id
    files: dict[str, str]


@cache
def _adapter(kind: Any) -> TypeAdapter[Any]:
    # Made at the first use: the command line starts without.
    return TypeAdapter(kind)


def _fault(kind: Any, text: bytes) -> str:
    try:
        # Strict: a number as text is no number. As JSON, a list may stand for a tuple.
        _adapter(kind).validate_json(text, strict=True)
    except ValidationError as error:
        first = error.errors(include_input=False, include_url=False)[0]
        place = ".".join(map(str, first["loc"])) or "value"
        return f"has a wrong `{place}` ({first['msg'][0].lower()}{first['msg'][1:]})"
    return ""


def _other_schema(content: dict[str, Any]) -> bool:
    schema = content.get("schema")
    return type(schema) is int and schema != SCHEMA


def record_fault(path: Path, text: bytes, record: dict[str, Any]) -> str:
    """What is wrong with the record of the run whose folder `path` is in; empty for nothing.

    A record of another schema needs no more than an id.
    """
    identity = record.get("id")
    if not isinstance(identity, str):
        return "has no `id`"
    if _other_schema(record):
        return ""
    if type(record.get("schema")) is not int:
        return "has no `schema` that is a whole number"
    if identity != path.parent.name:
        return f"is of run {identity:.40}"
    return _fault(_Record, text)


def search_fault(path: Path, text: bytes, search: dict[str, Any]) -> str:
    """What is wrong with the summary of a search; empty for nothing."""
    if type(search.get("schema")) is not int:
        return "has no `schema` that is a whole number"
    if search.get("id") != path.stem:
        return "has an `id` that is not its name"
    if _other_schema(search):
        return ""
    return _fault(_ONE_OPTION if "option" in search else _OPTIONS, text)


def weights_fault(path: Path, text: bytes, note: dict[str, Any]) -> str:
    """What is wrong with the note of a run's weights; empty for nothing."""
    return _fault(_WeightsNote, text)


def check_schema(record: dict[str, Any]) -> None:
    """Refuse a record of another version.

    Raises:
        RequestError: its schema is not ours.
    """
    if record["schema"] != SCHEMA:
        raise RequestError(
            f"record {record['id']} has schema {record['schema']}, this version reads {SCHEMA}; "
            "use the version that wrote it, or move its folder away"
        )
