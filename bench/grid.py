"""Grid and Run: what to run, its expansion, and a run's identity.

A grid is a YAML file, checked to the last key; it expands to rows (dataset x model x decoder),
each a list of Runs or a search followed by Runs. No torch in here.
"""

import difflib
import math
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from importlib import resources
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Generic, Literal, Self, TypeVar

import yaml
from pydantic import (
    AfterValidator,
    BaseModel,
    ConfigDict,
    Field,
    SerializeAsAny,
    SerializerFunctionWrapHandler,
    StrictInt,
    ValidationError,
    model_serializer,
)

from baselines.specs import (
    DECODERS,
    MODELS,
    DecoderSpec,
    ModelSpec,
    Positive,
    Size,
    Spec,
)
from bench import data, plugins
from bench.devices import resolve_precision
from bench.errors import RequestError
from bench.files import digest

if TYPE_CHECKING:
    from bench.mixture import MixtureGrid

SCHEMA = 1
"""Of runs and records; part of every run's id, so a change of meaning is a new experiment."""

Precision = Literal["float32", "bfloat16"]
Split = Literal["validation", "test"]
Pictures = Literal["means", "sampled", "reconstructions"]
"""Generated images whose features are compared with real ones: decoder means of prior draws, draws
from p(x|z) of the same, decoder means of posterior draws."""
Path_ = tuple[str | int, ...]
Name = Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]*$")]
T = TypeVar("T", bound=BaseModel)
S = TypeVar("S", bound=Spec)


class Value(BaseModel):
    """A frozen value whose unknown keys are errors."""

    model_config = ConfigDict(frozen=True, extra="forbid")


# -- a run -------------------------------------------------------------------------------------


class Training(Value):
    """How a run is optimised; every epoch drops the last, incomplete batch."""

    epochs: Size = 10
    batch: Size = 128
    optimizer: Literal["adam"] = "adam"
    lr: Positive = 1e-3
    precision: Precision = "float32"


class Features(Value):
    """The network whose features the Fréchet distance compares.

    `source` says where it lies on this machine, which no record tells.
    """

    name: Literal["inception", "efficientnet_lite0", "torchscript"]
    metric: str
    sha256: str
    source: str = Field(default="", exclude=True)


class Evaluation(Value):
    """What is measured, on which split, and the protocol that moves the numbers."""

    split: Split = "test"
    samples: Annotated[int, Field(ge=0)] = 10_000
    iwae: Annotated[int, Field(ge=0)] = 64
    features: Features | None = None
    distances: tuple[Pictures, ...] = ("means", "sampled", "reconstructions")
    batch: Size = 100
    precision: Precision = "float32"


class Experiment(Value):
    """What a record is of; `id` is the hash of all that decides its numbers.

    The data set's name only says where it was found and is left out; its content's hash is in.
    """

    dataset: str
    content: str | None
    model: SerializeAsAny[Spec]
    decoder: SerializeAsAny[Spec]
    seed: int

    @property
    def identity(self) -> dict[str, Any]:
        """The canonical content behind `id`."""
        if self.content is None:
            raise RequestError(f"dataset {self.dataset} is not prepared, so its runs have no id")
        return {"schema": SCHEMA, **self.model_dump(mode="json", exclude={"dataset"})}

    @cached_property
    def id(self) -> str:
        """16 hexadecimal digits of the sha256 of the canonical JSON of `identity`."""
        return digest(self.identity)[:16]

    def model_copy(self, *, update: Mapping[str, Any] | None = None, deep: bool = False) -> Self:
        copied = super().model_copy(update=update, deep=deep)
        copied.__dict__.pop("id", None)  # another experiment has another id
        return copied


E = TypeVar("E", bound=Experiment, covariant=True)


class Run(Experiment):
    """One experiment: a model with a decoder, trained once on one data set and measured."""

    split_seed: int
    model: SerializeAsAny[ModelSpec]
    decoder: SerializeAsAny[DecoderSpec]
    training: Training
    evaluation: Evaluation

    @model_serializer(mode="wrap")
    def _with_plugins(self, dump: SerializerFunctionWrapHandler) -> dict[str, Any]:
        return {**dump(self), **({"plugins": self.plugins} if self.plugins else {})}

    @property
    def plugins(self) -> dict[str, str]:
        """The sha256 of the source behind the model and the decoder, where that is a user's own."""
        sources = {"model": self.model.source, "decoder": self.decoder.source}
        return {part: source for part, source in sources.items() if source is not None}

    @property
    def training_id(self) -> str:
        """The same of what decides the trained weights: `identity` without the evaluation."""
        identity = self.identity
        del identity["evaluation"]
        return digest(identity)[:16]

    @classmethod
    def read(cls, fields: Mapping[str, Any]) -> "Run":
        """The Run that `model_dump` wrote.

        Raises:
            RequestError: its model or its decoder is not here, or comes from another source.
        """
        specs: dict[str, Spec] = {}
        registries: Mapping[str, Mapping[str, type[Spec]]] = {"model": MODELS, "decoder": DECODERS}
        for part, registry in registries.items():
            options, source = fields[part], fields.get("plugins", {}).get(part)
            kind = registry.get(options["name"])
            if kind is None or kind.source != source:
                raise RequestError(f"the {part} '{options['name']}' of this run is not here")
            specs[part] = kind(**options)
        return cls(**{key: fields[key] for key in fields if key != "plugins"} | specs)


# -- a grid ------------------------------------------------------------------------------------


class Search(Value):
    """A search for one decoder option: log-uniform between `low` and `high`, on validation data.

    The first `startup` trials (by default half of them, and at least four) stand evenly spaced in
    the logarithm; Optuna's `sampler` places the rest. A trial is one Run for each of `seeds`, which
    no row of the grid uses; with several, `pruner` may stop a trial after any of them.
    """

    low: Positive
    high: Positive
    trials: Size
    objective: Annotated[str, Field(pattern=r"^(neg_log_p|iwae_[1-9]\d*|fid|fd_\S+)$")] = (
        "neg_log_p"
    )
    seeds: Annotated[tuple[StrictInt, ...], Field(min_length=1)] = (1000,)
    startup: Size | None = None
    sampler: Literal["gp", "tpe", "random", "qmc"] = "gp"
    pruner: Literal["none", "median", "wilcoxon"] = "none"
    sampler_seed: int = 0

    @property
    def evenly_spaced(self) -> tuple[float, ...]:
        """The first values to try, in the middles of equal parts of [ln low, ln high]."""
        half = max(4, math.ceil(self.trials / 2))
        count = min(self.trials, self.startup or half)
        span = math.log(self.high / self.low)
        values = (self.low * math.exp(span * (index + 0.5) / count) for index in range(count))
        return tuple(significant(value, self.low, self.high) for value in values)


def significant(value: float, low: float, high: float) -> float:
    """A tried value to four significant digits, inside its range.

    The last bits of a sampler's float are no new experiment.
    """
    return min(max(float(f"{value:.4g}"), low), high)


class TrainingOptions(Training):
    precision: Literal["auto", "float32", "bfloat16"] = "auto"  # type: ignore[assignment]


def _enough(samples: int) -> int:
    """The kernel distance's standard error needs three images a side."""
    if samples in (1, 2) or samples < 0:
        raise ValueError("at least 3, or 0 for no distances")
    return samples


class EvaluationOptions(Value):
    samples: Annotated[int, AfterValidator(_enough)] = 10_000
    iwae: Annotated[int, Field(ge=0)] = 64
    features: str = "auto"
    distances: Annotated[tuple[Pictures, ...], Field(min_length=1)] = (
        "means",
        "sampled",
        "reconstructions",
    )
    batch: Size = 100
    precision: Literal["auto", "float32", "bfloat16"] = "float32"


class DecoderEntry(Value):
    """A decoder of the grid, and the search that fixes its `option` where it has one."""

    spec: SerializeAsAny[DecoderSpec]
    option: str | None = None
    search: Search | None = None


class Grid(Value):
    """The file's top level."""

    name: Name
    description: str = ""
    plugins: tuple[str, ...] = ()
    datasets: Annotated[tuple[str, ...], Field(min_length=1)]
    models: Annotated[tuple[SerializeAsAny[ModelSpec], ...], Field(min_length=1)]
    decoders: Annotated[tuple[DecoderEntry, ...], Field(min_length=1)]
    seeds: Annotated[tuple[Annotated[StrictInt, Field(ge=0)], ...], Field(min_length=1)]
    split_seed: int = 0
    training: TrainingOptions = TrainingOptions()
    evaluation: EvaluationOptions = EvaluationOptions()

    @property
    def finals(self) -> int:
        """How many runs its table is of; a search's trials come on top."""
        lists = (self.datasets, self.models, self.decoders, self.seeds)
        return math.prod(map(len, lists))


@dataclass(frozen=True)
class Repeats(Generic[E]):
    """A row of the table: runs that differ in nothing but the seed."""

    runs: tuple[E, ...]

    @property
    def label(self) -> str:
        run = self.runs[0]
        return f"{run.dataset} · {describe_spec(run.model)} · {describe_spec(run.decoder)}"


@dataclass(frozen=True)
class Row(Repeats[Run]):
    """A row whose decoder may have an option that a search chooses.

    With a search, `runs` still hold a placeholder for the searched option; `tuning` replaces it.
    """

    option: str | None = None
    search: Search | None = None

    @property
    def label(self) -> str:
        run = self.runs[0]
        if self.search is None:
            return super().label
        tuned = f"{run.decoder.name} ({self.option} tuned)"
        return f"{run.dataset} · {describe_spec(run.model)} · {tuned}"


def describe_spec(spec: Spec) -> str:
    """The name, and in brackets each option that differs from its default."""
    defaults = {key: field.default for key, field in type(spec).model_fields.items()}
    changed = [f"{key}={value:g}" if isinstance(value, float) else f"{key}={value}"
               for key, value in spec.options.items() if value != defaults[key]]  # fmt: skip
    return f"{spec.name} ({', '.join(changed)})" if changed else spec.name


# -- reading -----------------------------------------------------------------------------------


def bundled() -> dict[str, Path]:
    """The bundled grids by name."""
    folder = Path(str(resources.files("bench") / "grids"))
    return {path.stem: path for path in sorted(folder.glob("*.yaml"))}


def nearest(word: str, possible: Sequence[str]) -> str:
    """`did you mean 'optimal'?` where something is near, else what is possible."""
    near = difflib.get_close_matches(str(word), possible, n=1)
    return f"did you mean '{near[0]}'?" if near else f"possible: {', '.join(possible)}"


class Source:
    """A YAML text that knows the line of every key, for messages that name it."""

    def __init__(self, text: str, name: str, overrides: Sequence[str] = ()) -> None:
        self.name = name
        self.lines: dict[Path_, int] = {}
        self.overridden: dict[Path_, str] = {}
        try:
            # The composed tree has the lines; the same tree constructed has the values.
            loader = yaml.SafeLoader(text)
            node = loader.get_single_node()
            if node is None:
                raise RequestError(f"{name}: the file is empty; see `sigma-bench list grids`")
            self._walk(node, ())
            self.value: Any = loader.construct_document(node)
        except yaml.MarkedYAMLError as error:
            mark = error.problem_mark or error.context_mark
            line = mark.line + 1 if mark else 1
            raise RequestError(f"{name}:{line}: not YAML: {error.problem}") from None
        except yaml.YAMLError as error:
            raise RequestError(f"{name}: not YAML: {' '.join(str(error).split())}") from None
        if not isinstance(self.value, dict):
            raise RequestError(f"{name}:1: a grid is a mapping of keys (name, datasets, …)")
        for override in overrides:
            self._override(override)

    def _walk(self, node: yaml.Node, path: Path_) -> None:
        self.lines.setdefault(path, node.start_mark.line + 1)
        if isinstance(node, yaml.MappingNode):
            for key, child in node.value:
                inner = (*path, str(key.value))
                if inner in self.lines:
                    raise self.error(inner, f"key '{key.value}' stands twice; keep one")
                self.lines[inner] = key.start_mark.line + 1
                self._walk(child, inner)
        elif isinstance(node, yaml.SequenceNode):
            for index, child in enumerate(node.value):
                self._walk(child, (*path, index))

    def _override(self, override: str) -> None:
        keys, equals, text = override.partition("=")
        path: Path_ = tuple(int(part) if part.isdigit() else part for part in keys.split("."))
        if not equals or not all(str(part) for part in path):
            raise RequestError(f"--set {override}: expected key.path=value, as training.epochs=2")
        try:
            value = yaml.safe_load(text)
        except yaml.YAMLError:
            raise RequestError(f"--set {override}: '{text}' is not a YAML value") from None
        place: Any = self.value
        for part, after in zip(path, [*path[1:], None], strict=True):
            inside = isinstance(place, list) and isinstance(part, int) and part < len(place)
            if not isinstance(place, dict) and not inside:
                raise RequestError(f"--set {override}: there is no '{part}' to set")
            if after is None:
                place[part] = value
            else:
                place = place[part] if inside else place.setdefault(part, {})
        self.overridden[path] = override

    def error(self, path: Path_, message: str) -> RequestError:
        """`quick.yaml:7: decoders.4: message`, or the `--set` that brought the value."""
        for changed, override in self.overridden.items():
            # Inside what was set, or a key that only the setting brought in.
            if changed == path[: len(changed)] or (
                changed[: len(path)] == path and path not in self.lines
            ):
                return RequestError(f"--set {override}: {message}")
        known = path
        while known and known not in self.lines:
            known = known[:-1]
        key = ".".join(str(part) for part in path)
        where = f"{self.name}:{self.lines.get(known, 1)}"
        return RequestError(f"{where}: {key}: {message}" if key else f"{where}: {message}")

    def check(self, model: type[T], value: Any, path: Path_) -> T:
        """`value` as `model`; the first thing wrong with it as one line."""
        if not isinstance(value, dict):
            raise self.error(path, f"expected keys ({', '.join(model.model_fields)})")
        try:
            return model.model_validate(value)
        except ValidationError as error:
            # An unknown key is usually the cause of a missing one: name it first.
            problems = sorted(error.errors(), key=lambda e: e["type"] != "extra_forbidden")
            first = problems[0]
            inner = tuple(part for part in first["loc"] if (*path, part) != path)
            raise self.error((*path, *inner), _plain(first, model, inner)) from None


def _plain(problem: Any, model: type[BaseModel], path: Path_) -> str:
    if problem["type"] == "extra_forbidden":
        fields = list(_fields_at(model, path[:-1]))
        return f"unknown key '{path[-1]}'; {nearest(str(path[-1]), fields)}"
    if problem["type"] == "missing":
        return f"'{path[-1]}' is missing"
    message = problem["msg"].removeprefix("Value error, ")
    message = message[0].lower() + message[1:]
    return f"{message}, not {problem['input']!r}"


def _fields_at(model: type[BaseModel], path: Path_) -> Iterator[str]:
    for part in path:
        inner = model.model_fields[str(part)].annotation
        assert isinstance(inner, type)
        assert issubclass(inner, BaseModel)
        model = inner
    yield from model.model_fields


def read(name: str, overrides: Sequence[str] = ()) -> "Grid | MixtureGrid":
    """The grid of a bundled name or of a path, with `--set` applied.

    A file with the key `experiment` is read by that experiment's own model.

    Raises:
        RequestError: no such grid; anything wrong in it, with file, line, key and a remedy.
    """
    path = bundled().get(name, Path(name))
    if not path.is_file():
        what = "folder" if path.is_dir() else "file"
        if path.suffix in (".yaml", ".yml") or path.is_dir():
            raise RequestError(
                f"{name}: expected a grid file, found {'a ' if path.is_dir() else 'no '}{what}"
            )
        raise RequestError(f"unknown grid '{name}'; {nearest(name, list(bundled()))}; or a path")
    try:
        text = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise RequestError(f"{name}: cannot be read: {error}") from None
    source = Source(text, path.name if name in bundled() else name, overrides)
    if "experiment" not in source.value:
        return parse(source, path.parent)
    from bench import mixture  # the experiment is built from what this module has

    return mixture.parse(source)


def parse(source: Source, folder: Path) -> Grid:
    """A checked grid from its source; its plugins' paths start from `folder`.

    This process has the plugins of the grid that it parsed last.
    """
    value = dict(source.value)
    _load_plugins(source, value.get("plugins"), folder)
    for key, registry, kind in (("models", MODELS, "model"), ("decoders", DECODERS, "decoder")):
        entries = value.get(key)
        if isinstance(entries, list):
            value[key] = tuple(
                _entry(source, entry, (key, index), registry, kind)
                for index, entry in enumerate(entries)
            )
    grid = source.check(Grid, value, ())
    for index, dataset in enumerate(grid.datasets):
        if ":" not in dataset and dataset.partition("@")[0] not in data.names():
            plugins.discover()
        try:
            data.describe(dataset, grid.split_seed)
        except RequestError as error:
            raise source.error(("datasets", index), str(error)) from None
    for index, entry in enumerate(grid.decoders):
        shared = set(grid.seeds) & set(entry.search.seeds if entry.search else ())
        if shared:
            raise source.error(
                ("decoders", index),
                f"seeds {sorted(shared)} both tune and test; give `tune` seeds of its own",
            )
        for place, model in enumerate(grid.models):
            if entry.spec.detached_outputs and not model.honours_detached_outputs:
                raise source.error(
                    ("models", place),
                    f"decoder '{entry.spec.name}' needs a model that honours `detached_outputs`",
                )
    refuse_twins(source, grid, ("plugins", "datasets", "models", "decoders", "seeds"))
    return grid


def refuse_twins(source: Source, grid: BaseModel, keys: Sequence[str]) -> None:
    """Raise where a value stands twice in one of the grid's lists."""
    for key in keys:
        seen: set[str] = set()
        for index, value in enumerate(getattr(grid, key)):
            # Values of one kind are equal where they print the same; not all of them can be hashed.
            if (text := repr(value)) in seen:
                raise source.error((key, index), "stands twice; keep one")
            seen.add(text)


def named(
    source: Source, entry: Any, path: Path_, registry: Mapping[str, type[S]], kind: str
) -> tuple[type[S], dict[str, Any]]:
    """The spec that an entry, `name` or `{name: …, option: …}`, names, and its fields unchecked."""
    fields = {"name": entry} if isinstance(entry, str) else entry
    if not isinstance(fields, dict) or not isinstance(fields.get("name"), str):
        raise source.error(path, f"expected a {kind}'s name, or {{name: …, option: …}}")
    name = fields["name"]
    if name not in registry:
        plugins.discover()
    if name not in registry:
        where = (*path, "name") if isinstance(entry, dict) else path
        raise source.error(where, f"unknown {kind} '{name}'; {nearest(name, list(registry))}")
    return registry[name], fields


def _load_plugins(source: Source, paths: Any, folder: Path) -> None:
    plugins.forget()
    for index, path in enumerate(paths if isinstance(paths, list) else ()):
        try:
            plugins.load(folder / Path(str(path)).expanduser())
        except RequestError as error:
            raise source.error(("plugins", index), str(error)) from None


def _entry(
    source: Source, entry: Any, path: Path_, registry: Mapping[str, type[Spec]], kind: str
) -> Any:
    spec_type, fields = named(source, entry, path, registry, kind)
    if kind == "model":
        return source.check(spec_type, fields, path)
    tuned = [key for key, option in fields.items() if isinstance(option, dict)]
    if not tuned:
        return DecoderEntry(spec=source.check(spec_type, fields, path))
    if len(tuned) > 1:
        raise source.error((*path, tuned[1]), "one option can be tuned at a time")
    option = tuned[0]
    inside = fields[option]
    if set(inside) != {"tune"}:
        raise source.error((*path, option), "expected a value, or {tune: {low: …, high: …}}")
    search = source.check(Search, inside["tune"], (*path, option, "tune"))
    if search.low >= search.high:
        raise source.error((*path, option, "tune"), "low must be below high")
    # Both ends must be values that the decoder takes; the low one stands in until tuned.
    source.check(spec_type, {**fields, option: search.high}, path)
    spec = source.check(spec_type, {**fields, option: search.low}, path)
    return DecoderEntry(spec=spec, option=option, search=search)


# -- expansion ---------------------------------------------------------------------------------

ONLY = ("dataset", "model", "decoder", "seed")


def expand(
    grid: Grid,
    *,
    device: str,
    features: Features | None,
    only: Sequence[str] = (),
    prepare: bool = False,
) -> list[Row]:
    """The rows of a grid on `device`, `auto` settings resolved to what they mean there.

    Arguments:
        features: what the grid's `evaluation.features` means here.
        only: `key=value` filters; the same key twice means either, different keys mean both.
        prepare: bring data into the cache where it is not; else such runs have `content` None.

    Raises:
        RequestError: a filter that fits nothing, data that cannot be read, a batch larger than
            the data, an objective that nothing computes.
    """
    chosen = filters(only)
    training = Training(
        **{
            **grid.training.model_dump(),
            "precision": resolve_precision(grid.training.precision, device),
        }
    )
    evaluation = Evaluation(
        samples=grid.evaluation.samples,
        iwae=grid.evaluation.iwae,
        features=features if grid.evaluation.samples else None,
        distances=grid.evaluation.distances if features and grid.evaluation.samples else (),
        batch=grid.evaluation.batch,
        precision=resolve_precision(grid.evaluation.precision, device),
    )
    rows = []
    for dataset in grid.datasets:
        if chosen and dataset not in chosen.get("dataset", [dataset]):
            continue
        description = (data.prepare if prepare else data.describe)(dataset, grid.split_seed)
        if description is not None and description.train < training.batch:
            raise RequestError(
                f"training.batch {training.batch} is larger than the {description.train} training "
                f"images of {dataset}; choose a smaller batch"
            )
        for model in grid.models:
            for entry in grid.decoders:
                if entry.search:
                    _check_objective(entry.search, evaluation.features)
                runs = tuple(
                    Run(
                        dataset=dataset,
                        content=description and description.content,
                        split_seed=grid.split_seed,
                        model=model,
                        decoder=entry.spec,
                        training=training,
                        evaluation=evaluation,
                        seed=seed,
                    )
                    for seed in grid.seeds
                    if str(seed) in chosen.get("seed", [str(seed)])
                )
                names = {"model": model.name, "decoder": entry.spec.name}
                if runs and all(names[k] in chosen.get(k, [names[k]]) for k in names):
                    rows.append(Row(runs, entry.option, entry.search))
    if not rows:
        raise RequestError(f"--only {' '.join(only)}: no run of grid '{grid.name}' fits")
    return rows


def filters(only: Sequence[str]) -> dict[str, list[str]]:
    """The values that `key=value` filters keep, by key; a key without a filter is not in it."""
    chosen: dict[str, list[str]] = {}
    for text in only:
        key, equals, value = text.partition("=")
        if not equals or key not in ONLY:
            raise RequestError(
                f"--only {text}: expected KEY=VALUE with KEY one of {', '.join(ONLY)}"
            )
        chosen.setdefault(key, []).append(value)
    return chosen


def _check_objective(search: Search, extractor: Features | None) -> None:
    if re.match(r"fid|fd_", search.objective):
        computed = extractor.metric if extractor else "none (features: none)"
        if search.objective != computed:
            raise RequestError(
                f"tune objective '{search.objective}' is not computed here; the grid's features "
                f"give {computed}"
            )


def trial_run(row: Row, value: float, seed: int) -> Run:
    """The Run of one trial of a row's search: validation split, its objective alone measured."""
    assert row.search is not None
    assert row.option is not None
    template = with_option(row.runs[0], row.option, value)
    objective = row.search.objective
    distance = re.match(r"fid|fd_", objective) is not None
    evaluation = template.evaluation.model_copy(
        update={
            "split": "validation",
            "iwae": int(objective.removeprefix("iwae_")) if objective.startswith("iwae_") else 0,
            "samples": template.evaluation.samples if distance else 0,
            "features": template.evaluation.features if distance else None,
            "distances": ("means",) if distance else (),
        }
    )
    return template.model_copy(update={"evaluation": evaluation, "seed": seed})


def with_option(run: Run, option: str, value: Any) -> Run:
    """The same run with one decoder option set, checked as a grid's would be."""
    decoder = type(run.decoder).model_validate({**run.decoder.model_dump(), option: value})
    return run.model_copy(update={"decoder": decoder})
