"""The trained weights of a run as a file, and the trained run that it makes again."""

import json
from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save as serialised
from torch import Tensor

from bench import data
from bench.errors import RequestError
from bench.files import write_bytes
from bench.run import HISTORY, Run
from bench.training.checkpoint import WEIGHTS, Epoch, Trained
from bench.training.train import build

STATE = "state."
"""Before the names of state entries, which share a file with the parameters."""

SHAPE = "image_shape"
"""The metadata that holds (C, H, W) as JSON; files written by older versions have none."""

Shape = tuple[int, int, int]


def save(trained: Trained, folder: Path) -> Path:
    """Write the parameters, the state and the image shape as safetensors; returns the file."""
    tensors = {
        **trained.vae.state_dict(),
        **{STATE + name: value for name, value in trained.state.items()},
    }
    contiguous = {name: value.cpu().contiguous() for name, value in tensors.items()}
    metadata = {SHAPE: json.dumps(trained.vae.model.image_shape)}
    write_bytes(folder / WEIGHTS, serialised(contiguous, metadata))
    return folder / WEIGHTS


def load(run: Run, folder: Path, images: Tensor) -> Trained:
    """What a finished training left in `folder`; `images` (…, C, H, W) decide shape and device."""
    size = images.shape[-3], images.shape[-1]
    return _rebuilt(run, folder, _read(folder)[0], size, images.device)


def load_without_data(run: Run, folder: Path, device: torch.device) -> Trained:
    """What a finished training left in `folder`, with the image shape that the weights name.

    Where they name none, the description of the run's data set is asked. Raises `RequestError`
    where the weights are missing or damaged, or the shape is not known.
    """
    tensors, shape = _read(folder)
    channels, resolution, _ = shape or _described(run, folder)
    return _rebuilt(run, folder, tensors, (channels, resolution), device)


def _read(folder: Path) -> tuple[dict[str, Tensor], Shape | None]:
    path = folder / WEIGHTS
    try:
        with safe_open(path, framework="pt") as file:
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
            said = (file.metadata() or {}).get(SHAPE)
        shape = None if said is None else tuple(json.loads(said))
    except FileNotFoundError:
        raise RequestError(
            f"{path}: not kept (`run --keep records`) or deleted; to have it, delete the folder "
            "and run the grid again"
        ) from None
    except (OSError, SafetensorError, ValueError) as error:
        raise RequestError(f"{path}: cannot be read as trained weights ({error})") from error
    return tensors, shape


def _described(run: Run, folder: Path) -> Shape:
    try:
        known = data.describe(run.place, run.split_seed)
    except RequestError:
        known = None
    if known is None or known.content != run.content:
        raise RequestError(
            f"{folder / WEIGHTS}: an older version wrote it without the shape of the images, and "
            f"the data set {run.dataset} is not here to ask; prepare the data set, or train again"
        )
    return known.channels, known.resolution, known.resolution


def _rebuilt(
    run: Run,
    folder: Path,
    tensors: dict[str, Tensor],
    size: tuple[int, int],
    device: torch.device,
) -> Trained:
    vae = build(run, *size)
    initial = vae.initial_state()
    try:
        vae.load_state_dict({k: v for k, v in tensors.items() if not k.startswith(STATE)})
        state = {name: tensors[STATE + name].to(device) for name in initial}
    except (RuntimeError, KeyError) as error:
        raise RequestError(f"{folder / WEIGHTS}: holds other weights than the run's") from error
    vae = vae.to(device=device, memory_format=torch.channels_last)  # type: ignore[call-overload]
    return Trained(vae, state, _history(folder / HISTORY))


def _history(path: Path) -> list[Epoch]:
    try:
        return [json.loads(line) for line in path.read_text().splitlines()]
    except (OSError, ValueError) as error:
        raise RequestError(f"{path}: cannot be read as a training's history ({error})") from error
