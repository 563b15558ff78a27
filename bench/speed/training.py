"""A training step compared with a tutorial's, and with the machine's matrix products."""

import os
import re
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import cast

import torch
from PIL import Image
from torch import Tensor, nn
from torch.profiler import ProfilerActivity, profile
from torch.utils.data import DataLoader, Dataset
from torch.utils.flop_counter import FlopCounterMode
from torchvision.transforms import ToTensor

from baselines.layers import ConvTranspose2d
from baselines.options import DECODERS, MODELS
from baselines.state import State
from baselines.vae import Vae
from bench.run import Evaluation, Precision, Run, Training
from bench.speed.pairs import Arm, Finding, alternate
from bench.speed.setting import Setting, threads
from bench.training.checkpoint import Epoch
from bench.training.train import build, train

WARM = 2
"""Steps of the plain loop before the clock starts; ours has an epoch before it."""

GROUPS = {
    "convolutions and products": r"conv|gemm|::(add|ba)?(d?b?mm)\b|addmm|xmma|cutlass|wgrad|dgrad",
    "optimiser": r"adam|multi_tensor",
    "data": r"::(randperm|randn|normal_|index|index_select|gather)\b|distribution|index_kernel",
}
"""Which operator or kernel is which part of a step, by name; the others are element-wise, sums
and copies."""

REST = "element-wise, sums and copies"
OUTSIDE = "outside operators"


def run_of(setting: Setting, precision: Precision, epochs: int, seed: int = 0) -> Run:
    """A run of the release's size: `conv_vae` of width 32 and 20 latents, `optimal`, batch 128."""
    return Run(
        dataset="digits",
        content="0" * 64,
        split_seed=0,
        model=MODELS["conv_vae"].model_validate(
            {"name": "conv_vae", "width": setting.size.width, "latent": 20}
        ),
        decoder=DECODERS["optimal"](name="optimal"),
        training=Training(epochs=epochs, batch=setting.size.batch, precision=precision),
        evaluation=Evaluation(samples=0, iwae=0),
        seed=seed,
    )


def ours(setting: Setting, precision: Precision) -> Arm:
    """The second epoch of `bench.training.train`; seconds a step."""
    images = setting.images(setting.size.steps * setting.size.batch)

    def arm() -> float:
        return _train(setting, precision, images)["seconds"] / setting.size.steps

    return arm


def _train(
    setting: Setting,
    precision: Precision,
    images: Tensor,
    on_epoch: Callable[[Epoch], None] = lambda line: None,
) -> Epoch:
    with tempfile.TemporaryDirectory(dir=setting.folder) as folder:
        run = run_of(setting, precision, epochs=2)
        return train(run, images, Path(folder), on_epoch).history[-1]


# -- as tutorials write it ---------------------------------------------------------------------


class Pictures(Dataset[Tensor]):
    """Images (N, 1, H, W), 8 bits; each is made a PIL image and transformed on access."""

    def __init__(self, images: Tensor) -> None:
        self.images = images[:, 0].cpu().numpy()
        self.transform = ToTensor()

    def __len__(self) -> int:
        return len(self.images)

    def __getitem__(self, index: int) -> Tensor:
        transformed: Tensor = self.transform(Image.fromarray(self.images[index], mode=None))
        return transformed


@dataclass
class Plain:
    """The loop of tutorials and of the paper's release: float32, contiguous, a loss read a step.

    Its network has torch's layers where ours has faster ones.
    """

    vae: Vae
    state: State
    device: str
    losses: list[float] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.vae.to(self.device)
        self.state = {name: value.to(self.device) for name, value in self.state.items()}
        self.optimizer = torch.optim.Adam(self.vae.parameters(), lr=1e-3)

    @classmethod
    def of(cls, run: Run, images: Tensor, device: str) -> "Plain":
        vae = build(run, images.shape[1], images.shape[-1])
        _use_torchs_layers(vae)
        return cls(vae, vae.initial_state(), device)

    def step(self, images: Tensor, noise: Tensor) -> None:
        terms, self.state = self.vae(images, noise, self.state, torch.float32)
        self.optimizer.zero_grad()
        terms.loss.backward()
        self.optimizer.step()
        self.losses.append(terms.loss.item())

    def epoch(self, images: Tensor, batch: int) -> Iterator[None]:
        """Yields after each step over 8-bit images (N, 1, H, W)."""
        for part in DataLoader(Pictures(images), batch_size=batch, shuffle=True):
            noise = torch.randn(len(part), self.vae.model.noise_size, device=self.device)
            self.step(part.to(self.device), noise)
            yield


def _use_torchs_layers(network: nn.Module) -> None:
    for parent in list(network.modules()):
        for name, ours in parent.named_children():
            if isinstance(ours, ConvTranspose2d):
                peer = nn.ConvTranspose2d(
                    ours.in_channels,
                    ours.out_channels,
                    cast(tuple[int, int], ours.kernel_size),
                    cast(tuple[int, int], ours.stride),
                    cast(tuple[int, int], ours.padding),
                )
                peer.load_state_dict(ours.state_dict())
                setattr(parent, name, peer)


def plain(setting: Setting) -> Arm:
    """The plain loop's steps after the first few; seconds a step."""
    size = setting.size
    images = setting.images((WARM + size.steps) * size.batch)
    loop = Plain.of(run_of(setting, "float32", 1), images, setting.device)

    def arm() -> float:
        steps = loop.epoch(images, size.batch)
        for _ in range(WARM):
            next(steps)
        setting.wait()
        start = time.perf_counter()
        for _ in steps:
            pass
        setting.wait()
        return (time.perf_counter() - start) / size.steps

    return arm


def loop(setting: Setting) -> Iterator[Finding]:
    """Row `training`: on a CPU with one thread, as a worker has it, and with all cores."""
    precision = setting.precision
    for count in _thread_counts(setting):
        with threads(count):
            pairs = alternate(plain(setting), ours(setting, precision), setting.repeats)
        images = setting.size.batch / min(pairs.ours)
        yield Finding(
            "training" + _on(setting, count),
            "a step: DataLoader of PIL images and ToTensor, float32, contiguous, Adam, loss.item() "
            f"/ ours in {precision}",
            pairs,
            {"threads": count, "images_per_second": images},
            f"ours trains on {images:.0f} images a second at best",
        )


def _thread_counts(setting: Setting) -> list[int]:
    return [setting.threads] if setting.on_cuda else sorted({1, setting.threads})


def _on(setting: Setting, count: int) -> str:
    if setting.on_cuda:
        return ""
    return f", {count} thread{'s' if count > 1 else ''}"


# -- of what the machine can do ----------------------------------------------------------------


def arithmetic(setting: Setting) -> Iterator[Finding]:
    """Row `arithmetic`: a step's FLOP/s over that of the best of several matrix products."""
    precision = setting.precision
    flops = step_flops(setting)
    for count in _thread_counts(setting):
        with threads(count):
            step = ours(setting, precision)
            pairs = alternate(
                peak(setting, getattr(torch, precision)),
                lambda step=step: step() / flops,  # type: ignore[misc]
                setting.repeats,
            )
            shares = parts(setting, precision)
        achieved, best = 1 / min(pairs.ours), 1 / min(pairs.baseline)
        split = ", ".join(f"{name} {share:.0%}" for name, share in shares.items())
        yield Finding(
            "arithmetic" + _on(setting, count),
            f"a FLOP in matrix products of {', '.join(map(str, setting.size.products))}, "
            f"{precision} / in our training step: the ratio is the share of the peak",
            pairs,
            {
                "threads": count,
                "flop_per_step": flops,
                "flop_per_second": achieved,
                "peak_flop_per_second": best,
                **{f"share_{name.replace(' ', '_')}": share for name, share in shares.items()},
            },
            f"{achieved / 1e9:.0f} of {best / 1e9:.0f} GFLOP/s; a step's time: {split}",
        )


def step_flops(setting: Setting) -> float:
    """Floating-point operations of the products of one step, forward and backward."""
    images = setting.images(setting.size.batch)
    loop = Plain.of(run_of(setting, "float32", 1), images, setting.device)
    noise = torch.randn(len(images), loop.vae.model.noise_size, device=setting.device)
    with FlopCounterMode(display=False) as counter:
        loop.step(images / 255, noise)
    return float(counter.get_total_flops())


def peak(setting: Setting, precision: torch.dtype) -> Arm:
    """The best of several square matrix products; seconds per floating-point operation."""
    squares = [
        torch.randn(2, size, size, device=setting.device, dtype=precision)
        for size in setting.size.products
    ]

    def arm() -> float:
        return min(
            setting.timed(lambda pair=pair: pair[0] @ pair[1])() / (2 * len(pair[0]) ** 3)  # type: ignore[misc]
            for pair in squares
            for _ in range(2)
        )

    return arm


def parts(setting: Setting, precision: Precision) -> dict[str, float]:
    """How the time of our steps divides over groups of operators; sums to 1."""
    images = setting.images(setting.size.steps * setting.size.batch)
    os.environ.setdefault(
        "KINETO_LOG_LEVEL", "5"
    )  # else it writes a line to standard error at each start
    activities = [ProfilerActivity.CPU] + [ProfilerActivity.CUDA] * setting.on_cuda
    profiler = profile(activities=activities)
    told: list[Epoch] = []

    def on_epoch(line: Epoch) -> None:
        told.append(line)
        profiler.start() if len(told) == 1 else profiler.stop()

    seconds = _train(setting, precision, images, on_epoch)["seconds"]
    spent: Counter[str] = Counter()
    for event in profiler.key_averages():
        if setting.on_cuda != (event.device_type.name == "CUDA"):
            continue
        taken = event.self_device_time_total if setting.on_cuda else event.self_cpu_time_total
        spent[group(event.key)] += taken / 1e6
    # The profiler itself slows operators down; they never take more than everything.
    whole = max(seconds, spent.total())
    shares = {name: spent[name] / whole for name in (*GROUPS, REST)}
    return {**shares, OUTSIDE: 1 - spent.total() / whole}


def group(name: str) -> str:
    """Which part of a step an operator or a kernel is, by its name."""
    for part, pattern in GROUPS.items():
        if re.search(pattern, name, re.IGNORECASE):
            return part
    return REST
