"""A grid becomes rows (data set x model x decoder x balance), with their runs and searches."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import TypeVar

from pydantic import BaseModel

from baselines.levels import misfit
from baselines.options import MODELS, ModelSpec
from bench import data
from bench.devices import resolve_precision
from bench.errors import RequestError
from bench.grid.knob import Knob, Number, Values, with_values
from bench.grid.schema import BalanceEntry, DecoderEntry, Grid, Search, Tuning
from bench.metrics import draws, is_distance
from bench.run import PRIOR, Evaluation, Features, Outsiders, Run, Training

M = TypeVar("M", bound=BaseModel)


@dataclass(frozen=True)
class Row:
    """A row of the table: runs that differ in nothing but the seed.

    Where a `search` sets `knobs`, `runs` hold the low ends of their ranges instead.

    lender: the row whose search sets options of this one as well, see `lent`.
    lends_only: its search is wanted for other rows, its runs are not.
    """

    runs: tuple[Run, ...]
    knobs: tuple[Knob, ...] = ()
    search: Search | None = None
    lender: "Row | None" = None
    lends_only: bool = False

    @property
    def lent(self) -> tuple[Knob, ...]:
        """The options that another row's search sets."""
        return tuple(k for k in self.lender.knobs if k.each == "model") if self.lender else ()

    @property
    def finals(self) -> tuple[Run, ...]:
        """The runs that are wanted for the table."""
        return () if self.lends_only else self.runs

    @property
    def lowest(self) -> Values:
        """The low end of every knob's range, as its runs have it."""
        return tuple(knob.lowest for knob in self.knobs)

    @property
    def start(self) -> tuple[Values, ...]:
        """The values that its search tries first; none where it has no search."""
        return self.search.start(self.knobs) if self.search else ()

    @property
    def trial_runs(self) -> int:
        """The most runs that its search takes."""
        return self.search.trials * len(self.search.seeds) if self.search else 0


ONLY = ("dataset", "model", "decoder", "balance", "seed")


def expand(
    grid: Grid,
    *,
    device: str,
    features: Features | None,
    fvd: Features | None = None,
    only: Sequence[str] = (),
    prepare: bool = False,
) -> list[Row]:
    """The rows of a grid on `device`, `auto` settings resolved to what they mean there.

    Arguments:
        features: what the grid's `evaluation.features` means here.
        fvd: the same of `evaluation.fvd`.
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
        fvd=fvd,
        temperatures=grid.evaluation.temperatures,
        sampler=grid.evaluation.sampler if features and grid.evaluation.samples else (PRIOR,),
        rollouts=grid.evaluation.rollouts,
        clips=grid.evaluation.clips,
        batch=grid.evaluation.batch,
        precision=resolve_precision(grid.evaluation.precision, device),
    )
    rows = []
    for dataset, place in ((entry.name, entry.data) for entry in grid.datasets):
        if chosen and dataset not in chosen.get("dataset", [dataset]):
            continue
        description = (data.prepare if prepare else data.describe)(place, grid.split_seed)
        for option in _ends(training, grid.search):
            _check_training(option, dataset, place, description)
        outsiders = _outsiders(grid, dataset, place, description, prepare)
        content = description.content if description and outsiders is not None else None
        frames = data.frames(place)
        for model in grid.models:
            for spec in _ends(model.spec, model):
                fault = _unfit(spec, frames)
                if description is not None:
                    fault = fault or misfit(spec, description.resolution)
                if fault:
                    raise RequestError(f"model {spec.name} on {dataset}: {fault}")
            lender, lends = None, False
            for decoder, balance in _pairs(grid):
                if description and (fault := decoder.spec.misfit(description.channels)):
                    raise RequestError(f"decoder {decoder.spec.name} on {dataset}: {fault}")
                specs = {"decoder": decoder.spec, "balance": balance.spec, "model": model.spec}
                tunings: tuple[Tuning, ...] = (decoder, balance, model, grid.search)
                search = next((one.search for one in tunings if one.search), None)
                if search:
                    _check_objective(search, evaluation.features)
                runs = tuple(
                    Run(
                        dataset=dataset,
                        data=None if place == dataset else place,
                        content=content,
                        binarised=data.binarised(place),
                        split_seed=grid.split_seed,
                        model=model.spec,
                        decoder=decoder.spec,
                        balance=balance.spec,
                        training=training,
                        evaluation=evaluation.model_copy(update={"ood": outsiders or ()}),
                        seed=seed,
                    )
                    for seed in grid.seeds
                    if str(seed) in chosen.get("seed", [str(seed)])
                )
                row = Row(runs, tuple(knob for one in tunings for knob in one.knobs), search)
                wanted = all(s.name in chosen.get(part, [s.name]) for part, s in specs.items())
                if lender is not None:
                    row = _borrowing(row, lender)
                elif any(knob.each == "model" for knob in row.knobs):
                    lender = row
                if not (runs and wanted):
                    continue
                if row.lender is not None and not lends:
                    rows.append(replace(row.lender, lends_only=True))
                lends = True
                rows.append(row)
    if not rows:
        raise RequestError(f"--only {' '.join(only)}: no run of grid '{grid.name}' fits")
    return rows


def _borrowing(row: Row, lender: Row) -> Row:
    """The row with the options that all of its model's rows share set by the lender's search."""
    knobs = tuple(knob for knob in row.knobs if knob.each == "row")
    return Row(row.runs, knobs, row.search if knobs else None, lender)


def _pairs(grid: Grid) -> Iterator[tuple[DecoderEntry, BalanceEntry]]:
    """The decoders, each under every balance that takes it."""
    for decoder in grid.decoders:
        for balance in grid.balances:
            if balance.takes(decoder):
                yield decoder, balance


def _ends(part: M, tuning: Tuning) -> Iterator[M]:
    """A part of a run with every knob at its low end, and with every one at its high end."""
    yield part
    if tuning.knobs:
        highest = {knob.option: knob.rounded(knob.high) for knob in tuning.knobs}
        yield part.model_validate({**part.model_dump(), **highest})


def _check_training(
    training: Training, dataset: str, place: str, description: data.Description | None
) -> None:
    if training.dequantise and data.binarised(place):
        raise RequestError(
            f"dataset {dataset} is black and white, which `training.dequantise` makes continuous; "
            "leave one of the two out"
        )
    images = description.train if description else data.training_images(place)
    if images is not None and images < training.batch:
        raise RequestError(
            f"training.batch {training.batch} is larger than the {images} training images of "
            f"{dataset}; choose a smaller batch"
        )
    if description is not None and training.warm_up >= training.steps_over(description.train):
        raise RequestError(
            f"training.warm_up {training.warm_up} is not below the "
            f"{training.steps_over(description.train)} steps on {dataset}; choose a smaller one"
        )


def _outsiders(
    grid: Grid, dataset: str, place: str, own: data.Description | None, prepare: bool
) -> tuple[Outsiders, ...] | None:
    """The other data sets of `evaluation.ood`; None where one has to be prepared first."""
    found = []
    for name in grid.evaluation.ood:
        if name == place:
            continue
        other = (data.prepare if prepare else data.describe)(name, grid.split_seed)
        if other is None or own is None:
            return None
        shapes = [(of.frames, of.channels, of.resolution) for of in (own, other)]
        if shapes[0] != shapes[1]:
            raise RequestError(
                f"evaluation.ood {name}: {_shape(other)}, while {dataset} has {_shape(own)}; "
                "choose data of the same shape, or resize them, as in NAME@32"
            )
        found.append(Outsiders(name=name, content=other.content))
    return tuple(found)


def _shape(of: data.Description) -> str:
    side = f"{of.channels}x{of.resolution}x{of.resolution}"
    return f"videos of {of.frames} frames {side}" if of.frames > 1 else f"images of {side}"


def _unfit(model: ModelSpec, frames: int | None) -> str:
    """Why a model cannot take data of so many frames; empty where it can, or nobody knows."""
    if frames is None:
        return ""
    if not model.is_sequence:
        known = ", ".join(name for name, kind in MODELS.items() if kind.is_sequence)
        return (
            f"it is a model of images, and these are videos of {frames} frames; models of videos: "
            f"{known}"
            if frames > 1
            else ""
        )
    if frames == 1:
        return "it is a model of videos, and these are images; choose data with frames"
    past, future, horizon = (model.options[name] for name in ("past", "future", "horizon"))
    needed = past + max(future, horizon or 0)
    if frames < needed:
        return (
            f"past {past} and future {future}"
            + (f" or horizon {horizon}" if horizon else "")
            + f" need {needed} frames, and these videos have {frames}; choose smaller ones"
        )
    return ""


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
    if is_distance(search.objective):
        computed = extractor.metric if extractor else "none (features: none)"
        if search.objective != computed:
            raise RequestError(
                f"tune objective '{search.objective}' is not computed here; the grid's features "
                f"give {computed}"
            )


def trial_run(row: Row, values: Sequence[Number], seed: int) -> Run:
    """The Run of one trial of a row's search: validation split, its objective alone measured.

    Arguments:
        values: one for each of the row's knobs.
    """
    assert row.search is not None
    template = with_values(row.runs[0], row.knobs, values)
    objective = row.search.objective
    distance = is_distance(objective)
    evaluation = template.evaluation.model_copy(
        update={
            "split": "validation",
            "iwae": draws(objective),
            "samples": template.evaluation.samples if distance else 0,
            "features": template.evaluation.features if distance else None,
            "distances": ("means",) if distance else (),
            "fvd": None,
            "ood": (),
            "temperatures": (),
            "sampler": (PRIOR,),
            "rollouts": 0,
        }
    )
    return template.model_copy(update={"evaluation": evaluation, "seed": seed})
