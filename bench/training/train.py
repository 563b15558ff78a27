"""The optimisation of one run, with checkpoints from which it resumes bit-equally."""

import logging
import time
from collections.abc import Callable
from pathlib import Path

import torch
from torch import Tensor

from baselines.build import build_decoder, build_model
from baselines.vae import Terms, Vae
from bench.errors import Stopped
from bench.rng import generator, seeded
from bench.run import Run
from bench.training.checkpoint import Checkpoint, Divergence, Epoch, PartialEpoch, Trained
from bench.training.cuda_graph import maybe_graphed
from bench.training.malloc import keep_freed_memory
from bench.training.step import Step

logger = logging.getLogger("sigma-bench")


def build(run: Run, channels: int, resolution: int) -> Vae:
    """The untrained VAE of a run on the CPU, initialised from the run's own streams."""
    with seeded(run.seed, "initialisation of the decoder", device="cpu"):
        decoder = build_decoder(run.decoder)
    with seeded(run.seed, "initialisation of the model", device="cpu"):
        model = build_model(
            run.model,
            channels=channels,
            resolution=resolution,
            outputs=decoder.outputs,
            detached_outputs=decoder.detached_outputs,
        )
    return Vae(model, decoder)


def train(
    run: Run,
    images: Tensor,
    folder: Path,
    on_epoch: Callable[[Epoch], None] = lambda epoch: None,
    stop: Callable[[], bool] = lambda: False,
) -> Trained:
    """Optimise `run` on 8-bit training images (N, C, H, W), which decide the device.

    Resumes from the folder's checkpoint where there is one. Data order and noise of an epoch are
    functions of (seed, epoch), so a resumed run is bit-equal to an undisturbed one. Nothing in an
    epoch waits for the device: terms are collected there and read once, at its end.

    Raises:
        Stopped: `stop`, called before every step, returned True; a later call resumes there.
    """
    device = images.device
    if device.type == "cpu":
        keep_freed_memory()
    vae = build(run, images.shape[1], images.shape[-1])
    vae = vae.to(device=device, memory_format=torch.channels_last)  # type: ignore[call-overload]
    vae.decoder.initialise(images)
    state = {name: value.to(device, copy=True) for name, value in vae.initial_state().items()}
    trained = Trained(vae, state)
    optimizer = _optimizer(run, vae)
    checkpoint = Checkpoint(folder / "checkpoint.pt", run.id)
    begun = checkpoint.restore(trained, optimizer)

    batch, count = run.training.batch, len(images)
    steps = count // batch
    precision = getattr(torch, run.training.precision)
    step = Step(vae, trained.state, optimizer, images, batch, precision)
    advance = maybe_graphed(step, device)
    for epoch in range(len(trained.history), run.training.epochs):
        start = time.perf_counter() - begun.seconds
        order = torch.randperm(
            count, generator=generator(run.seed, "order", epoch, device=device), device=device
        )
        noises = generator(run.seed, "noise", epoch, device=device)
        log = torch.empty(steps, len(Terms._fields), device=device)
        done = len(begun.terms)
        log[:done] = begun.terms
        for _ in range(done):
            step.noise.normal_(generator=noises)
        for index in range(done, steps):
            if stop():
                begun = PartialEpoch(log[:index].cpu(), time.perf_counter() - start)
                checkpoint.save(trained, optimizer, begun)
                raise Stopped
            step.chosen.copy_(order[index * batch : (index + 1) * batch])
            step.noise.normal_(generator=noises)
            advance()
            log[index].copy_(step.terms)
        begun = PartialEpoch()
        terms_read = log.double().cpu()
        trained.divergence = _divergence(terms_read, epoch * steps, trained.history)
        if trained.divergence is not None:
            return trained
        seconds = time.perf_counter() - start
        means = dict(zip(Terms._fields, terms_read.mean(0).tolist(), strict=True))
        line: Epoch = {
            "epoch": epoch,
            **means,
            "seconds": seconds,
            "images_per_second": steps * batch / seconds,
        }
        trained.history.append(line)
        checkpoint.save(trained, optimizer, begun)
        on_epoch(line)
    return trained


def _optimizer(run: Run, vae: Vae) -> torch.optim.Optimizer:
    factors = {f"decoder.{k}": v for k, v in vae.decoder.learning_rates().items()}
    groups: dict[float, list[Tensor]] = {}
    for name, parameter in vae.named_parameters():
        groups.setdefault(factors.get(name, 1.0), []).append(parameter)
    return torch.optim.Adam(
        [{"params": group, "lr": run.training.lr * factor} for factor, group in groups.items()],
        fused=True,
        # Adam's step count is then on the device, where a CUDA graph can increment it.
        capturable=next(vae.parameters()).is_cuda,
    )


def _divergence(terms: Tensor, first_step: int, history: list[Epoch]) -> Divergence | None:
    finite = terms.isfinite()
    bad = (~finite.all(dim=1)).nonzero()
    if not len(bad):
        return None
    step = int(bad[0])
    # The loss is the sum of the others: name the term that is not finite.
    names = [n for n, ok in zip(Terms._fields, finite[step].tolist(), strict=True) if not ok]
    what = next((name for name in names if name != "loss"), "loss")
    if step:
        last = dict(zip(Terms._fields, terms[step - 1].tolist(), strict=True))
    else:
        last = {key: history[-1][key] for key in Terms._fields} if history else {}
    return Divergence(first_step + step, what, last)
