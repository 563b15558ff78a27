"""Where a training broke down: a term that is not finite, or steps that are all skipped."""

from dataclasses import dataclass

from torch import Tensor

from baselines.vae import Terms
from bench.run import Training

COLUMNS = (*Terms._fields, "weight")
"""What is logged of each step; the weight of the rate only under a balance that has one."""

PATIENCE = 100
"""Skipped steps in a row at the end of an epoch that end a training; fewer where it has fewer."""


@dataclass(frozen=True)
class Divergence:
    """Where and why a training ended early; a result of the run, not a crash.

    `step` counts from 0 over the whole run; `what` is the first term that was not finite, or
    "every step skipped"; `reason` is the same as a sentence; `last` holds the terms of the last
    step before.
    """

    step: int
    what: str
    last: dict[str, float]
    reason: str


def find_divergence(
    terms: Tensor, first: int, before: dict[str, float], training: Training, patience: int
) -> Divergence | None:
    """What ends a training after these steps, or None.

    Where the run skips steps, a row of NaN is a skipped one.

    Arguments:
        terms: (steps, len(Terms)) or (steps, len(COLUMNS)), on the CPU.
        first: the number of the first of them in the run.
        before: the terms before them; empty where there are none.
        patience: how many skipped steps in a row are too many.
    """
    finite = terms.isfinite()
    steps = finite.all(dim=1)
    if training.skip is None:
        bad = (~steps).nonzero()
        if not len(bad):
            return None
        step = int(bad[0])
        # The loss is the sum of the others: name the term that is not finite.
        names = [n for n, ok in zip(COLUMNS, finite[step].tolist(), strict=False) if not ok]
        what = next((name for name in names if name != "loss"), "loss")
        reason = f"{what} was not finite"
    else:
        taken = steps.nonzero()
        step = int(taken[-1]) + 1 if len(taken) else 0
        skipped = len(terms) - step
        if skipped < patience:
            return None
        what = "every step skipped"
        reason = (
            f"the last {skipped} steps were all skipped, as the norm of the gradient was above "
            f"{training.skip:g} or something was not finite; raise `skip` or lower `lr`"
        )
    if step:
        before = dict(zip(COLUMNS, terms[step - 1].tolist(), strict=False))
    return Divergence(first + step, what, before, reason)


def mean_terms(terms: Tensor, training: Training) -> dict[str, float]:
    """The mean of each column over the steps (steps, columns) that were taken.

    Where the run skips steps it has `skipped`, their number, as well; where all were skipped it has
    no means.

    >>> import torch
    >>> mean_terms(torch.tensor([[3.0, 2.0, 1.0, 0.5], [torch.nan] * 4]), Training(skip=400))
    {'loss': 3.0, 'distortion': 2.0, 'rate': 1.0, 'sigma': 0.5, 'skipped': 1}
    """
    taken = terms[terms.isfinite().all(dim=1)]
    means = dict(zip(COLUMNS, taken.mean(0).tolist(), strict=False)) if len(taken) else {}
    return means if training.skip is None else {**means, "skipped": len(terms) - len(taken)}
