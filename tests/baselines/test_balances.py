"""What every balance promises, and what the weight of a rule does to a training step."""

import pickle

import pytest
import torch
from torch import Tensor

from baselines.balances.base import Balance, Batch
from baselines.build import build_balance
from baselines.options import BALANCES, DECODERS
from baselines.state import State
from baselines.vae import Terms, Vae, step_terms
from tests.baselines.test_contract import REQUIRED, batch, make
from tests.specs import balance_spec, decoder_spec


class ByPart(Balance):
    """A weight for each part of the latent, the same at every step."""

    weights: tuple[float, ...]

    def weigh(self, batch: Batch, state: State, step: Tensor) -> tuple[Tensor, State]:
        return torch.tensor(self.weights), {}


def gradients(vae: Vae) -> tuple[Terms, dict[str, Tensor], State]:
    """The terms, the gradients and the new state of one step."""
    images, noise = batch(vae)
    parameters: dict[str, Tensor] = dict(vae.named_parameters())
    terms, state = step_terms(vae, parameters, vae.initial_state(total=10), images, noise)
    terms.loss.backward()
    found = {name: value.grad for name, value in parameters.items() if value.grad is not None}
    return terms, found, state


def weighted(decoder: str, model: str, *weights: float) -> tuple[Terms, dict[str, Tensor], State]:
    vae = make(decoder, model, 1)
    vae.balance = ByPart(weights=weights)
    return gradients(vae)


@pytest.mark.parametrize("decoder", ["shared", "beta_nll"])
def test_a_weight_moves_the_gradient_of_the_rate_and_no_reported_number(decoder: str) -> None:
    """Also behind a surrogate: the gradient is linear in the weight, the terms are the ELBO's."""
    plain, base, _ = gradients(make(decoder, "conv_vae", 1))
    unit, one, state = weighted(decoder, "conv_vae", 1.0)
    heavy, three, _ = weighted(decoder, "conv_vae", 3.0)
    _, none, _ = weighted(decoder, "conv_vae", 0.0)
    assert state["balance.step"] == 1
    for terms in (unit, heavy):
        assert all(torch.equal(a, b) for a, b in zip(plain, terms, strict=True))
    for name, gradient in base.items():
        torch.testing.assert_close(one[name], gradient, rtol=1e-4, atol=1e-5)
        rate = gradient - none[name]
        torch.testing.assert_close(three[name], none[name] + 3 * rate, rtol=1e-3, atol=1e-4)
    moved = [name for name in base if not torch.equal(base[name], three[name])]
    assert any(name.startswith("model.encoder") for name in moved)
    assert not any(name.startswith("decoder") for name in moved)


def test_a_part_without_weight_has_no_gradient_of_its_rate() -> None:
    """Of a hierarchy, weights of all parts are additive."""
    parts = len(make("shared", "hierarchical", 1).model.parts)
    assert parts > 1
    eye = torch.eye(parts).tolist()
    _, none, _ = weighted("shared", "hierarchical", *[0.0] * parts)
    alone = [weighted("shared", "hierarchical", *row)[1] for row in eye]
    _, both, _ = weighted("shared", "hierarchical", *[1.0] * parts)
    for name, gradient in both.items():
        added = none[name] + sum(one[name] - none[name] for one in alone)
        torch.testing.assert_close(added, gradient, rtol=1e-3, atol=1e-3)


def test_the_elbo_has_no_state_and_descends_its_own_value() -> None:
    vae = make("shared", "conv_vae", 1)
    terms, _, state = gradients(vae)
    assert not [name for name in state if name.startswith("balance")]
    assert terms.loss == terms.distortion + terms.rate
    assert BALANCES["elbo"].ends_at_elbo


@pytest.mark.parametrize("name", BALANCES)
def test_a_spec_survives_a_process_boundary_and_says_what_it_is(name: str) -> None:
    spec = balance_spec(name)
    assert pickle.loads(pickle.dumps(spec)) == spec
    assert isinstance(build_balance(spec), Balance)
    assert spec.summary()


@pytest.mark.parametrize("decoder", DECODERS)
def test_only_a_rule_that_sets_the_scale_refuses_a_learned_one(decoder: str) -> None:
    spec = decoder_spec(decoder, **REQUIRED.get(decoder, {}))
    for name, kind in BALANCES.items():
        words = balance_spec(name).refusal(spec)
        assert bool(words) == (kind.sets_scale and spec.learns_scale)
        assert not words or ("one degree of freedom" in words and decoder in words)


def test_decoders_that_set_their_own_scale() -> None:
    """All but those whose options, or whose mean image, say what an error costs."""
    fixed = {name for name, spec in DECODERS.items() if not spec.learns_scale}
    assert fixed >= {"mse", "gaussian", "beta", "bernoulli", "laplace_fixed"}
    assert not fixed & {"shared", "optimal", "per_pixel", "student_t", "categorical", "beta_nll"}
