"""Decoders, models and balances by name, with options.

The registry holds classes made at run time, so a type checker cannot know their options.
"""

from typing import Any

from baselines.options import BALANCES, DECODERS, MODELS, BalanceSpec, DecoderSpec, ModelSpec


def decoder_spec(name: str, **options: Any) -> DecoderSpec:
    return DECODERS[name](**options)


def model_spec(name: str, **options: Any) -> ModelSpec:
    return MODELS[name](**options)


def balance_spec(name: str, **options: Any) -> BalanceSpec:
    return BALANCES[name](**options)
