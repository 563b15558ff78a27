"""How large a VAE is: parameters, latents, compression, and the arithmetic of one pass."""

from typing import Any

import torch
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils.flop_counter import flop_registry

from baselines.state import State
from baselines.vae import Vae


class Arithmetic(TorchDispatchMode):
    """Counts the FLOP of convolutions and products by torch's formulas.

    torch's `FlopCounterMode` counts the same for each module and imports torch's compiler first,
    which takes each worker a second.
    """

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.flops = 0

    @classmethod
    def _should_skip_dynamo(cls) -> bool:
        return False

    def __torch_dispatch__(
        self,
        func: Any,
        types: Any,
        args: tuple[Any, ...] = (),
        kwargs: dict[str, Any] | None = None,
    ) -> Any:
        named = kwargs or {}
        made = func(*args, **named)
        formula = flop_registry.get(func._overloadpacket)
        if formula is not None:
            self.flops += formula(*args, **named, out_val=made)
        return made


def network_size(vae: Vae, state: State) -> dict[str, Any]:
    """What a table of models compares.

    Returns:
        `parameters` of the model and the decoder, `latents` of an image (or a sequence),
        `compression`, the scored values of an image over its latents, and `multiply_adds` of
        encoding and decoding one: those of convolutions and matrix products, a training step has
        about three times as many. `latent_shape` where the latent has one Gaussian part: its
        length, or its channels, height and width.

    >>> from baselines.decoders.gaussian import UnitGaussian
    >>> from baselines.models.linear_vae import LinearVae
    >>> vae = Vae(LinearVae(channels=1, resolution=4, latent=2), UnitGaussian())
    >>> network_size(vae, vae.initial_state())  # 16 · 2 weights in, 2 · 16 out
    {'parameters': 84, 'latents': 2, 'latent_shape': [2], 'compression': 8.0, 'multiply_adds': 64}
    """
    model = vae.model
    parameters = list(vae.parameters())
    device = parameters[0].device if parameters else torch.device("cpu")
    item = torch.zeros(1, *model.data_shape, device=device)
    noise = torch.zeros(1, model.noise_size, device=device)
    # In `inference_mode` a linear layer would be one operation, which has no formula.
    with torch.no_grad(), Arithmetic() as counter:
        context, _ = model.encode(item, state, training=False)
        posteriors = model.draw(context, noise, state, training=False).posteriors
    shapes = [list(mean.shape[1:]) for mean, _ in posteriors or ()]
    return {
        "parameters": sum(parameter.numel() for parameter in parameters),
        "latents": model.noise_size,
        **({"latent_shape": shapes[0]} if len(shapes) == 1 else {}),
        "compression": model.target(item).numel() / model.noise_size,
        "multiply_adds": counter.flops // 2,
    }
