"""Stochastic video generation with a learned prior."""

from collections.abc import Callable
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor

from baselines.layers import scale_of
from baselines.levels import unfit
from baselines.models.base import Context, Draw, SequenceModel, gaussian_draw
from baselines.options import Decay, Size, model
from baselines.recurrence import Memory, Recurrence
from baselines.state import State
from baselines.video_networks import (
    FrameDecoder,
    FrameEncoder,
    initial_state,
    initialise,
    stage_widths,
)


@model("svg")
class Svg(SequenceModel):
    """SVG-LP: predicts a frame from those before it and a latent whose prior is learned.

    After Denton & Fergus 2018 (arXiv 1802.07687). A frame x_t is encoded as h_t. An LSTM over
    h_0 … h_{t-1} gives the prior of z_t, one over h_1 … h_t the posterior, and one over the pairs
    (h_{t-1}, z_t) what is decoded, together with the encoder's feature maps of an earlier frame.

    `network` is DCGAN's or VGG's, whose first feature maps have `width` channels; `features` is the
    size of h_t, `hidden` that of the LSTMs, `layers` how many the predictor has. `prior: fixed` is
    SVG-FP: N(0, I). `skip` says which frame's maps decode frame t: of the frames up to t - 1 the
    `last_given` (the last of `past`), the one before that (`svg`, as the release has it), or
    `previous`, t - 1 itself. `decay` is that of the running averages of the batch norms. `size`
    stands for a set of options: tiny (the defaults), and smmnist, bair, kth, the release's.

    The latent has units of its prior: u = (z - μ_p)/σ_p, whose prior is N(0, I).

    >>> model = Svg(channels=1, resolution=32)
    >>> model.data_shape, model.noise_size, model.rollout_size
    ((10, 1, 32, 32), 72, 72)
    >>> sum(parameter.numel() for parameter in model.parameters())
    332801
    """

    honours_detached_outputs = True
    resolutions = (32, 64)
    sizes = {  # noqa: RUF012
        "tiny": {},
        "smmnist": {
            "width": 64, "features": 128, "latent": 10, "hidden": 256,
            "past": 5, "future": 10, "horizon": 25,
        },
        "bair": {
            "network": "vgg", "width": 64, "features": 128, "latent": 64, "hidden": 256,
            "past": 2, "future": 10, "horizon": 28,
        },
        "kth": {
            "network": "vgg", "width": 64, "features": 128, "latent": 24, "hidden": 256,
            "prior": "fixed", "past": 10, "future": 10, "horizon": 30,
        },
    }  # fmt: skip

    latent: Size = 8
    width: Size = 16
    features: Size = 32
    hidden: Size = 64
    layers: Size = 2
    network: Literal["dcgan", "vgg"] = "dcgan"
    skip: Literal["last_given", "svg", "previous"] = "last_given"
    prior: Literal["learned", "fixed"] = "learned"
    decay: Decay = 0.9
    future: Size = 5

    def setup(self) -> None:
        if fault := unfit(self.resolutions, self.resolution):
            raise ValueError(f"{type(self).__name__}: {fault}")
        features, hidden, latent = self.features, self.hidden, self.latent
        widths = stage_widths(self.width, self.resolution)
        self.encoder = FrameEncoder(self.network, self.channels, widths, features, self.decay)
        self.decoder = FrameDecoder(
            self.network,
            self.channels,
            widths,
            features,
            self.decay,
            outputs=self.outputs,
            detached=self.detached_outputs,
        )
        self.predictor = Recurrence(features + latent, hidden, features, layers=self.layers)
        self.posterior = Recurrence(features, hidden, 2 * latent)
        if self.prior == "learned":
            self.learned_prior = Recurrence(features, hidden, 2 * latent)
        self.apply(initialise)

    def initial_state(self) -> State:
        return initial_state(self)

    def encode(self, images: Tensor, state: State, *, training: bool) -> tuple[Context, State]:
        """Δ and the log variance of u, μ_p and σ_p, h_0 … h_{T-2}, and the maps of the skips.

        Each is (B, T - 1, …), the maps (B, frames that are used, …), the smallest first.
        """
        vectors, maps, changed = self._encoded(images, state, training=training)
        latents, _ = self._latents(vectors)
        used = len(images) * (self._skip(images.shape[1] - 1) + 1)
        kept = [batch_first(first(value, used), len(images)) for value in maps]
        return (*latents, vectors[:, :-1], *kept), changed

    def draw(self, context: Context, noise: Tensor, state: State, *, training: bool) -> Draw:
        mean, log_variance, centre, scale, vectors, *maps = context
        drawn = gaussian_draw(mean, log_variance, self._by_frame(noise))
        latents = centre + scale * drawn.latent
        predicted, _ = self.predictor(torch.cat([vectors, latents], dim=-1))
        batch, steps = vectors.shape[:2]
        skips = [self._skip(place) for place in range(1, steps + 1)]
        added = [
            # Split once: each split has a gradient of its own for all frames.
            torch.cat([frames[skip] for skip in skips])
            for frames in (
                value.split(batch)
                for value in self.decoder.joined([frames_first(value) for value in maps])
            )
        ]
        output, changed = self.decoder(
            frames_first(predicted.tanh()), added, state, training=training
        )
        return Draw(
            batch_first(output, batch),
            drawn.rate,
            drawn.log_ratio.sum(-1),
            changed,
            tuple(zip(mean.unbind(1), log_variance.unbind(1), strict=True)),
        )

    def predict(
        self, noise: Tensor, state: State, given: Tensor, mean: Callable[[Tensor], Tensor]
    ) -> Tensor:
        batch, latents = len(given), self._by_frame(noise)
        vectors, maps, _ = self._encoded(given, state, training=False)
        value, prior_memory, predictor_memory = vectors[:, -1:], None, None
        if self.past > 1:
            (delta, log_variance, centre, scale), prior_memory = self._latents(vectors)
            drawn = gaussian_draw(delta, log_variance, latents[:, : self.past - 1])
            inputs = torch.cat([vectors[:, :-1], centre + scale * drawn.latent], dim=-1)
            _, predictor_memory = self.predictor(inputs)
        fixed = slice(batch * self._skip(self.past), batch * (self._skip(self.past) + 1))
        added = self.decoder.joined([value[fixed] for value in maps])
        found: list[Tensor] = []
        for latent in latents[:, self.past - 1 :].split(1, dim=1):
            if found:
                frame = mean(found[-1]).unsqueeze(1)
                value, maps, _ = self._encoded(frame, state, training=False)
                if self.skip == "previous":
                    added = self.decoder.joined(maps)
            centre, scale, prior_memory = self._prior(value, prior_memory)
            inputs = torch.cat([value, centre + scale * latent], dim=-1)
            predicted, predictor_memory = self.predictor(inputs, predictor_memory)
            vector = predicted[:, 0].tanh()
            found.append(self.decoder(vector, added, state, training=False)[0])
        return torch.stack(found, dim=1)

    def _skip(self, place: int) -> int:
        """The frame whose feature maps decode the frame at `place`, both counted from 0."""
        last = {
            "last_given": self.past - 1,
            # One frame earlier, in the release by mistake; with one given frame there is no other.
            "svg": max(self.past - 2, 0),
            "previous": place - 1,
        }
        return min(place - 1, last[self.skip])

    def _encoded(
        self, frames: Tensor, state: State, *, training: bool
    ) -> tuple[Tensor, list[Tensor], State]:
        """Vectors (B, T, features), feature maps (T·B, …) and the changed state entries."""
        vectors, maps, changed = self.encoder(frames_first(frames), state, training=training)
        # What LSTMs read is in float32.
        return batch_first(vectors.float(), len(frames)), maps, changed

    def _prior(
        self, vectors: Tensor, memory: Memory | None
    ) -> tuple[Tensor, Tensor, Memory | None]:
        """μ_p and σ_p, (B, steps, latent), of the frames that follow; and the LSTM's memory."""
        if self.prior == "fixed":
            zeros = vectors.new_zeros(*vectors.shape[:2], self.latent)
            return zeros, torch.ones_like(zeros), None
        raw, memory = self.learned_prior(vectors, memory)
        centre, scale = raw.chunk(2, dim=-1)
        return centre, scale_of(scale), memory

    def _latents(
        self, vectors: Tensor
    ) -> tuple[tuple[Tensor, Tensor, Tensor, Tensor], Memory | None]:
        """Δ and the log variance of u, μ_p and σ_p of every frame after the first.

        From all the frames' vectors; with the prior's memory after them.
        """
        centre, prior_scale, memory = self._prior(vectors[:, :-1], None)
        mean, scale = self.posterior(vectors[:, 1:])[0].chunk(2, dim=-1)
        log_ratio = (scale_of(scale) / prior_scale).log()
        return ((mean - centre) / prior_scale, 2 * log_ratio, centre, prior_scale), memory

    def _by_frame(self, noise: Tensor) -> Tensor:
        values: Tensor = noise.unflatten(1, (-1, self.latent))
        return values


# Convolutions have the frames of all sequences in one dimension, the first frames first. Maps of
# the first frames are then one block, and keep the channels innermost through every operation.


def frames_first(values: Tensor) -> Tensor:
    """Values (B, frames, …) as (frames·B, …).

    >>> frames_first(torch.tensor([[1, 2], [3, 4]]))
    tensor([1, 3, 2, 4])
    """
    return values.transpose(0, 1).flatten(0, 1)


def batch_first(values: Tensor, batch: int) -> Tensor:
    """Values (frames·B, …) as (B, frames, …).

    >>> batch_first(torch.tensor([1, 3, 2, 4]), 2)
    tensor([[1, 2],
            [3, 4]])
    """
    blocks: Tensor = values.unflatten(0, (-1, batch))
    return blocks.transpose(0, 1)


def first(maps: Tensor, count: int) -> Tensor:
    """The first `count` of maps (N, C, H, W), by a padding: its gradient keeps their layout.

    >>> first(torch.zeros(5, 1, 2, 2), 3).shape
    torch.Size([3, 1, 2, 2])
    """
    return F.pad(maps, (0, 0) * 3 + (0, count - len(maps)))
