"""What the machine can do, found without torch, agrees with torch's own view."""

import errno
from collections.abc import Callable

import numpy as np
import pytest
import torch

from bench import devices, processor
from bench.errors import RequestError
from bench.execution.engine import devices_on
from bench.execution.schedule import MOST_JOBS, default_jobs

JOBS = min(devices.cores(), MOST_JOBS)


def test_cuda_devices_are_torchs() -> None:
    majors = [
        torch.cuda.get_device_capability(index)[0] for index in range(torch.cuda.device_count())
    ]
    assert list(devices.cuda_capabilities()) == majors


def test_native_bfloat16_is_torchs() -> None:
    probes = [
        getattr(torch.cpu, name, None)
        for name in ("_is_avx512_bf16_supported", "_is_amx_tile_supported")
    ]
    if None in probes:
        pytest.skip("this torch does not tell what the processor multiplies")
    assert devices.native_bfloat16("cpu") == any(probe() for probe in probes if probe)


@pytest.mark.parametrize(
    ("flags", "gain", "precision"),
    [
        ("avx2 avx512f", None, "float32"),
        ("avx512f avx512_bf16", 0.57, "float32"),
        ("avx512f avx512_bf16", 1.9, "bfloat16"),
        ("avx512f avx512_bf16 amx_bf16", 5.7, "bfloat16"),
        ("amx_bf16", None, "bfloat16"),  # not measurable
    ],
)
def test_a_processor_trains_in_bfloat16_where_that_is_faster(
    monkeypatch: pytest.MonkeyPatch, flags: str, gain: float | None, precision: str
) -> None:
    monkeypatch.setattr(processor, "field", {"flags": flags}.get)
    monkeypatch.setattr(processor, "bfloat16_gain", lambda: gain)
    assert devices.resolve_precision("auto", "cpu") == precision
    assert devices.resolve_precision("bfloat16", "cpu") == "bfloat16"


def test_precision_follows_the_hardware(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(devices, "cuda_capabilities", lambda: (7, 8, 9))
    assert devices.resolve_precision("auto", "cuda:0") == "float32"
    assert devices.resolve_precision("auto", "cuda:1") == "bfloat16"
    assert devices.resolve_precision("float32", "cuda:2") == "float32"


@pytest.mark.parametrize(
    ("asked", "majors", "found"),
    [
        ("auto", (), "cpu"),
        ("auto", (8,), "cuda:0"),
        ("cpu", (8,), "cpu"),
        ("cuda", (8, 9), "cuda:0"),
        ("cuda:1", (8, 9), "cuda:1"),
    ],
)
def test_devices_resolve(
    monkeypatch: pytest.MonkeyPatch, asked: str, majors: tuple[int, ...], found: str
) -> None:
    monkeypatch.setattr(devices, "cuda_capabilities", lambda: majors)
    assert devices.resolve_device(asked) == found


@pytest.mark.parametrize(
    ("asked", "majors", "found"),
    [
        ("auto", (), ["cpu"]),
        ("cpu", (9, 9), ["cpu"]),
        ("auto", (9, 9, 9), ["cuda:0", "cuda:1", "cuda:2"]),
        ("cuda", (9, 9), ["cuda:0", "cuda:1"]),
        ("cuda:1", (9, 9), ["cuda:1"]),
        # A run's precision must not depend on which device it meets.
        ("auto", (8, 7, 8), ["cuda:0", "cuda:2"]),
    ],
)
def test_runs_are_dealt_to_devices_of_one_kind(
    monkeypatch: pytest.MonkeyPatch, asked: str, majors: tuple[int, ...], found: list[str]
) -> None:
    monkeypatch.setattr(devices, "cuda_capabilities", lambda: majors)
    assert list(devices.resolve_devices(asked)) == found
    assert found[0] == devices.resolve_device(asked)
    assert default_jobs(found, 1000) == (len(found) if majors and asked != "cpu" else JOBS)


@pytest.mark.parametrize(
    ("asked", "precision"),
    [("auto", "bfloat16"), ("cuda", "bfloat16"), ("cpu", "float32")],
)
@pytest.mark.parametrize("majors", [(), (7,), (9, 9)])
def test_precision_on_an_engine_depends_on_no_machine(
    monkeypatch: pytest.MonkeyPatch, asked: str, precision: str, majors: tuple[int, ...]
) -> None:
    monkeypatch.setattr(devices, "cuda_capabilities", lambda: majors)
    (device,) = devices_on("ray", asked)
    assert devices.resolve_precision("auto", device) == precision
    assert devices.resolve_precision("float32", device) == "float32"
    assert default_jobs([device], 1000) == 0  # the engine knows how many places there are


@pytest.mark.parametrize("asked", ["cuda:0", "gpu", ""])
def test_an_engine_deals_its_devices_by_itself(asked: str) -> None:
    with pytest.raises(RequestError, match=f"^--device {asked}: on an engine it is cuda or cpu"):
        devices_on("ray", asked)


def test_a_grid_on_gpus_is_looked_at_where_there_is_none(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(devices, "cuda_capabilities", lambda: ())
    (device,) = devices_on("local", "cuda", to_compute=False)
    assert devices.resolve_precision("auto", device) == "bfloat16"
    with pytest.raises(RequestError, match="no CUDA device"):
        devices_on("local", "cuda")


def test_several_runs_share_a_gpu() -> None:
    assert default_jobs(["cuda:0", "cuda:1"], 1000, per_gpu=3) == 6


@pytest.mark.parametrize("asked", ["cuda:2", "gpu", "cuda:", "cuda:x", ""])
def test_a_device_that_is_not_there(monkeypatch: pytest.MonkeyPatch, asked: str) -> None:
    monkeypatch.setattr(devices, "cuda_capabilities", lambda: (8, 9))
    with pytest.raises(RequestError, match="--device"):
        devices.resolve_device(asked)


def failure(call: Callable[[], object]) -> BaseException:
    with pytest.raises((MemoryError, RuntimeError)) as caught:
        call()
    return caught.value


def test_a_lack_of_memory_is_recognised() -> None:
    many = 1 << 58
    assert devices.out_of_memory(failure(lambda: torch.empty(many)))
    assert devices.out_of_memory(failure(lambda: np.empty(many)))
    assert devices.out_of_memory(failure(lambda: bytearray(many)))
    assert devices.out_of_memory(torch.OutOfMemoryError("CUDA out of memory."))
    assert devices.out_of_memory(OSError(errno.ENOMEM, "Cannot allocate memory"))


def test_other_failures_are_no_lack_of_memory() -> None:
    assert not devices.out_of_memory(failure(lambda: torch.ones(2) @ torch.ones(3)))
    assert not devices.out_of_memory(OSError(errno.ENOSPC, "No space left on device"))
    assert not devices.out_of_memory(ValueError("out of memory"))
