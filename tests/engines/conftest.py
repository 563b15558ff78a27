"""A Ray cluster for all tests of the engine `ray`."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from bench import plugins
from tests.engines.ray_cluster import Nodes
from tests.engines.ray_grid import write_own_files
from tests.undisturbed import Undisturbed


@pytest.fixture(scope="session")
def ray_cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Nodes]:
    made = Nodes(tmp_path_factory.mktemp("nodes"))
    try:
        made.start()
        yield made
    finally:
        made.stop()


@pytest.fixture
def ray_nodes(ray_cluster: Nodes) -> Nodes:
    """The cluster with two nodes of one processor."""
    ray_cluster.only(2)
    return ray_cluster


@pytest.fixture
def own_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """This process's working folder, with images and a plugin of its own."""
    monkeypatch.chdir(tmp_path)
    write_own_files(tmp_path)
    yield tmp_path
    plugins.forget()


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory: pytest.TempPathFactory) -> Undisturbed:
    return Undisturbed(tmp_path_factory.mktemp("undisturbed"))
