"""Computing one run after the other; data and feature networks are loaded once."""

import contextlib
import logging
import resource
import sys
import time
import traceback
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, TypeVar

import torch
from torch import Tensor

from bench import data, plugins
from bench.data import Dataset
from bench.devices import out_of_memory
from bench.errors import Lost, RequestError, Stopped
from bench.evaluation import samplers
from bench.evaluation.context import Metrics, split
from bench.evaluation.evaluate import evaluate
from bench.evaluation.features.base import Extractor
from bench.evaluation.features.base import build as build_extractor
from bench.evaluation.features.video import VideoExtractor, build_video
from bench.evaluation.network_size import network_size
from bench.execution import environment
from bench.execution.artifacts import save
from bench.execution.measuring import Meter
from bench.execution.messages import Keep, Message, Task
from bench.execution.rehearsal import rehearse
from bench.execution.signals import Stop
from bench.files import disk_full, write_bytes, write_checked, write_json
from bench.records.lease import Claim
from bench.records.store import Record, Store, done, new_record
from bench.records.validity import DIVERGED, FAILED, LARGEST
from bench.run import CHECKPOINT, Features, Run
from bench.training.checkpoint import Epoch, write_history
from bench.training.malloc import return_freed_memory
from bench.training.train import train
from bench.training.weights import load

logger = logging.getLogger("sigma-bench")

T = TypeVar("T")


@dataclass
class Worker:
    """Computes runs on one device with so many threads, until `stop` is asked to."""

    device: str
    stop: Stop = field(default_factory=Stop)
    threads: int = 1
    _datasets: dict[tuple[str, int], Dataset] = field(default_factory=dict)
    _networks: dict[tuple[str, str], Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if self.device.startswith("cuda"):
            # Calls that name no device, such as a graph's synchronisation, must use this one.
            torch.cuda.set_device(self.device)
        torch.set_num_threads(self.threads)
        # float32 in a protocol means float32: by default torch uses TF32 in CUDA's convolutions.
        torch.backends.cudnn.allow_tf32 = False
        torch.backends.cuda.matmul.allow_tf32 = False

    def dataset(self, run: Run) -> Dataset:
        """The run's data on the device, loaded once; RequestError where their content changed."""
        return self._loaded(run.dataset, run.place, run.content, run.split_seed)

    def others(self, run: Run) -> dict[str, Tensor]:
        """The test images of the other data sets of the run, by the name of their measure."""
        return {
            other.metric: self._loaded(other.name, other.name, other.content, run.split_seed).test
            for other in run.evaluation.ood
        }

    def _loaded(self, name: str, place: str, content: str | None, split_seed: int) -> Dataset:
        key = (place, split_seed)
        if key not in self._datasets:
            loaded = data.load(*key, content=content)
            self._datasets[key] = Dataset(
                loaded.description,
                *(part.to(self.device) for part in (loaded.train, loaded.validation, loaded.test)),
            )
        dataset = self._datasets[key]
        if dataset.description.content != content:
            raise RequestError(f"dataset {name} changed while the grid ran; start it again")
        return dataset

    def extractor(self, run: Run) -> Extractor | None:
        """The run's feature network, built once."""
        return self._built(run.evaluation.features, build_extractor)

    def video_extractor(self, run: Run) -> VideoExtractor | None:
        """The run's feature network of whole videos, built once."""
        return self._built(run.evaluation.fvd, build_video)

    def _built(self, chosen: Features | None, build: Callable[[Features, str], T]) -> T | None:
        if chosen is None:
            return None
        # One file may serve both, called in another way.
        key = (chosen.name, chosen.sha256)
        if key not in self._networks:
            self._networks[key] = build(chosen, self.device)
        network: T = self._networks[key]
        return network

    def attempt(self, task: Task, store: Store, tell: Callable[[Message], None]) -> Message:
        """Compute the task's run in the store, unless another process does or has done so.

        Returns the message that ends the attempt; `tell` gets those about epochs.
        """
        run = task.run
        try:
            # What a plugin prints is no part of the grid's own output, which may be JSON.
            with plugins.contained(), store.claim(run) as claim:
                if claim is None:
                    return task.message("held")
                # Another process may have finished it since the scheduler looked for its record.
                record = store.record(run)
                if done(record):
                    return task.message("found", record)
                weights = store.find_weights(run)
                computed = self.execute(
                    run,
                    claim,
                    task.selection,
                    lambda line: tell(task.message("epoch", line)),
                    weights,
                    lambda how_far: tell(task.message("measuring", how_far)),
                    task.keep,
                )
                artifacts = computed["artifacts"]
                if "weights" in artifacts:
                    store.remember_weights(run, [artifacts["weights"], artifacts["history"]])
                elif artifacts and weights is None:
                    store.remember_weights(run, [])
                return task.message("record", computed)
        except RequestError as error:
            return task.message("wrong", str(error))
        except Stopped:
            return task.message("stopped")
        except Lost:
            return task.message("held")
        except OSError as error:
            return task.unwritten(error, store.folder)

    def execute(
        self,
        run: Run,
        claim: Claim,
        selection: dict[str, Any],
        on_epoch: Callable[[Epoch], None] = lambda epoch: None,
        weights: Path | None = None,
        on_measuring: Callable[[str], None] = lambda how_far: None,
        keep: Keep = "weights",
    ) -> Record:
        """Train and measure `run` in the claimed folder, write its record last, and return it.

        `weights` is the folder of a run that differs only in its evaluation; its weights are then
        measured and nothing is trained. `keep` says whether the run's own weights are written.

        Raises:
            Stopped: `stop` was asked to; a later call continues at the same step.
            Lost: another process has taken the run over.
            RequestError: the data changed or cannot be read.
            OSError: a disk is full, or the record cannot be written.
        """
        with recorded(run, claim, selection, self.device, run.training.precision) as record:
            self._measure(run, claim, record, on_epoch, weights, on_measuring, keep)
        (claim.folder / CHECKPOINT).unlink(missing_ok=True)
        return record

    def _measure(
        self,
        run: Run,
        claim: Claim,
        record: Record,
        on_epoch: Callable[[Epoch], None],
        weights: Path | None,
        on_measuring: Callable[[str], None],
        keep: Keep,
    ) -> None:
        def leave() -> bool:
            if claim.lost():
                raise Lost
            return self.stop.asked

        folder = claim.folder
        with self.stop.at_once():
            # All raise RequestError, which should come before hours of training.
            dataset, extractor = self.dataset(run), self.extractor(run)
            videos, others = self.video_extractor(run), self.others(run)
            samplers.refuse(run, dataset.train)
        start = time.perf_counter()
        if weights is None:
            rehearse(run, dataset.train)
            trained = train(run, dataset.train, folder, on_epoch, leave)
            # One thread is the standard; another number changes the last bits.
            if self.threads != 1:
                record["protocol"]["training"] = {"threads": self.threads}
        else:
            trained = load(run, weights, dataset.train)
            write_history(trained.history, folder)
            record["protocol"]["training"] = {"weights_of": weights.name}
        here = time.perf_counter() - start
        seconds = sum(line["seconds"] for line in trained.history)
        images = sum(line["seconds"] * line["images_per_second"] for line in trained.history)
        record["cost"] |= {
            "training_seconds": seconds,
            "images_per_second": images / seconds if seconds else 0.0,
            # What an interrupted process had already spent on the epochs before this one.
            "earlier_seconds": max(0.0, seconds - here),
            **network_size(trained.vae, trained.state),
        }
        if run.training.skip is not None:
            record["cost"]["skipped_steps"] = sum(line["skipped"] for line in trained.history)
        if trained.divergence is not None:
            record["status"] = DIVERGED
            record["divergence"] = asdict(trained.divergence)
            return
        return_freed_memory()
        start = time.perf_counter()
        meter = Meter.of(on_measuring, run, trained.vae.model, len(split(dataset, run)))
        with self.stop.at_once(), meter.watching(trained.vae.decoder):
            metrics, protocol, curves = evaluate(
                run, trained, dataset, extractor and meter.counted(extractor), videos, others
            )
        record["metrics"] |= finite(metrics)
        record["protocol"] |= protocol
        record["curves"] |= curves
        record["artifacts"] |= save(run, trained, dataset, folder, keep)
        record["cost"]["evaluation_seconds"] = time.perf_counter() - start
        record["cost"]["device_seconds"] = seconds + record["cost"]["evaluation_seconds"]


@contextlib.contextmanager
def recorded(
    run: Run, claim: Claim, selection: dict[str, Any], device: str, precision: str
) -> Iterator[Record]:
    """A record of `run` for the block to fill in, written when the block has ended.

    An exception in the block becomes a record of failure, unless the run did not cause it: a wrong
    request, a full disk, a stop, and a lost claim pass through.

    Raises:
        Lost: another process has taken the run over.
    """
    start = time.perf_counter()
    folder = claim.folder
    for leftover in folder.glob(".*.partial"):  # of a process that was killed while it wrote
        leftover.unlink(missing_ok=True)
    write_json(folder / "run.json", {"id": run.id, **run.model_dump(mode="json")})
    record = new_record(run, selection)
    record["environment"] = {**environment.describe(device), "precision": precision}
    write_json(folder / "environment.json", record["environment"])
    forget_peak(device)
    try:
        yield record
    except (RequestError, Stopped, Lost):
        raise
    # A plugin may call sys.exit, which is no reason to end the worker.
    except (Exception, SystemExit) as error:
        if isinstance(error, OSError) and disk_full(error):
            raise
        record["status"] = FAILED
        record["failure"] = failure(error, device)
        trace = folder / "error.txt"
        logger.warning(
            "run %s failed: %s (see %s)", run.id, ": ".join(record["failure"].values()), trace
        )
        write_bytes(trace, traceback.format_exc().encode())
    if claim.lost():
        raise Lost
    record["cost"] |= {
        "seconds": record["cost"].get("earlier_seconds", 0.0) + time.perf_counter() - start,
        "peak_memory_bytes": peak_memory(device),
        "finished": datetime.now(UTC).isoformat(timespec="seconds"),
    }
    write_checked(folder / "record.json", record)


LONGEST = 300
"""Characters of a failure's message: some libraries append their stack or a whole manual."""


def first_line(error: BaseException) -> str:
    """The first line of an error's message, cut to `LONGEST` characters."""
    line = next(iter(str(error).strip().splitlines()), "")
    return line if len(line) <= LONGEST else f"{line[: LONGEST - 1]}…"


def failure(error: BaseException, device: str) -> dict[str, str]:
    """A record's `failure`: the error's type and message, and for memory what to do."""
    if isinstance(error, SystemExit):
        said = f"sys.exit({first_line(error)}) was called while the run was computed"
        return {"type": "SystemExit", "message": said}
    if not out_of_memory(error):
        return {"type": type(error).__name__, "message": first_line(error)}
    if device.startswith("cuda"):
        torch.cuda.empty_cache()  # for the next run; this one's tensors are freed with its frames
    peak = peak_memory(device) / 2**30
    return {
        "type": "OutOfMemory",
        "message": f"memory ran out at a peak of {peak:.1f} GiB in this worker; try fewer --jobs, "
        f"a smaller training.batch or model ({first_line(error)})",
    }


def finite(metrics: Metrics) -> Metrics:
    """The metrics, unless one is NaN or so large that no record may hold it.

    Raises:
        FloatingPointError: one is not finite, though training was.
    """
    bad = [name for name, value in metrics.items() if not abs(value) <= LARGEST]
    if bad:
        raise FloatingPointError(f"no finite number after a finite training: {', '.join(bad)}")
    return metrics


def forget_peak(device: str) -> None:
    """Reset `peak_memory`, so that each run has its own."""
    if device.startswith("cuda"):
        torch.cuda.reset_peak_memory_stats(device)
    # Linux only; elsewhere the peak is that of all runs of the worker so far.
    with contextlib.suppress(OSError):
        Path("/proc/self/clear_refs").write_text("5")


def peak_memory(device: str) -> int:
    """The most bytes in use since `forget_peak`: device memory on CUDA, resident set on a CPU."""
    if device.startswith("cuda"):
        return torch.cuda.max_memory_allocated(device)
    # Linux counts in KiB, macOS in bytes.
    unit = 1 if sys.platform == "darwin" else 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit
