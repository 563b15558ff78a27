"""The devices of this machine and their precision, found without importing torch.

A run's id depends on its precision, and `auto` depends on the hardware, so `--dry-run` and `status`
need it, too. `doctor` compares the answer with torch's. The rates of a processor are measured by
another process (`bench.processor`).
"""

import ctypes
import errno
import importlib.util
import os
import re
import sys
from enum import StrEnum
from functools import cache
from pathlib import Path

from bench import processor
from bench.errors import RequestError

DEVICE = re.compile(r"auto|cpu|cuda(?::\d+)?")
# Messages of torch's untyped errors when its CPU allocator, a standard container, CUDA, a library
# of CUDA or oneDNN gets no memory. oneDNN has no more specific message.
NO_MEMORY = re.compile(
    "can't allocate memory|std::bad_alloc|out of memory|_ALLOC_FAILED|could not create a primitive"
)
# Attribute numbers of the CUDA driver's cuDeviceGetAttribute.
_CAPABILITY_MAJOR = 75
# The first compute capability, Ampere's, that multiplies bfloat16 matrices.
BFLOAT16_CAPABILITY = 8
# How many times as fast as float32 a processor's bfloat16 must be for `auto` to mean it. Two
# that were measured have 5.7 (AMX) and 0.53; three repetitions of the latter differed by 0.2 %.
WORTHWHILE = 1.2


class DeviceClass(StrEnum):
    """Devices of one kind, whichever node of a cluster has them."""

    CPU = "cpu"
    CUDA = "cuda"


def cores() -> int:
    """The processor cores that this process may use."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


@cache
def cuda_capabilities() -> tuple[int, ...]:
    """The compute capability's major number of every visible CUDA device; empty without CUDA."""
    if not _torch_has_cuda():
        return ()
    try:
        driver = ctypes.CDLL("libcuda.so.1")
    except OSError:
        return ()
    count = ctypes.c_int()
    if driver.cuInit(0) or driver.cuDeviceGetCount(ctypes.byref(count)):
        return ()
    majors = []
    for index in range(count.value):
        device, major = ctypes.c_int(), ctypes.c_int()
        if driver.cuDeviceGet(ctypes.byref(device), index) or driver.cuDeviceGetAttribute(
            ctypes.byref(major), _CAPABILITY_MAJOR, device
        ):
            return ()
        majors.append(major.value)
    return tuple(majors)


def _torch_has_cuda() -> bool:
    found = importlib.util.find_spec("torch")
    if found is None or found.origin is None:
        return False
    version = Path(found.origin).with_name("version.py").read_text()
    return re.search(r"^cuda\b.*=\s*['\"]", version, re.MULTILINE) is not None


def resolve_device(asked: str) -> str:
    """`cpu` or `cuda:INDEX` for `auto|cpu|cuda[:i]`.

    Raises:
        RequestError: no such device here, or not a device name.
    """
    if not DEVICE.fullmatch(asked):
        raise RequestError(f"--device {asked}: expected auto, cpu, cuda or cuda:INDEX")
    if asked == "cpu":
        return "cpu"
    count = len(cuda_capabilities())
    if asked == "auto":
        return "cuda:0" if count else "cpu"
    index = int(asked.partition(":")[2] or 0)
    if index >= count:
        have = f"{count} CUDA device{'s' if count != 1 else ''}" if count else "no CUDA device"
        raise RequestError(
            f"--device {asked}: this machine has {have} that torch can use; "
            "use --device cpu, or see `sigma-bench doctor`"
        )
    return f"cuda:{index}"


def resolve_devices(asked: str) -> tuple[str, ...]:
    """The devices that runs are distributed to: every CUDA device, unless one is named or none is.

    The first is that of `resolve_device`. The others have its compute capability, because the
    precision of a run must not depend on its device. Raises what `resolve_device` raises.
    """
    first = resolve_device(asked)
    if not first.startswith("cuda") or ":" in asked:
        return (first,)
    majors = cuda_capabilities()
    return tuple(f"cuda:{index}" for index, major in enumerate(majors) if major == majors[0])


def resolve_class(asked: str) -> DeviceClass:
    """The devices of a cluster that `--device auto|cpu|cuda` means, be they here or not.

    Raises:
        RequestError: one device by its number, or not a device name.
    """
    if asked not in ("auto", "cpu", "cuda"):
        raise RequestError(
            f"--device {asked}: on an engine it is cuda or cpu; the engine deals its devices"
        )
    return DeviceClass.CPU if asked == "cpu" else DeviceClass.CUDA


def native_bfloat16(device: str) -> bool:
    """Whether `device` multiplies bfloat16 matrices in hardware (Ampere on; AVX512-BF16, AMX).

    Of a class this is a rule, so that a run's precision depends on no node: CUDA devices do, and
    processors do not.
    """
    if isinstance(device, DeviceClass):
        return device is DeviceClass.CUDA
    if device.startswith("cuda"):
        capability = cuda_capabilities()[int(device.partition(":")[2] or 0)]
        return capability >= BFLOAT16_CAPABILITY
    return not processor.flags().isdisjoint({"avx512_bf16", "amx_bf16"})


def resolve_precision(asked: str, device: str) -> str:
    """`float32` or `bfloat16`: the one asked for, or for `auto` bfloat16 where it is native.

    On this machine's processor it must be faster, too: one measurement tells (`bfloat16_gain`).
    """
    if asked != "auto":
        return asked
    if not native_bfloat16(device):
        return "float32"
    gain = None if device.startswith("cuda") else processor.bfloat16_gain()
    return "bfloat16" if gain is None or gain >= WORTHWHILE else "float32"


def out_of_memory(error: BaseException) -> bool:
    """Whether `error` says that the machine or the device ran out of memory."""
    if isinstance(error, MemoryError):
        return True
    if isinstance(error, OSError):
        return error.errno == errno.ENOMEM
    # Where torch was never imported, the error is not torch's.
    torch = sys.modules.get("torch")
    if torch is not None and isinstance(error, torch.OutOfMemoryError):
        return True
    return isinstance(error, RuntimeError) and NO_MEMORY.search(str(error)) is not None
