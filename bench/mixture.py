"""The mixture experiment: a grid of EM fits to two-dimensional data, one row a variance rule.

It is a grid like the others, with `experiment: mixture` as a key: its runs have ids and records in
the same store, and the same commands work on it. No torch until something is fitted.
"""

import time
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

from pydantic import Field, FiniteFloat, SerializeAsAny, StrictInt

from baselines.specs import Positive, Size, Spec
from bench.errors import RequestError
from bench.files import digest, disk_full, write_bytes
from bench.grid import (
    Experiment,
    Name,
    Repeats,
    Source,
    Value,
    filters,
    named,
    refuse_twins,
)
from bench.records import Claim, Record, Store, done

if TYPE_CHECKING:
    from baselines.mixture import SphericalMixture
    from bench.execution.local import Outcome

PATIENCE = 0.1
"""Seconds between looks at a run that another process holds."""


# -- a run -------------------------------------------------------------------------------------


class Component(Value):
    """A cloud of the data: its share of the points, its centre and its standard deviation."""

    weight: Positive
    mean: tuple[FiniteFloat, FiniteFloat]
    sigma: Positive


class Clouds(Value):
    """The known mixture that makes the data, and how many points each run draws from it."""

    name: Name = "clouds"
    train: Size = 500
    test: Annotated[int, Field(ge=2)] = 5000
    components: Annotated[tuple[Component, ...], Field(min_length=1)]

    @property
    def content(self) -> str:
        """sha256 of the recipe's canonical JSON; the points follow from it and the run's seed."""
        return digest(self.model_dump(mode="json", exclude={"name"}))


class Fixed(Spec):
    """The variance of every component is σ², as a β-VAE's is β/2."""

    name: Literal["fixed"] = "fixed"
    sigma: Positive


class Shared(Spec):
    """One variance for all components, learned: the σ-VAE of the mixtures."""

    name: Literal["shared"] = "shared"


class PerComponent(Spec):
    """Every component learns a variance of its own."""

    name: Literal["per_component"] = "per_component"


RULES: dict[str, type[Spec]] = {
    "fixed": Fixed,
    "shared": Shared,
    "per_component": PerComponent,
}


class GaussianMixture(Spec):
    """A mixture of spherical Gaussians."""

    name: Literal["gaussian_mixture"] = "gaussian_mixture"
    components: Size


MODELS: dict[str, type[Spec]] = {"gaussian_mixture": GaussianMixture}


class Em(Value):
    """How often EM begins, the likeliest fit being kept, and when each ends.

    Where σ is learned it ends at `min_sigma`; `fit` of baselines/mixture.py tells why, and what
    `iterations` and `tolerance` are.
    """

    starts: Size = 10
    iterations: Size = 5000
    tolerance: Positive = 1e-9
    min_sigma: Positive = 1e-3


class HeldOut(Value):
    """Points that no fit has seen."""

    split: Literal["test"] = "test"


class MixtureRun(Experiment):
    """One fit: the data and the start of EM are drawn anew for every seed."""

    experiment: Literal["mixture"] = "mixture"
    data: Clouds
    model: GaussianMixture
    training: Em
    evaluation: HeldOut = HeldOut()


# -- its grid ----------------------------------------------------------------------------------


class MixtureGrid(Value):
    """The file's top level; the keys that other grids have mean the same here."""

    name: Name
    description: str = ""
    experiment: Literal["mixture"]
    data: Clouds
    models: Annotated[tuple[GaussianMixture, ...], Field(min_length=1)]
    decoders: Annotated[tuple[SerializeAsAny[Spec], ...], Field(min_length=1)]
    seeds: Annotated[tuple[Annotated[StrictInt, Field(ge=0)], ...], Field(min_length=1)]
    training: Em = Em()

    @property
    def finals(self) -> int:
        """How many runs its table is of."""
        return len(self.models) * len(self.decoders) * len(self.seeds)


def parse(source: Source) -> MixtureGrid:
    """A checked grid from its source."""
    value = dict(source.value)
    for key, registry, kind in (("models", MODELS, "model"), ("decoders", RULES, "variance rule")):
        entries = value.get(key)
        if isinstance(entries, list):
            value[key] = tuple(
                source.check(*named(source, entry, (key, index), registry, kind), (key, index))
                for index, entry in enumerate(entries)
            )
    recipe = value.get("data")
    if isinstance(recipe, dict) and isinstance(recipe.get("components"), list):
        components = tuple(
            source.check(Component, component, ("data", "components", index))
            for index, component in enumerate(recipe["components"])
        )
        value["data"] = {**recipe, "components": components}
    grid = source.check(MixtureGrid, value, ())
    for index, model in enumerate(grid.models):
        if model.components > grid.data.train:
            raise source.error(
                ("models", index, "components"),
                f"{model.components} components for {grid.data.train} training points; have fewer",
            )
    refuse_twins(source, grid, ("models", "decoders", "seeds"))
    return grid


def expand(grid: MixtureGrid, only: Sequence[str] = ()) -> list[Repeats[MixtureRun]]:
    """The rows of a grid that the `key=value` filters keep.

    Raises:
        RequestError: a filter that is none, or that fits nothing.
    """
    chosen = filters(only)
    rows = []
    for model in grid.models:
        for rule in grid.decoders:
            runs = tuple(
                MixtureRun(
                    dataset=grid.data.name,
                    content=grid.data.content,
                    data=grid.data,
                    model=model,
                    decoder=rule,
                    training=grid.training,
                    seed=seed,
                )
                for seed in grid.seeds
                if str(seed) in chosen.get("seed", [str(seed)])
            )
            names = {"dataset": grid.data.name, "model": model.name, "decoder": rule.name}
            if runs and all(names[key] in chosen.get(key, [names[key]]) for key in names):
                rows.append(Repeats(runs))
    if not rows:
        raise RequestError(f"--only {' '.join(only)}: no run of grid '{grid.name}' fits")
    return rows


# -- execution ---------------------------------------------------------------------------------


def execute(
    rows: Sequence[Repeats[MixtureRun]], store: Store, device: str, jobs: int | None
) -> "Outcome":
    """Have a record for every run of `rows`, found or computed, one after another.

    Raises:
        RequestError: a device or a number of jobs that a fit of a fraction of a second cannot use.
    """
    from bench.execution.local import DISK_FULL, INTERRUPTED, Outcome

    if device.startswith("cuda"):
        raise RequestError(f"--device {device}: a mixture is fitted on the CPU; leave --device out")
    if jobs not in (None, 1):
        raise RequestError(f"--jobs {jobs}: a mixture's fits take turns; leave --jobs out")
    outcome = Outcome()
    wanted = {run.id: run for row in rows for run in row.runs}
    try:
        for run in wanted.values():
            outcome.records[run.id], new = _settle(run, store)
            outcome.new += new
    except KeyboardInterrupt:  # a fit of a fraction of a second is not worth a checkpoint
        outcome.stopped = INTERRUPTED
    except OSError as error:
        if not disk_full(error):
            raise
        outcome.stopped = DISK_FULL
    outcome.left = len(wanted) - len(outcome.records)
    return outcome


def _settle(run: MixtureRun, store: Store) -> tuple[Record, bool]:
    """The run's record, and whether it was computed here."""
    while True:
        record = store.record(run)
        if done(record):
            return record, False
        with store.claim(run) as claim:
            if claim is not None and not done(store.record(run)):
                return _compute(run, claim), True
        time.sleep(PATIENCE)  # another process is at it


def _compute(run: MixtureRun, claim: Claim) -> Record:
    from bench.execution.local import BY_HAND
    from bench.execution.worker import recorded

    with recorded(run, claim, BY_HAND, "cpu", "float64") as record:
        _measure(run, claim.folder, record)
    return record


def _measure(run: MixtureRun, folder: Path, record: Record) -> None:
    """Draw the data, fit, score the held-out points; nats per point."""
    from safetensors.torch import save

    from baselines import mixture
    from bench.execution.worker import finite
    from bench.streams import generator

    truth, rule = _truth(run.data), run.decoder
    train = truth.sample(run.data.train, generator(run.seed, "mixture/train"))
    test = truth.sample(run.data.test, generator(run.seed, "mixture/test"))
    variance = rule.sigma**2 if isinstance(rule, Fixed) else None
    began = time.perf_counter()
    fits = []
    for number in range(run.training.starts):
        drawn = generator(run.seed, "mixture/start", number)
        start = mixture.initial(train, run.model.components, drawn, variance)
        fits.append(
            mixture.fit(
                train,
                start,
                rule.name,  # type: ignore[arg-type]
                iterations=run.training.iterations,
                tolerance=run.training.tolerance,
                min_variance=run.training.min_sigma**2,
            )
        )
    fit = max(fits, key=lambda fit: float(fit.log_likelihoods[-1]))
    record["cost"]["training_seconds"] = time.perf_counter() - began
    log_prob, fitted = fit.mixture.log_prob(test), fit.mixture
    record["metrics"] |= finite(
        {
            "neg_log_p": -float(log_prob.mean()),
            "neg_log_p_se": float(log_prob.std()) / len(test) ** 0.5,
            "neg_log_p_train": -float(fitted.log_prob(train).mean()),
            "neg_log_p_truth": -float(truth.log_prob(test).mean()),
            "sigma": rule.sigma if isinstance(rule, Fixed) else fitted.sigma,
            # Beyond this it would tell of EM's tolerance.
            "components_used": round(fitted.components_used(train), 6),
            "iterations": float(len(fit.log_likelihoods)),
        }
    )
    record["protocol"]["mixture"] = {"split": run.evaluation.split, "converged": fit.converged}
    weights = folder / "weights.safetensors"
    tensors = {"points": train}
    for name, mixed in (("fit", fitted), ("truth", truth)):
        tensors[f"{name}.weights"] = mixed.weights
        tensors[f"{name}.means"] = mixed.means
        tensors[f"{name}.variances"] = mixed.variances
    write_bytes(weights, save(tensors))
    record["artifacts"]["weights"] = weights.name


def _truth(clouds: Clouds) -> "SphericalMixture":
    import torch

    from baselines.mixture import SphericalMixture

    weights, means, sigmas = (
        torch.tensor([getattr(cloud, key) for cloud in clouds.components], dtype=torch.float64)
        for key in ("weight", "mean", "sigma")
    )
    return SphericalMixture(weights / weights.sum(), means, sigmas.square())
