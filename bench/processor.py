"""This machine's processor: its name, its flags, and whether bfloat16 is faster there, measured.

Flags do not tell that: an Intel Xeon with AVX512-BF16, but without AMX, multiplies bfloat16
matrices at 0.53 times the rate of float32 ones.
"""

import contextlib
import json
import logging
import os
import re
import subprocess
import sys
import time
from collections.abc import Iterator
from functools import cache
from importlib.metadata import version
from pathlib import Path

from bench.files import cache_root, digest, write_json

logger = logging.getLogger("sigma-bench")

ROUNDS = 5
# Of oneDNN, torch and MKL.
INSTRUCTION_SETS = (
    "ONEDNN_MAX_CPU_ISA",
    "DNNL_MAX_CPU_ISA",
    "ATEN_CPU_CAPABILITY",
    "MKL_ENABLE_INSTRUCTIONS",
)
SECONDS = 120
SETS = {"amx_bf16": "AMX", "avx512_bf16": "AVX512-BF16", "avx512f": "AVX-512", "avx2": "AVX2"}
"""Flags that decide how fast matrices are multiplied, the fastest first, and their usual names."""


def field(name: str) -> str | None:
    """What Linux' /proc/cpuinfo says in this field of the first processor; elsewhere None."""
    try:
        told = Path("/proc/cpuinfo").read_text()
    except OSError:
        return None
    found = re.search(rf"^{name}\s*:\s*(.*)$", told, re.MULTILINE)
    return found[1] if found else None


def flags() -> frozenset[str]:
    """The instruction sets that this processor has, as Linux names them; elsewhere none."""
    return frozenset((field("flags") or "").split())


def fastest() -> str | None:
    """The fastest of its instruction sets for products: processors of one name have unlike ones.

    None where none is known.
    """
    has = flags()
    return next((name for flag, name in SETS.items() if flag in has), None)


def restrictions() -> dict[str, str]:
    """The variables of the environment that hold torch's libraries to an instruction set."""
    return {name: os.environ[name] for name in INSTRUCTION_SETS if os.environ.get(name)}


@contextlib.contextmanager
def threads(count: int) -> Iterator[None]:
    """Let torch use `count` threads inside the block."""
    import torch

    before = torch.get_num_threads()
    torch.set_num_threads(count)
    try:
        yield
    finally:
        torch.set_num_threads(before)


def rates(device: str, size: int) -> dict[str, float]:
    """FLOP/s of a square matrix product in each precision, the best of five taken in turn.

    A processor's are those of one thread, in its own time: other processes do not count.

    Examples:
        >>> sorted(rates("cpu", 64))
        ['bfloat16', 'float32']
    """
    import torch

    on_cuda = device.startswith("cuda")
    clock = time.perf_counter if on_cuda else time.process_time
    factors = {
        name: torch.randn(size, size, device=device).to(getattr(torch, name))
        for name in ("float32", "bfloat16")
    }
    taken: dict[str, list[float]] = {name: [] for name in factors}
    with threads(1):
        for _ in range(ROUNDS):
            for name, factor in factors.items():
                start = clock()
                product = factor @ factor
                product[0, 0].item()  # a GPU is waited for
                taken[name].append(clock() - start)
    return {name: 2 * size**3 / min(times) for name, times in taken.items()}


@cache
def bfloat16_gain() -> float | None:
    """This processor's rate in bfloat16 over that in float32; None where it cannot be measured.

    A process without torch answers, too: another one measures, once for each processor, version of
    torch and permitted instruction set (2 to 5 seconds), and the cache's folder keeps the answer.
    """
    decides = _what_decides()
    kept = cache_root() / "products" / f"{digest(decides)}.json"
    with contextlib.suppress(OSError, ValueError, KeyError, TypeError):
        return float(json.loads(kept.read_text())["bfloat16_gain"])
    try:
        told = subprocess.run(
            [sys.executable, "-P", "-m", "bench.processor"],
            capture_output=True,
            text=True,
            check=True,
            env={
                **os.environ,
                "PYTHONPATH": os.pathsep.join(path or os.getcwd() for path in sys.path),
            },
            timeout=SECONDS,
        ).stdout
        measured = json.loads(told)
        gain = float(measured["bfloat16"] / measured["float32"])
    except (OSError, ValueError, subprocess.SubprocessError) as error:
        logger.warning("the processor's bfloat16 could not be measured: %s", error)
        return None
    with contextlib.suppress(OSError):  # measured again by the next process
        write_json(kept, {"bfloat16_gain": gain, "flop_per_second": measured, **decides})
    return gain


def _what_decides() -> dict[str, str | None]:
    return {
        "processor": field("model name"),
        "flags": field("flags"),
        "torch": version("torch"),
        **restrictions(),
    }


if __name__ == "__main__":
    print(json.dumps(rates("cpu", 1024)))
