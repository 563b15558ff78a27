"""The engine `slurm`: pilots as the elements of a job array."""

import os
import shutil
import subprocess
from collections.abc import Sequence

from bench.errors import WRONG_REQUEST, RequestError
from bench.execution.launcher import Launcher, Tally
from bench.execution.pilot import LIMIT

GRACE = 120
"""Seconds before its time limit at which a pilot is told to write checkpoints."""

QUEUED = frozenset({"PENDING", "CONFIGURING", "REQUEUED", "REQUEUE_HOLD", "REQUEUE_FED"})
ENDED = frozenset(
    {"BOOT_FAIL", "CANCELLED", "COMPLETED", "DEADLINE", "FAILED", "LAUNCH_FAILED", "NODE_FAIL"}
    | {"OUT_OF_MEMORY", "PREEMPTED", "RECONFIG_FAIL", "REVOKED", "TIMEOUT"}
)
"""States of jobs; a job in any other state is at work."""


class Slurm(Launcher):
    """A job array on the cluster whose `sbatch` is on the path; options are those of `sbatch`.

    Preempted pilots are queued again by Slurm, and so are those of a node that died. Before a time
    limit a pilot does that itself (`requeue`).
    """

    name = "slurm"

    def submit(self, script: str, count: int, title: str, threads: int) -> str:
        if any(option.startswith("array=") for option in self.options):
            raise RequestError("--engine-option array: the number of pilots is --jobs")
        words = [
            f"--job-name={title}",
            f"--cpus-per-task={threads}",
            f"--output={self.folder}/%A_%a.log",
            "--open-mode=append",
            "--requeue",
            # B: to the batch script, which the pilot is.
            f"--signal=B:{LIMIT.name.removeprefix('SIG')}@{GRACE}",
            *(f"--{option}" for option in self.options),
            f"--array=0-{count - 1}",
        ]
        done = _run("sbatch", "--parsable", *words, stdin=script)
        if done is None or done.returncode:
            why = "sbatch is not on the path" if done is None else done.stderr
            raise RequestError(
                f"--engine slurm: {why.strip()}; run it where jobs are submitted, with the "
                "--engine-option that sbatch needs"
            )
        return done.stdout.strip().partition(";")[0]  # what follows names the cluster

    def tally(self, batches: Sequence[str]) -> Tally | None:
        done = _run(
            "squeue", "--noheader", "--array", "--states=all", f"--jobs={','.join(batches)}",
            "--Format=JobArrayID:64,State:32,exit_code:16",
        )  # fmt: skip
        if done is None:
            return None
        if done.returncode:
            # The answer about a single job that was forgotten, or never saved before a crash.
            return Tally() if "Invalid job id" in done.stderr else None
        jobs = [line.split() for line in done.stdout.splitlines()]
        states = [state for _, state, _ in jobs]
        return Tally(
            sum(state in QUEUED for state in states),
            sum(state not in QUEUED | ENDED for state in states),
            tuple(
                name
                for name, state, status in jobs
                if state == "FAILED" and os.waitstatus_to_exitcode(int(status)) == WRONG_REQUEST
            ),
        )

    def cancel(self, batches: Sequence[str], *, queued_only: bool = False) -> None:
        _run("scancel", *(["--state=PENDING"] if queued_only else []), *batches)

    def last_words(self, batches: Sequence[str]) -> str:
        logs = [path for batch in batches for path in self.folder.glob(f"{batch}_*.log")]
        if not logs:
            return f"nothing was printed to {self.folder}"
        last = max(logs, key=lambda path: path.stat().st_mtime)
        lines = last.read_text(errors="replace").split("\n")
        return f"{last}: {next((line for line in reversed(lines) if line.strip()), 'empty')}"


def share() -> float:
    """Where this element of an array begins in the order of runs, in [0, 1); 0 outside arrays."""
    index, count = (int(os.environ.get(f"SLURM_ARRAY_TASK_{key}", "0")) for key in ("ID", "COUNT"))
    return index % count / count if count else 0.0


def requeue() -> None:
    """Queue this job again; Slurm ends the process."""
    # Not SLURM_JOB_ID: that of one element is the id of the whole array.
    element = [os.environ.get(f"SLURM_ARRAY_{key}") for key in ("JOB_ID", "TASK_ID")]
    name = "_".join(filter(None, element)) or os.environ.get("SLURM_JOB_ID")
    if name:
        _run("scontrol", "requeue", name)


def _run(*words: str, stdin: str = "") -> "subprocess.CompletedProcess[str] | None":
    """What a command of Slurm answers; None where it is not here, or hangs."""
    if shutil.which(words[0]) is None:
        return None
    try:
        return subprocess.run(
            words, input=stdin, capture_output=True, text=True, check=False, timeout=60
        )
    except subprocess.TimeoutExpired:
        return None
