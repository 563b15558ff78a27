"""The optimisation of one run, with checkpoints from which it resumes bit-equally."""

import logging
import time
from collections.abc import Callable
from pathlib import Path

import torch
from torch import Tensor

from baselines.build import build_balance, build_decoder, build_model
from baselines.vae import Vae
from bench.errors import Stopped
from bench.rng import generator, seeded
from bench.run import CHECKPOINT, Run
from bench.training.checkpoint import Checkpoint, Epoch, PartialEpoch, Trained
from bench.training.cuda_graph import maybe_graphed
from bench.training.divergence import PATIENCE, find_divergence, mean_terms
from bench.training.malloc import keep_freed_memory
from bench.training.optimiser import Optimiser
from bench.training.step import Step

logger = logging.getLogger("sigma-bench")


def build(run: Run, channels: int, resolution: int) -> Vae:
    """The untrained VAE of a run on the CPU, initialised from the run's own streams."""
    with seeded(run.seed, "initialisation of the decoder", device="cpu"):
        decoder = build_decoder(run.decoder)
    if run.binarised:
        decoder.expect_binary()
    with seeded(run.seed, "initialisation of the model", device="cpu"):
        model = build_model(
            run.model,
            channels=channels,
            resolution=resolution,
            outputs=decoder.outputs,
            detached_outputs=decoder.detached_outputs,
        )
    return Vae(model, decoder, build_balance(run.balance))


def train(
    run: Run,
    images: Tensor,
    folder: Path,
    on_epoch: Callable[[Epoch], None] = lambda epoch: None,
    stop: Callable[[], bool] = lambda: False,
) -> Trained:
    """Optimise `run` on 8-bit training images (N, C, H, W) or videos (N, T, C, H, W).

    They decide the device. Of each video of a batch a window at a random place is seen.

    Resumes from the folder's checkpoint where there is one. Data order, windows, flips, noise and
    the dither of dequantised data are functions of (seed, epoch), so a resumed run is bit-equal to
    an undisturbed one. Nothing in an epoch waits for the device: terms are collected there and read
    once, at its end. With `ema` the weights that are returned are the averages; the history is of
    those that were descended.

    Raises:
        Stopped: `stop`, called before every step, returned True; a later call resumes there.
    """
    device = images.device
    if device.type == "cpu":
        keep_freed_memory()
    vae = build(run, images.shape[-3], images.shape[-1])
    vae = vae.to(device=device, memory_format=torch.channels_last)  # type: ignore[call-overload]
    vae.decoder.initialise(images.flatten(0, -4))
    batch, count = run.training.batch, len(images)
    total, per_epoch = run.training.steps_over(count), count // batch
    initial = vae.initial_state(total)
    state = {name: value.to(device, copy=True) for name, value in initial.items()}
    trained = Trained(vae, state)
    patience = min(PATIENCE, per_epoch, total)
    optimiser = Optimiser(vae, run.training, total)
    checkpoint = Checkpoint(folder / CHECKPOINT, run.id)
    begun = checkpoint.restore(trained, optimiser)
    binarise = run.binarised == "resampled"
    step = Step(vae, trained.state, optimiser, images, run.training, binarise=binarise)
    advance = maybe_graphed(step, device)
    for epoch in range(len(trained.history), run.training.epochs_over(count)):
        first = epoch * per_epoch
        steps = min(per_epoch, total - first)
        start = time.perf_counter() - begun.seconds
        orders, mirrors, *draws = (
            generator(run.seed, name, epoch, device=device)
            for name in ("order", "flips", "noise", "dequantisation")
        )
        order = torch.randperm(count, generator=orders, device=device)
        flipped = torch.rand(count, generator=mirrors, device=device) < 0.5
        if step.start is not None:
            starts = generator(run.seed, "windows", epoch, device=device)
            places = 1 + images.shape[1] - vae.model.data_shape[0]
            windows = torch.randint(places, (count,), generator=starts, device=device)
        log = torch.empty(steps, len(step.columns), device=device)
        done = len(begun.terms)
        if done:
            log[:done] = begun.terms
        for _ in range(done):
            step.draw(*draws)
        for index in range(done, steps):
            if stop():
                begun = PartialEpoch(log[:index].cpu(), time.perf_counter() - start)
                checkpoint.save(trained, optimiser, begun)
                raise Stopped
            part = slice(index * batch, (index + 1) * batch)
            step.chosen.copy_(order[part])
            if step.start is not None:
                step.start.copy_(windows[part])
            if step.flipped is not None:
                step.flipped.copy_(flipped[part])
            step.draw(*draws)
            advance()
            log[index].copy_(step.terms)
        begun = PartialEpoch()
        terms_read = log.double().cpu()
        told = trained.history[-1] if epoch else {}
        before = {key: told[key] for key in step.columns if key in told}
        trained.divergence = find_divergence(terms_read, first, before, run.training, patience)
        if trained.divergence is not None:
            return trained
        seconds = time.perf_counter() - start
        line: Epoch = {
            "epoch": epoch,
            "steps": first + steps,
            **mean_terms(terms_read, run.training),
            "seconds": seconds,
            "images_per_second": steps * batch / seconds,
        }
        trained.history.append(line)
        checkpoint.save(trained, optimiser, begun)
        on_epoch(line)
    optimiser.adopt_average()
    return trained
