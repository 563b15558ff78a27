"""What the tests of a model of single images do with one."""

import torch
from torch import Tensor
from torch.func import functional_call, grad, vmap

from baselines.decoders.gaussian import BetaGaussian
from baselines.models.base import Draw, Model
from baselines.vae import Vae


def drawn(model: Model, images: Tensor, noise: Tensor) -> Draw:
    context, _ = model.encode(images, {}, training=False)
    return model.draw(context, noise, {}, training=False)


def batch(model: Model, count: int = 5) -> tuple[Tensor, Tensor]:
    torch.manual_seed(1)
    return torch.rand(count, *model.image_shape), torch.randn(count, model.noise_size)


def two_sets_of_weights(model: Model) -> tuple[Tensor, Tensor]:
    """The gradients by the factor on all weights, of two factors, in one call and one by one."""
    vae = Vae(model, BetaGaussian(beta=0.1))
    images, noise = batch(model)
    factors = torch.tensor([0.9, 1.1])

    def loss(factor: Tensor) -> Tensor:
        parameters = {name: value * factor for name, value in vae.named_parameters()}
        terms, _ = functional_call(vae, parameters, (images, noise, {}, torch.float32))
        value: Tensor = terms.loss
        return value

    return vmap(grad(loss))(factors), torch.stack([grad(loss)(factor) for factor in factors])
