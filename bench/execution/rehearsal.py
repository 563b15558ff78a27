"""One batch of scoring before training: a plugin's mistake in it should not cost the training."""

import inspect

import torch

from bench import plugins
from bench.run import Run
from bench.training.step import scaled
from bench.training.train import build

IMAGES = 2


class ScoringError(Exception):
    """A plugin's decoder trains and cannot score."""


def rehearse(run: Run, images: torch.Tensor) -> None:
    """Score two images with a user's own decoder, untrained but for the state of one batch.

    Only what the missing `target` causes is an error here: other mistakes show in training, at its
    first step.

    Arguments:
        images: 8-bit training images (N, C, H, W), or videos.

    Raises:
        ScoringError: it needs the target, which scoring does not give; with file and line.
    """
    if run.decoder.source is None:
        return
    few = images[:IMAGES].cpu()
    # A plugin may draw from torch's own generator, whose state training must find untouched.
    with torch.random.fork_rng(devices=[]), torch.no_grad():
        try:
            vae = build(run, few.shape[-3], few.shape[-1])
            vae.decoder.initialise(few.flatten(0, -4))
            batch = scaled(vae.model.scored(few))
            noise = torch.zeros(len(few), vae.model.noise_size)
            _, state = vae(batch, noise, vae.initial_state(), torch.float32)
            vae.eval()
            context, _ = vae.model.encode(batch, state, training=False)
            output = vae.model.draw(context, noise, state, training=False).output
            vae.decoder(output, state, vae.model.target(batch))
        except Exception:
            return
        try:
            vae.decoder(output, state)
        except Exception as error:
            file = inspect.getfile(type(vae.decoder))
            raise ScoringError(
                f"{plugins.told(error, file)}; scoring gives no target: σ must come from `state` "
                "or a parameter"
            ) from error
