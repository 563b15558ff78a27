"""A trained run for use in Python: new images, reconstructions, the VAE itself."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from pydantic import ValidationError
from pydantic_core import from_json
from torch import Tensor

from baselines.models.base import SequenceModel
from baselines.state import State
from baselines.vae import Vae
from bench.errors import RequestError
from bench.evaluation.rollouts import rollout_noise
from bench.evaluation.scorer import POSTERIOR, SAMPLES, Scorer, eight_bit
from bench.rng import normal
from bench.run import Run
from bench.training.weights import load_without_data


@dataclass(frozen=True)
class LoadedRun:
    """A trained run.

    Attributes:
        run: how it was trained and measured.
        vae: its model and decoder, in evaluation mode.
        state: what the decoder and the model remember of training, an analytic σ among it.
    """

    run: Run
    vae: Vae
    state: State
    device: torch.device

    def sample(self, n: int, seed: int = 0) -> Tensor:
        """Decoder means of `n` draws from the prior, (n, C, H, W), clipped to [0, 1].

        With the run's own seed and `evaluation.samples` draws they are the images that its
        distances compare, before these round them to 8 bits. Raises `RequestError` for a model of
        videos.
        """
        if self.vae.model.is_sequence:
            raise RequestError(
                f"run {self.run.id}: a model of videos makes none from nothing; "
                "predict(given) goes on from given frames"
            )
        return self._scorer.generate(self._noise(n, seed, SAMPLES)).clamp(0, 1)

    def reconstruct(self, images: Tensor, seed: int = 0) -> Tensor:
        """Decoder means of one posterior draw for each image, (N, C, H, W), clipped to [0, 1].

        `images` are (N, C, H, W): uint8, or float in [0, 1], which is rounded to 8 bits first, as
        the training data were. Of videos (N, frames, C, H, W) every frame but the first is
        reconstructed. Raises ValueError for another shape.
        """
        bits = self._bits("images", images, self.vae.model.data_shape)
        noise = self._noise(len(bits), seed, POSTERIOR)
        return self._scorer.reconstruct(bits, noise).clamp(0, 1)

    def predict(self, given: Tensor, n: int = 1, seed: int = 0) -> Tensor:
        """Decoder means of `n` rollouts of each video, (N, n, predicted, C, H, W), in [0, 1].

        `given` are the first frames, (N, past, C, H, W), as for `reconstruct`. With the run's own
        seed they are the first rollouts that it was measured by. Raises ValueError for another
        shape, and `RequestError` for a model of images.
        """
        model = self.vae.model
        if not isinstance(model, SequenceModel):
            raise RequestError(f"run {self.run.id}: a model of images predicts no frames")
        bits = self._bits("given frames", given, (model.past, *model.image_shape))
        noise = (rollout_noise(model, len(bits), seed, k, self.device) for k in range(n))
        made = [self._scorer.predict(bits, rows[:]).clamp(0, 1) for rows in noise]
        return torch.stack(made, dim=1)

    def _bits(self, what: str, images: Tensor, shape: tuple[int, ...]) -> Tensor:
        if tuple(images.shape[1:]) != shape:
            raise ValueError(f"{what} are (N, {str(shape)[1:]}, not {tuple(images.shape)}")
        bits = images if images.dtype == torch.uint8 else eight_bit(images)
        return bits.to(self.device)

    @property
    def _scorer(self) -> Scorer:
        return Scorer(self.vae, self.state, getattr(torch, self.run.evaluation.precision))

    def _noise(self, count: int, seed: int, stream: str) -> Tensor:
        return normal((count, self.vae.model.noise_size), seed, stream, device=self.device)


def load_run(folder: str | Path, device: str | torch.device = "cpu") -> LoadedRun:
    """Load a finished run from its folder, as the column `folder` of `frame` has it.

    Its data are not needed. Raises `RequestError` where run.json or the weights are missing or
    damaged, or where the run's model or decoder is a plugin that is not loaded.
    """
    folder, device = Path(folder), torch.device(device)
    path = folder / "run.json"
    try:
        fields = from_json(path.read_bytes())
        if not isinstance(fields, Mapping):
            raise TypeError("it is no JSON object")
        run = Run.read({key: value for key, value in fields.items() if key != "id"})
    except (OSError, ValueError, TypeError, KeyError) as error:
        raise RequestError(f"{path}: cannot be read as a run ({_line(error)})") from error
    trained = load_without_data(run, folder, device)
    return LoadedRun(run, trained.vae.eval(), trained.state, device)


def _line(error: Exception) -> Any:
    if isinstance(error, ValidationError):
        first = error.errors()[0]
        return f"{'.'.join(map(str, first['loc']))}: {first['msg']}"
    return error
