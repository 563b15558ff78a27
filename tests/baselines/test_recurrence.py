"""Our LSTM against torch's."""

import pytest
import torch
from torch import Tensor, nn
from torch.func import functional_call, grad, vmap

from baselines.recurrence import Lstm, Recurrence

SIZE = 6


def pair() -> tuple[Lstm, nn.LSTM]:
    """Ours and torch's with the same weights; its gates are ordered in, forget, candidate, out."""
    torch.manual_seed(0)
    ours, peer = Lstm(SIZE), nn.LSTM(SIZE, SIZE, batch_first=True)

    def torchs(value: Tensor) -> Tensor:
        enter, keep, leave, candidate = value.detach().chunk(4)
        return torch.cat([enter, keep, candidate, leave])

    half = torchs(ours.bias) / 2
    peer.load_state_dict(
        {
            "weight_ih_l0": torchs(ours.inputs),
            "weight_hh_l0": torchs(ours.recurrent),
            "bias_ih_l0": half,
            "bias_hh_l0": half,
        }
    )
    return ours, peer


def test_it_is_the_lstm_of_torch() -> None:
    ours, peer = pair()
    values = torch.randn(5, 7, SIZE)
    results = []
    for network in (ours, peer):
        leaf = values.clone().requires_grad_()
        hidden, (last, cell) = network(leaf)
        (hidden.square().sum() + cell.sum()).backward()
        assert leaf.grad is not None
        results.append((hidden, last.reshape(5, SIZE), cell.reshape(5, SIZE), leaf.grad))
    for one, other in zip(*results, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-5, atol=1e-6)
    # The order of the gates differs; the gradients' sizes do not.
    for mine, name in ((ours.inputs, "weight_ih_l0"), (ours.recurrent, "weight_hh_l0")):
        theirs = peer.get_parameter(name)
        assert mine.grad is not None
        assert theirs.grad is not None
        torch.testing.assert_close(
            mine.grad.square().sum(), theirs.grad.square().sum(), rtol=1e-4, atol=0
        )


def test_it_begins_as_torchs() -> None:
    torch.manual_seed(0)
    ours, peer = Lstm(64), nn.LSTM(64, 64)
    for mine, name in ((ours.inputs, "weight_ih_l0"), (ours.recurrent, "weight_hh_l0")):
        theirs = peer.get_parameter(name)
        assert mine.shape == theirs.shape
        # Uniform on ±1/√64, of 16,384 numbers.
        for values in (mine, theirs):
            assert 0.124 < values.abs().max() <= 0.125
            assert values.std().item() == pytest.approx(0.125 / 3**0.5, rel=0.03)


@torch.no_grad()
def test_it_goes_on_from_its_memory() -> None:
    torch.manual_seed(0)
    network = Recurrence(3, SIZE, 2, layers=2)
    values = torch.randn(5, 7, 3)
    whole, last = network(values)
    memory, pieces = None, []
    for piece in values.split([1, 4, 1, 1], dim=1):
        found, memory = network(piece, memory)
        pieces.append(found)
    torch.testing.assert_close(torch.cat(pieces, dim=1), whole, rtol=1e-5, atol=1e-6)
    assert memory is not None
    for (one, cell), (other, expected) in zip(memory, last, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-5, atol=1e-6)
        torch.testing.assert_close(cell, expected, rtol=1e-5, atol=1e-6)


def test_it_is_exact_under_autocast() -> None:
    torch.manual_seed(0)
    network = Recurrence(3, SIZE, 2)
    values = torch.randn(5, 7, 3)
    with torch.autocast("cpu", torch.bfloat16):
        rounded, _ = network(values)
    assert torch.equal(rounded, network(values)[0])


def test_several_sets_of_weights_run_in_one_call() -> None:
    torch.manual_seed(0)
    network, values = Recurrence(3, SIZE, 2, layers=2), torch.randn(5, 7, 3)
    parameters = dict(network.named_parameters())

    def loss(factor: Tensor) -> Tensor:
        scaled = {name: value * factor for name, value in parameters.items()}
        found: Tensor = functional_call(network, scaled, (values,))[0].square().sum()
        return found

    factors = torch.tensor([0.8, 1.0, 1.3])
    together = vmap(grad(loss))(factors)
    apart = torch.stack([grad(loss)(factor) for factor in factors])
    torch.testing.assert_close(together, apart, rtol=1e-4, atol=1e-6)
