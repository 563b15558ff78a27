"""A benchmark of VAE decoders. In Python:

from bench import frame, load

runs = frame("results/quick")  # a pandas frame, one row a run
vae = load(runs["folder"][0])  # a finished run: vae.sample(16), vae.reconstruct(images)
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from bench.evaluation.load import load_run as load
    from bench.records.frame import frame_of as frame

__all__ = ["frame", "load"]

_HOMES = {
    "load": ("bench.evaluation.load", "load_run"),
    "frame": ("bench.records.frame", "frame_of"),
}


def __getattr__(name: str) -> Any:
    # Imported when asked for, since the command line imports this package and starts without torch.
    if name in _HOMES:
        module, function = _HOMES[name]
        return getattr(import_module(module), function)
    raise AttributeError(f"module 'bench' has no attribute '{name}'")
