"""What every balance promises, and what the weight of a rule does to a training step."""

import itertools
import pickle

import pytest
import torch
from torch import Tensor
from torch._subclasses.fake_tensor import FakeTensorMode

from baselines.balances.base import WEIGHT, Balance, Batch
from baselines.build import build_balance
from baselines.options import BALANCES, DECODERS
from baselines.state import State
from baselines.vae import Terms, Vae, step_terms
from tests.baselines.test_contract import BATCH, REQUIRED, batch, make, repeated
from tests.specs import balance_spec, decoder_spec

NEEDED: dict[str, dict[str, float]] = {
    "free_bits": {"floor": 0.5},
    "geco": {"goal": 0.2},
    "control": {"goal": 10},
}
"""Options that have no default."""

SOME = ("gaussian", "shared", "optimal", "beta_nll", "faithful")
"""Decoders of every kind: a fixed scale, a parameter, a state, a surrogate, detached outputs."""

triples = pytest.mark.parametrize(
    ("name", "decoder", "model"),
    [
        (name, decoder, model)
        for name, decoder, model in itertools.product(
            BALANCES, SOME, ("conv_vae", "hierarchical", "svg")
        )
        if not balance_spec(name, **NEEDED.get(name, {})).refusal(
            decoder_spec(decoder, **REQUIRED.get(decoder, {}))
        )
    ],
)


def rule(name: str, **options: float) -> Balance:
    return build_balance(balance_spec(name, **{**NEEDED.get(name, {}), **options}))


def made(name: str, decoder: str, model: str, channels: int = 1) -> Vae:
    vae = make(decoder, model, channels)
    vae.balance = rule(name)
    return vae


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


# -- a weight --------------------------------------------------------------------------------------


@pytest.mark.parametrize("decoder", ["shared", "beta_nll"])
def test_a_weight_moves_the_gradient_of_the_rate_and_no_reported_number(decoder: str) -> None:
    """Also behind a surrogate: the gradient is linear in the weight, the terms are the ELBO's."""
    plain, base, _ = gradients(make(decoder, "conv_vae", 1))
    unit, one, state = weighted(decoder, "conv_vae", 1.0)
    heavy, three, _ = weighted(decoder, "conv_vae", 3.0)
    _, none, _ = weighted(decoder, "conv_vae", 0.0)
    assert state["balance.step"] == 1
    assert state[WEIGHT] == 1
    for terms in (unit, heavy):
        assert all(torch.equal(a, b) for a, b in zip(plain, terms, strict=True))
    for name, gradient in base.items():
        torch.testing.assert_close(one[name], gradient, rtol=1e-4, atol=1e-5)
        rate = gradient - none[name]
        torch.testing.assert_close(three[name], none[name] + 3 * rate, rtol=1e-3, atol=1e-4)
    moved = [name for name in base if not torch.equal(base[name], three[name])]
    assert any(name.startswith("model.encoder") for name in moved)
    assert not any(name.startswith("decoder") for name in moved)


def test_a_weight_of_each_part_acts_on_that_part() -> None:
    """Of a hierarchy: the gradients of parts add up to that of all."""
    parts = len(make("shared", "hierarchical", 1).model.parts)
    assert parts > 1
    _, none, _ = weighted("shared", "hierarchical", *[0.0] * parts)
    alone = [weighted("shared", "hierarchical", *row)[1] for row in torch.eye(parts).tolist()]
    _, both, state = weighted("shared", "hierarchical", *[1.0] * parts)
    assert state[WEIGHT] == 1
    for name, gradient in both.items():
        added = none[name] + sum(one[name] - none[name] for one in alone)
        torch.testing.assert_close(added, gradient, rtol=1e-3, atol=1e-3)


@pytest.mark.parametrize("model", ["conv_vae", "hierarchical"])
def test_the_elbo_descends_distortion_plus_rate_itself(model: str) -> None:
    """To the bit, and without state."""
    vae = make("shared", model, 1)
    terms, ours, state = gradients(vae)
    assert not [name for name in state if name.startswith("balance")]
    assert torch.equal(terms.loss.detach(), terms.distortion + terms.rate)
    images, noise = batch(vae)
    begun = vae.initial_state()
    context, _ = vae.model.encode(images, begun, training=True)
    draw = vae.model.draw(context, noise, begun, training=True)
    distortion = -vae.decoder(draw.output, begun, images).log_prob(images).mean()
    vae.zero_grad()
    (distortion + draw.rate.sum(-1).mean()).backward()
    for name, parameter in vae.named_parameters():
        assert parameter.grad is not None
        assert torch.equal(ours[name], parameter.grad), name


# -- the contract ----------------------------------------------------------------------------------


@triples
def test_a_balanced_step_is_a_function_and_reports_the_elbo(
    name: str, decoder: str, model: str
) -> None:
    vae = made(name, decoder, model)
    images, noise = batch(vae)
    state = vae.initial_state(total=10)
    terms, changed = repeated(vae, state)
    assert not any(value.requires_grad for key, value in changed.items() if "balance" in key)
    plain, _ = step_terms(
        make(decoder, model, 1), dict(vae.named_parameters()),
        {k: v for k, v in state.items() if "balance" not in k},
        images, noise,
    )  # fmt: skip
    assert all(torch.equal(a, b) for a, b in zip(terms, plain, strict=True))
    terms.loss.backward()
    assert all(p.grad is None or p.grad.isfinite().all() for p in vae.parameters())


@pytest.mark.parametrize("model", ["conv_vae", "hierarchical", "svg"])
@pytest.mark.parametrize("name", BALANCES)
def test_a_balanced_step_stays_on_a_gpu(name: str, model: str) -> None:
    """On tensors without values: two devices, a wait and a branch on a value raise."""
    with FakeTensorMode(), torch.device("cuda"):
        vae = made(name, "gaussian", model, 3)
        images = torch.rand(BATCH, *vae.model.data_shape)
        noise = torch.randn(BATCH, vae.model.noise_size)
        state = vae.initial_state(total=10)
        parameters: dict[str, Tensor] = dict(vae.named_parameters())
        for _ in range(2):
            terms, state = step_terms(vae, parameters, state, images, noise)
        assert {value.device.type for value in (*terms, *state.values())} == {"cuda"}


@pytest.mark.parametrize("name", BALANCES)
def test_a_spec_survives_a_process_boundary_and_says_what_it_is(name: str) -> None:
    spec = balance_spec(name, **NEEDED.get(name, {}))
    assert pickle.loads(pickle.dumps(spec)) == spec
    assert isinstance(build_balance(spec), Balance)
    assert spec.summary()


def test_the_sentence_that_refuses_geco_with_a_learned_sigma() -> None:
    geco = balance_spec("geco", goal=0.1)
    assert geco.refusal(decoder_spec("optimal")) == (
        "balance 'geco' is redundant with decoder 'optimal', which learns its σ: both set one "
        "degree of freedom, what an error costs in nats; choose a decoder of fixed σ, such as "
        "gaussian, or another balance"
    )
    assert not geco.refusal(decoder_spec("gaussian"))


@pytest.mark.parametrize("decoder", DECODERS)
def test_only_a_rule_that_sets_the_scale_refuses_a_learned_one(decoder: str) -> None:
    spec = decoder_spec(decoder, **REQUIRED.get(decoder, {}))
    for name, kind in BALANCES.items():
        refused = balance_spec(name, **NEEDED.get(name, {})).refusal(spec)
        assert bool(refused) == (kind.sets_scale and spec.learns_scale)


def test_decoders_that_set_their_own_scale() -> None:
    """All but those whose options, or whose mean image, say what an error costs."""
    fixed = {name for name, spec in DECODERS.items() if not spec.learns_scale}
    assert fixed >= {"mse", "gaussian", "beta", "bernoulli", "laplace_fixed"}
    assert not fixed & {"shared", "optimal", "per_pixel", "student_t", "categorical", "beta_nll"}
