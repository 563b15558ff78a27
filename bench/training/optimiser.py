"""From gradients to new parameters: skip, clip, schedule, Adam, average."""

import math
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor
from torch.nn.utils import clip_grad_norm_
from torch.optim.adam import adam
from torch.optim.adamw import adamw

from baselines.vae import Vae
from bench.run import TrainingSettings

KINDS = {"adam": adam, "adamw": adamw}
"""torch's functions. Its classes import its compiler first, which takes each worker a second."""


def rate_factor(taken: Tensor, settings: TrainingSettings, total: int) -> Tensor:
    """What the learning rate is multiplied by in the next step.

    It rises linearly to 1 in the first `warm_up` steps, the first of which has 1/`warm_up`. A
    cosine then takes it to 0 at the end (Loshchilov & Hutter 2017, equation 5, without restarts).

    Arguments:
        taken: (), how many of the `total` steps were taken.

    >>> settings = TrainingSettings(steps=10, warm_up=2, schedule="cosine")
    >>> [round(rate_factor(torch.tensor(step), settings, 10).item(), 3) for step in (0, 2, 6, 10)]
    [0.5, 1.0, 0.5, 0.0]
    """
    warm_up = settings.warm_up
    factor = ((taken + 1) / max(1, warm_up)).clamp(max=1)
    if settings.schedule == "cosine":
        progress = ((taken - warm_up) / max(1, total - warm_up)).clamp(min=0)
        factor = factor * (1 + torch.cos(math.pi * progress)) / 2
    return factor


@dataclass
class Group:
    """Parameters of one learning rate, and what Adam keeps of each.

    A rate that a schedule changes is `moving`, (), which a CUDA graph reads anew at each step.
    """

    rate: float
    moving: Tensor | None = None
    parameters: list[Tensor] = field(default_factory=list)
    kept: list[dict[str, Tensor]] = field(default_factory=list)

    def add(self, parameter: Tensor) -> None:
        self.parameters.append(parameter)
        moments = {name: torch.zeros_like(parameter) for name in ("exp_avg", "exp_avg_sq")}
        self.kept.append({"step": torch.zeros((), device=parameter.device), **moments})

    def update(self, settings: TrainingSettings, skipped: Tensor | None) -> None:
        """One step of those that have a gradient; none where `skipped`, (), is 1."""
        pairs = zip(self.parameters, self.kept, strict=True)
        moved = [(value, value.grad, kept) for value, kept in pairs if value.grad is not None]
        KINDS[settings.optimizer](
            [value for value, _, _ in moved],
            [gradient for _, gradient, _ in moved],
            [kept["exp_avg"] for _, _, kept in moved],
            [kept["exp_avg_sq"] for _, _, kept in moved],
            [],
            [kept["step"] for _, _, kept in moved],
            fused=True,
            found_inf=skipped,
            amsgrad=False,
            beta1=settings.betas[0],
            beta2=settings.betas[1],
            lr=self.rate if self.moving is None else self.moving,
            weight_decay=settings.weight_decay,
            eps=1e-8,
            maximize=False,
        )


class Optimiser:
    """Adam or AdamW on the parameters of a VAE, with what the settings add to it.

    All of it is in tensors of fixed address, and nothing waits for the device.

    * `clip`: the gradient of the loss (nats per image) is scaled down to this norm over all
      parameters.
    * `skip`: a step with a larger norm, or with anything that is not finite, changes nothing.
    * `ema`: after t steps the average of the weights is (1-d) Σ dᵗ⁻ⁱ θᵢ / (1 - dᵗ). The divisor
      frees it of its start (Kingma & Ba 2015, section 3), so the initial weights are not in it.
    * `weight_decay`: decoupled (Loshchilov & Hutter 2019), on all parameters.

    Attributes:
        skipped: (), bool, whether the last update was skipped; None where none ever is.
    """

    def __init__(self, vae: Vae, settings: TrainingSettings, total: int) -> None:
        named = dict(vae.named_parameters())
        self._parameters: list[Tensor] = list(named.values())
        device = self._parameters[0].device
        self._settings, self._total = settings, total
        self._scheduled = settings.warm_up > 0 or settings.schedule != "constant"
        factors = {f"decoder.{k}": v for k, v in vae.decoder.learning_rates().items()}
        groups: dict[float, Group] = {}
        for name, parameter in named.items():
            rate = settings.lr * factors.get(name, 1.0)
            if rate not in groups:
                moving = torch.tensor(rate, device=device) if self._scheduled else None
                groups[rate] = Group(rate, moving)
            groups[rate].add(parameter)
        self._groups = list(groups.values())
        self.skipped: Tensor | None = None
        if settings.skip is not None:
            self.skipped = torch.zeros((), dtype=torch.bool, device=device)
        # float64: 1 - dᵗ of a small t has few digits in float32.
        self._taken = torch.zeros((), dtype=torch.float64, device=device)
        self._average = (
            {}
            if settings.ema is None
            else {name: parameter.detach().clone() for name, parameter in named.items()}
        )

    @torch.no_grad()
    def update(self, terms: Tensor) -> None:
        """Change the parameters by their gradients.

        Arguments:
            terms: (len(Terms),), those of the step; read where steps may be skipped.
        """
        clip, skip = self._settings.clip, self._settings.skip
        if clip is not None or skip is not None:
            norm = clip_grad_norm_(self._parameters, math.inf if clip is None else clip)
            if skip is not None and self.skipped is not None:
                # So written that a norm of NaN is skipped.
                self.skipped.copy_(~(terms.isfinite().all() & (norm <= skip)))
        if self._scheduled:
            factor = rate_factor(self._taken, self._settings, self._total)
            for group in self._groups:
                if group.moving is not None:
                    group.moving.copy_(group.rate * factor)
        # Fused Adam changes nothing where `found_inf` is 1. It is what a GradScaler sets.
        found_inf = None if self.skipped is None else self.skipped.float()
        for group in self._groups:
            group.update(self._settings, found_inf)
        if self._scheduled or self._average:
            self._taken.add_(1 if self.skipped is None else ~self.skipped)
        if self._average:
            self._move_average()

    def _move_average(self) -> None:
        decay = self._settings.ema
        assert decay is not None
        weight = (1 - decay) / (1 - decay**self._taken)
        if self.skipped is not None:
            weight = torch.where(self.skipped, 0.0, weight)
        averages = list(self._average.values())
        difference = torch._foreach_sub(self._parameters, averages)
        torch._foreach_mul_(difference, weight.float())
        torch._foreach_add_(averages, difference)

    def zero_grad(self) -> None:
        for parameter in self._parameters:
            parameter.grad = None

    @torch.no_grad()
    def adopt_average(self) -> None:
        """Write the averages of the weights, where there are any, over the weights."""
        if self._average:
            torch._foreach_copy_(self._parameters, list(self._average.values()))

    @property
    def _kept(self) -> list[dict[str, Tensor]]:
        return [kept for group in self._groups for kept in group.kept]

    def state_dict(self) -> dict[str, Any]:
        """What a checkpoint holds of it."""
        return {
            "optimizer": dict(enumerate(self._kept)),
            "taken": self._taken,
            "average": self._average,
        }

    def load_state_dict(self, content: dict[str, Any]) -> None:
        """Continue from what `state_dict` returned; what else `content` has is not read."""
        for place, kept in enumerate(self._kept):
            for name, value in content["optimizer"].get(place, {}).items():
                kept[name].copy_(value)
        self._taken.copy_(content["taken"])
        for name, average in self._average.items():
            average.copy_(content["average"][name])
