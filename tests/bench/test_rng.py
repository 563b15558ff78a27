"""Streams of random numbers: repeatable, apart from each other, and pinned for ever."""

import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from bench.rng import NormalRows, Rows, UniformRows, generator, normal, seeded, stream_seed


def test_stream_seeds_are_pinned() -> None:
    assert stream_seed(0, "order") == 2_537_739_582_326_302_707


@given(st.integers(0, 2**31), st.text(min_size=1), st.integers(0, 1000))
def test_a_stream_is_its_name(seed: int, name: str, index: int) -> None:
    assert 0 <= stream_seed(seed, name, index) < 2**63
    others = {stream_seed(seed + 1, name, index), stream_seed(seed, name + "x", index),
              stream_seed(seed, name, index + 1)}  # fmt: skip
    assert stream_seed(seed, name, index) not in others


def test_streams_repeat_and_do_not_correlate() -> None:
    one = normal((20_000,), 0, "noise", device="cpu")
    again = normal((20_000,), 0, "noise", device="cpu")
    other = normal((20_000,), 0, "order", device="cpu")
    assert torch.equal(one, again)
    correlation = torch.corrcoef(torch.stack([one, other]))[0, 1]
    assert abs(correlation) < 5 / 20_000**0.5


def test_generators_do_not_touch_the_global_one() -> None:
    torch.manual_seed(7)
    before = torch.random.get_rng_state()
    torch.randn(5, generator=generator(0, "noise"))
    assert torch.equal(before, torch.random.get_rng_state())


def test_a_distribution_draws_from_its_own_stream_and_leaves_the_global_one() -> None:
    def draw(name: str) -> torch.Tensor:
        with seeded(0, name, device="cpu"):
            drawn: torch.Tensor = torch.distributions.Normal(0.0, 1.0).sample((5,))
            return drawn

    before = torch.random.get_rng_state()
    assert torch.equal(draw("one"), draw("one"))
    assert not torch.equal(draw("one"), draw("two"))
    assert torch.equal(draw("one"), normal((5,), 0, "one", device="cpu"))
    assert torch.equal(before, torch.random.get_rng_state())


@given(
    st.integers(1, 600),
    st.integers(0, 600),
    st.integers(0, 600),
    st.sampled_from([1, 7, 100, 128, 200, 512]),
    st.sampled_from([NormalRows, UniformRows]),
)
@settings(deadline=None)
def test_rows_are_the_same_whichever_are_asked_for_together(
    count: int, start: int, stop: int, size: int, kind: type[Rows]
) -> None:
    def fresh() -> Rows:
        return kind(count, 3, 0, "rows", device="cpu")

    whole = fresh()[:]
    assert whole.shape == (count, 3)
    assert torch.equal(fresh()[start:stop], whole[start:stop])
    assert torch.equal(torch.cat(list(fresh().split(size))), whole)


def test_uniform_rows_are_uniform() -> None:
    values = UniformRows(2000, 50, 0, "rows", device="cpu")[:]
    assert values.min() >= 0
    assert values.max() < 1
    shares = torch.histc(values, 20, 0, 1) / values.numel()
    assert (shares - 1 / 20).abs().max() < 5 * (1 / 20 / values.numel()) ** 0.5


def test_more_rows_begin_with_the_fewer() -> None:
    few, many = (NormalRows(count, 3, 0, "rows", device="cpu")[:] for count in (300, 900))
    assert torch.equal(few, many[:300])
    assert len(many.unique(dim=0)) == 900


def test_rows_need_the_memory_of_a_block() -> None:
    rows = NormalRows(10**9, 50, 0, "rows", device="cpu")
    assert rows[10**9 - 2 :].shape == (2, 50)
