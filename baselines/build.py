"""From a spec to the module that it describes."""

import importlib
from typing import Any

from baselines.balances.base import Balance
from baselines.decoders.base import Decoder
from baselines.models.base import Model
from baselines.options import BalanceSpec, DecoderSpec, ModelSpec, Spec


def build_decoder(spec: DecoderSpec) -> Decoder:
    """The decoder that `spec` describes, with fresh parameters.

    >>> from baselines.options import DECODERS
    >>> build_decoder(DECODERS["student_t"]()).outputs
    3
    """
    implementation: type[Decoder] = _implementation(spec)
    return implementation(**spec.options)


def build_balance(spec: BalanceSpec) -> Balance:
    """The balance that `spec` describes.

    >>> from baselines.options import BALANCES
    >>> build_balance(BALANCES["elbo"]()).ends_at_elbo
    True
    """
    implementation: type[Balance] = _implementation(spec)
    return implementation(**spec.options)


def build_model(
    spec: ModelSpec, *, channels: int, resolution: int, outputs: int = 1, detached_outputs: int = 0
) -> Model:
    """The model that `spec` describes for images (channels, resolution, resolution).

    `outputs` is the number of network outputs per data channel, which the decoder asks for; the
    last `detached_outputs` of them send no gradient into the features.

    Raises:
        ValueError: the model cannot detach outputs and is asked to.

    >>> from baselines.options import MODELS
    >>> model = build_model(MODELS["linear_vae"](latent=3), channels=1, resolution=8)
    >>> model.image_shape, model.noise_size
    ((1, 8, 8), 3)
    """
    if detached_outputs and not spec.honours_detached_outputs:
        raise ValueError(f"the model '{spec.name}' does not honour detached outputs")
    implementation: type[Model] = _implementation(spec)
    sizes = {"channels": channels, "resolution": resolution, "outputs": outputs}
    return implementation(**sizes, detached_outputs=detached_outputs, **spec.options)


def _implementation(spec: Spec) -> Any:
    module, _, name = spec.implementation.partition(":")
    return getattr(importlib.import_module(module), name)
