"""The tracker `mlflow`."""

import time
from collections.abc import Iterator, Mapping
from typing import Any

from bench.execution.trackers.base import Tracker, needed, settings, title
from bench.run import Run

ID = "sigma-vae-bench.id"
"""The tag by which a run that goes on is found again."""

LONGEST = 500
"""Characters of a parameter's value that every version of the server takes."""


class MLflow(Tracker[str]):
    """Sends each run to an MLflow server or database, in the experiment of its grid's name.

    `where` is a tracking URI (`http://host:5000`, `sqlite:///mlflow.db`); if empty, it is
    that of MLFLOW_TRACKING_URI.

    Raises:
        RequestError: the package is missing.
    """

    def __init__(self, where: str, grid: str) -> None:
        super().__init__()
        needed("mlflow.tracking", "mlflow")
        self.where, self.grid = where, grid
        self._known: tuple[Any, str] | None = None

    def open(self, run: Run) -> str:
        client, experiment = self._place()
        known = client.search_runs([experiment], f"tags.`{ID}` = '{run.id}'", max_results=1)
        if known:
            identity: str = known[0].info.run_id
            client.update_run(identity, "RUNNING")
            return identity
        begun = client.create_run(experiment, run_name=title(run), tags={ID: run.id})
        identity = begun.info.run_id
        from mlflow.entities import Param

        told = [Param(key, str(value)[:LONGEST]) for key, value in _flat(settings(run))]
        client.log_batch(identity, params=told)
        return identity

    def log(self, handle: str, values: Mapping[str, float], step: int) -> None:
        from mlflow.entities import Metric

        now = int(time.time() * 1000)
        client, _ = self._place()
        told = [Metric(name, value, now, step) for name, value in values.items()]
        client.log_batch(handle, metrics=told)

    def end(self, handle: str, well: bool | None) -> None:
        client, _ = self._place()
        status = "KILLED" if well is None else "FINISHED" if well else "FAILED"
        client.set_terminated(handle, status)

    def _place(self) -> tuple[Any, str]:
        """The client and the experiment's id, from the first run on: a server may take its time."""
        if self._known is None:
            from mlflow.tracking import MlflowClient

            client = MlflowClient(self.where or None)
            found = client.get_experiment_by_name(self.grid)
            self._known = (
                client,
                found.experiment_id if found else client.create_experiment(self.grid),
            )
        return self._known


def _flat(fields: Mapping[str, Any], before: str = "") -> Iterator[tuple[str, Any]]:
    """Nested settings under dotted names.

    >>> dict(_flat({"seed": 0, "training": {"lr": 0.001}}))
    {'seed': 0, 'training.lr': 0.001}
    """
    for key, value in fields.items():
        if isinstance(value, Mapping):
            yield from _flat(value, f"{before}{key}.")
        else:
            yield before + key, value
