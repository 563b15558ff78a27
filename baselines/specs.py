"""What can be asked for: every decoder's and every model's name, options and defaults.

The one home of defaults. No torch in here, so that a grid is checked and listed before torch is
imported; `build_decoder` and `build_model` turn a spec into the module it describes.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Annotated, Any, ClassVar, Literal

from pydantic import BaseModel, ConfigDict, Field, FiniteFloat

if TYPE_CHECKING:
    from baselines.decoders import Decoder
    from baselines.models import Model

Positive = Annotated[FiniteFloat, Field(gt=0)]
Decay = Annotated[FiniteFloat, Field(ge=0, lt=1)]
Size = Annotated[int, Field(ge=1)]


class Spec(BaseModel):
    """A name and its options, frozen; the options are the keyword arguments of `implementation`."""

    model_config = ConfigDict(frozen=True, extra="forbid")
    implementation: ClassVar[str]
    source: ClassVar[str | None] = None
    """sha256 (hex) of the code that brought the implementation, where that is a user's own."""

    name: str

    @property
    def options(self) -> dict[str, Any]:
        return self.model_dump(exclude={"name"})

    @classmethod
    def summary(cls) -> str:
        """The first line of the class's documentation."""
        return (cls.__doc__ or "").strip().splitlines()[0]


# -- decoders ----------------------------------------------------------------------------------


class DecoderSpec(Spec):
    """A p(x|z) family. `link` maps the network's output to the mean."""

    link: Literal["sigmoid", "identity"] = "sigmoid"


class Mse(DecoderSpec):
    """The mean-reduced squared error beside a summed KL: the mistake, reproduced on purpose."""

    implementation = "baselines.decoders.gaussian:MeanReducedMse"
    name: Literal["mse"] = "mse"


class Gaussian(DecoderSpec):
    """Gaussian with unit variance: the plain 'MSE' VAE, σ = 1."""

    implementation = "baselines.decoders.gaussian:UnitGaussian"
    name: Literal["gaussian"] = "gaussian"


class Beta(DecoderSpec):
    """β-VAE: Gaussian with σ² = β/2, β chosen by hand or tuned."""

    implementation = "baselines.decoders.gaussian:BetaGaussian"
    name: Literal["beta"] = "beta"
    beta: Positive


class PerPixel(DecoderSpec):
    """Gaussian, ln σ of every pixel and channel from a second output of the network."""

    implementation = "baselines.decoders.gaussian:PerPixelGaussian"
    name: Literal["per_pixel"] = "per_pixel"
    min_log_sigma: FiniteFloat | None = -6.0
    max_log_sigma: FiniteFloat | None = None


class Shared(DecoderSpec):
    """σ-VAE: Gaussian with one learned σ for all pixels, trained with the weights."""

    implementation = "baselines.decoders.gaussian:SharedGaussian"
    name: Literal["shared"] = "shared"
    min_log_sigma: FiniteFloat | None = -6.0
    max_log_sigma: FiniteFloat | None = None
    initial_log_sigma: FiniteFloat = 0.0
    sigma_lr: Positive = 1.0


class Optimal(DecoderSpec):
    """Optimal σ-VAE: Gaussian with σ² = MSE, the analytic optimum, of the axes in `over`."""

    implementation = "baselines.decoders.gaussian:OptimalGaussian"
    name: Literal["optimal"] = "optimal"
    over: Literal["batch", "image", "channel", "pixel"] = "batch"
    stop_gradient: bool = False
    min_log_sigma: FiniteFloat = -6.0
    decay: Decay = 0.9


class OptimalPerImage(DecoderSpec):
    """Gaussian with σ² = MSE of each image in training."""

    implementation = "baselines.decoders.gaussian:OptimalGaussian"
    name: Literal["optimal_per_image"] = "optimal_per_image"
    over: Literal["image"] = "image"
    stop_gradient: bool = False
    min_log_sigma: FiniteFloat = -6.0
    decay: Decay = 0.9


class Bernoulli(DecoderSpec):
    """Intensity as the probability of a white pixel: cross-entropy, no comparable likelihood."""

    implementation = "baselines.decoders.discrete:BernoulliDecoder"
    name: Literal["bernoulli"] = "bernoulli"
    link: Literal["sigmoid"] = "sigmoid"


class Categorical(DecoderSpec):
    """A softmax over the 256 levels of every pixel and channel."""

    implementation = "baselines.decoders.discrete:CategoricalDecoder"
    name: Literal["categorical"] = "categorical"
    link: Literal["sigmoid"] = "sigmoid"


class BitwiseCategorical(DecoderSpec):
    """The 8 bits of every level, each by a binary classifier."""

    implementation = "baselines.decoders.discrete:BitwiseDecoder"
    name: Literal["bitwise_categorical"] = "bitwise_categorical"
    link: Literal["sigmoid"] = "sigmoid"


class LogisticMixture(DecoderSpec):
    """Mixture of discretised logistics of every pixel and channel, its end bins open."""

    implementation = "baselines.decoders.discrete:LogisticMixtureDecoder"
    name: Literal["logistic_mixture"] = "logistic_mixture"
    link: Literal["identity"] = "identity"
    components: Size = 5
    min_log_scale: FiniteFloat | None = -7.0


class StudentT(DecoderSpec):
    """Student-t: location, scale and degrees of freedom of every pixel and channel."""

    implementation = "baselines.decoders.student:StudentTDecoder"
    name: Literal["student_t"] = "student_t"
    min_log_scale: FiniteFloat | None = -6.0
    max_log_scale: FiniteFloat | None = None
    min_df: Annotated[FiniteFloat, Field(gt=2)] = 2.1


class BetaSigma(DecoderSpec):
    """Beta-Sigma VAE: Gaussian with σ² = MSE and, apart from it, a rate weighted by β."""

    implementation = "baselines.decoders.remedies:BetaSigmaGaussian"
    name: Literal["beta_sigma"] = "beta_sigma"
    beta: Positive
    over: Literal["batch", "image", "channel", "pixel"] = "batch"
    stop_gradient: bool = False
    min_log_sigma: FiniteFloat = -6.0
    decay: Decay = 0.9


class BetaNll(DecoderSpec):
    """β-NLL: Gaussian, ln σ per pixel, its likelihood weighted by σ^(2·exponent)."""

    implementation = "baselines.decoders.remedies:BetaNllGaussian"
    name: Literal["beta_nll"] = "beta_nll"
    exponent: Annotated[FiniteFloat, Field(ge=0, le=1)] = 0.5
    min_log_sigma: FiniteFloat | None = -6.0
    max_log_sigma: FiniteFloat | None = None


class Faithful(DecoderSpec):
    """Faithful: Gaussian, ln σ per pixel, the mean trained by the plain squared error."""

    implementation = "baselines.decoders.remedies:FaithfulGaussian"
    name: Literal["faithful"] = "faithful"
    min_log_sigma: FiniteFloat | None = -6.0
    max_log_sigma: FiniteFloat | None = None


# -- models ------------------------------------------------------------------------------------


class ModelSpec(Spec):
    """A network family; channels and resolution come from the data."""

    takes_stopped: ClassVar[bool] = True
    """Whether the constructor takes `stopped`; a user's own may leave that out."""

    latent: Size = 20


class ConvVae(ModelSpec):
    """The small convolutional VAE of the PyTorch release (ReLU, 6x6 transposed convolutions)."""

    implementation = "baselines.models.conv_vae:ConvVae"
    name: Literal["conv_vae"] = "conv_vae"
    width: Size = 32


class ConvVaeTf(ModelSpec):
    """The small convolutional VAE of the TensorFlow release (batch norm, leaky ReLU, tanh)."""

    implementation = "baselines.models.conv_vae:ConvVaeTf"
    name: Literal["conv_vae_tf"] = "conv_vae_tf"
    width: Size = 64
    decay: Decay = 0.99


class LinearVae(ModelSpec):
    """Affine encoder and decoder: probabilistic PCA in a VAE's clothes (Lucas et al. 2019)."""

    implementation = "baselines.models.linear_vae:LinearVae"
    name: Literal["linear_vae"] = "linear_vae"


def _by_name(*specs: type[Any]) -> dict[str, Any]:
    return {spec.model_fields["name"].default: spec for spec in specs}


DECODERS: dict[str, type[DecoderSpec]] = _by_name(
    Mse,
    Gaussian,
    Beta,
    PerPixel,
    Shared,
    Optimal,
    OptimalPerImage,
    Bernoulli,
    Categorical,
    BitwiseCategorical,
    LogisticMixture,
    StudentT,
    BetaSigma,
    BetaNll,
    Faithful,
)
MODELS: dict[str, type[ModelSpec]] = _by_name(ConvVae, ConvVaeTf, LinearVae)


def _implementation(spec: Spec) -> Any:
    module, _, name = spec.implementation.partition(":")
    return getattr(importlib.import_module(module), name)


def build_decoder(spec: DecoderSpec) -> Decoder:
    """The decoder module that `spec` describes, with fresh parameters."""
    decoder: Decoder = _implementation(spec)(**spec.options)
    return decoder


def build_model(
    spec: ModelSpec, *, channels: int, resolution: int, outputs: int, stopped: int = 0
) -> Model:
    """The model that `spec` describes for images (channels, resolution, resolution).

    `outputs` is the number of network outputs per data channel, which the decoder asks for; the
    last `stopped` of them see features whose gradient is stopped.
    """
    model: Model = _implementation(spec)(
        channels=channels,
        resolution=resolution,
        outputs=outputs,
        **({"stopped": stopped} if spec.takes_stopped else {}),
        **spec.options,
    )
    return model
