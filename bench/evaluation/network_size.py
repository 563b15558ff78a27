"""How large a VAE is: parameters, latents, and the arithmetic of one pass."""

import torch
from torch.utils.flop_counter import FlopCounterMode

from baselines.state import State
from baselines.vae import Vae


def network_size(vae: Vae, state: State) -> dict[str, int]:
    """What a table of models compares.

    Returns:
        `parameters` of the model and the decoder, `latents` of an image (or a sequence), and
        `multiply_adds` of encoding and decoding one: those of convolutions and matrix products, a
        training step has about three times as many.

    >>> from baselines.decoders.gaussian import UnitGaussian
    >>> from baselines.models.linear_vae import LinearVae
    >>> vae = Vae(LinearVae(channels=1, resolution=4, latent=2), UnitGaussian())
    >>> network_size(vae, vae.initial_state())  # 16 · 2 weights in, 2 · 16 out
    {'parameters': 84, 'latents': 2, 'multiply_adds': 64}
    """
    model = vae.model
    parameters = list(vae.parameters())
    device = parameters[0].device if parameters else torch.device("cpu")
    item = torch.zeros(1, *model.data_shape, device=device)
    noise = torch.zeros(1, model.noise_size, device=device)
    # The counter follows modules by their gradients. In `inference_mode` a linear layer would also
    # be one operation that is not counted.
    with torch.enable_grad(), FlopCounterMode(display=False) as counter:
        context, _ = model.encode(item, state, training=False)
        model.draw(context, noise, state, training=False)
    return {
        "parameters": sum(parameter.numel() for parameter in parameters),
        "latents": model.noise_size,
        "multiply_adds": counter.get_total_flops() // 2,
    }
