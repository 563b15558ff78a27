"""Why a worker ended in a run, and how often that may happen to one run."""

import signal

from bench.plugins import behind
from bench.run import Run
from bench.text import words

MAX_DEATHS = 3
"""Workers that die over a run, without a finished epoch between, before the run is failed."""


def ending(code: int, run: Run) -> tuple[str, int]:
    """Why a worker ended with this exit code, and how many such ends fail the run."""
    own = words(behind(run.plugins.values()))
    if code >= 0:
        # Nothing of ours leaves a run like this, so that a plugin that did will do it again.
        blamed = f", as `os._exit` in {own} would" if own else ""
        return f"its worker left with exit code {code} in the run{blamed}", 1 if own else MAX_DEATHS
    if code == -signal.SIGKILL:
        why = ", as the system does when memory runs out; try fewer --jobs"
    else:
        why = f"; the code of {own} may be why" if own else ""
    return f"its worker was ended by signal {-code}{why}", MAX_DEATHS
