"""The former home of what `baselines.options` holds."""

from baselines.options import (
    DECODERS,
    MODELS,
    DecoderSpec,
    ModelSpec,
    Positive,
    Size,
    Spec,
    build_decoder,
    build_model,
)

__all__ = [
    "DECODERS",
    "MODELS",
    "DecoderSpec",
    "ModelSpec",
    "Positive",
    "Size",
    "Spec",
    "build_decoder",
    "build_model",
]
