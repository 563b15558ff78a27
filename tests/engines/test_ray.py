"""The engine `ray` on loopback: whatever happens, the files are those of the engine `local`."""

import shutil
import signal
import time
from pathlib import Path

import pytest

from bench.devices import DeviceClass
from bench.errors import RequestError
from bench.execution.engine import find_engine
from bench.execution.messages import Resources
from bench.execution.ray import RayCluster
from bench.execution.remote import WATCH
from bench.records.store import Store
from tests.engines.ray_cluster import INSTALLED, OWN, ROOT, Nodes, until
from tests.engines.ray_grid import (
    LONG,
    Once,
    checkpoints,
    go,
    rows_of,
    running,
    write_grid,
    written,
)
from tests.loopback import HERE
from tests.undisturbed import Undisturbed

pytestmark = [
    pytest.mark.skipif(not INSTALLED, reason='Ray is not installed; the extra "ray" has it'),
    pytest.mark.usefixtures("own_folder"),
    pytest.mark.timeout(600),
]

# -- a day without incidents -------------------------------------------------------------------


def test_own_images_and_a_plugin_that_no_node_can_see(
    ray_nodes: Nodes, undisturbed: Undisturbed
) -> None:
    rows = rows_of(plugins=[f"{HERE}/mine.py"], decoders=["mine", "optimal"], seeds=[0, 1])
    outcome, told = go(rows, ray_nodes)
    assert outcome.well, told
    assert outcome.new == 4
    assert written(rows) == undisturbed(rows)
    # The nodes had to be sent the images.
    assert list(ray_nodes.folder.glob(f"127*/cache/data/content-{rows[0].runs[0].content}.npy"))


def test_a_fraction_of_a_gpu_is_a_place(ray_nodes: Nodes) -> None:
    address = ray_nodes.add(num_gpus=2, num_cpus=8)
    resources = Resources(
        [DeviceClass.CUDA], 0, per_gpu=2,
        address=ray_nodes.address, options={"node_ip_address": OWN},
    )  # fmt: skip
    cluster = RayCluster(resources)
    try:
        assert cluster.places() == 4
        links = [cluster.place() for _ in range(5)]
        waiting = {link: link.actor.call.remote("close") for link in links}
        ready, _ = cluster.ray.wait(list(waiting.values()), num_returns=4, timeout=60)
        assert len(ready) == 4
        assert cluster.ray.wait(list(waiting.values()), num_returns=5, timeout=2)[1]
        placed = [link for link in links if waiting[link] in ready]
        placed[0].end()
        ready, _ = cluster.ray.wait(
            [reference for link, reference in waiting.items() if link not in placed],
            timeout=60,
        )
        assert len(ready) == 1
    finally:
        cluster.close()
        ray_nodes.kill(address)


def test_a_node_without_a_gpu_is_refused_for_cuda(ray_nodes: Nodes) -> None:
    address = ray_nodes.add(num_gpus=1)
    try:
        with pytest.raises(RequestError, match="no node can be used: it has no CUDA device"):
            go(rows_of(), ray_nodes, device="cuda")
    finally:
        ray_nodes.kill(address)


def test_another_digest_is_refused_and_the_others_go_on(
    ray_nodes: Nodes, tmp_path: Path, undisturbed: Undisturbed
) -> None:
    other = tmp_path / "other"
    for package in ("bench", "baselines"):
        shutil.copytree(ROOT / package, other / package)
    with (other / "bench" / "text.py").open("a") as file:
        file.write("# edited\n")
    address = ray_nodes.add(first_on_path=str(other))
    try:
        rows = rows_of(seeds=[0, 1])
        outcome, told = go(rows, ray_nodes)
        assert outcome.well, told
        assert told.count(f"node {address}") == 1
        assert "is not used: its code is not that of this machine" in told
        assert written(rows) == undisturbed(rows)
    finally:
        ray_nodes.kill(address)


def test_no_cluster_is_one_line() -> None:
    launch = find_engine("ray:127.0.0.2:1")
    with pytest.raises(RequestError, match=r"no cluster at '127\.0\.0\.2:1' can be used"):
        launch(Store(HERE), Resources([DeviceClass.CPU], 0))


def test_an_option_that_ray_does_not_know(ray_nodes: Nodes) -> None:
    launch = find_engine(f"ray:{ray_nodes.address}", ["colour=red"])
    with pytest.raises(RequestError, match=r"--engine-option: Ray takes no such option .*colour"):
        launch(Store(HERE), Resources([DeviceClass.CPU], 0))


# -- incidents ---------------------------------------------------------------------------------


def test_a_node_is_killed_and_a_new_one_joins(ray_nodes: Nodes, undisturbed: Undisturbed) -> None:
    rows = rows_of(training=LONG)

    def incident() -> None:
        ray_nodes.kill(next(iter(ray_nodes.by_address)))
        ray_nodes.add()

    once = Once(incident)
    outcome, told = go(rows, ray_nodes, [once])
    assert once.done
    assert outcome.well, told
    assert told.count("its worker was taken away") == 1
    assert written(rows) == undisturbed(rows)


def test_a_drained_node_gives_its_checkpoint_back(
    ray_nodes: Nodes, undisturbed: Undisturbed
) -> None:
    rows = rows_of(training=LONG)
    address = next(iter(ray_nodes.by_address))

    def incident() -> None:
        with ray_nodes.paused():
            ray_nodes.add()
            ray_nodes.drain(address)
            time.sleep(2 * WATCH)  # it is noticed

    once = Once(incident)
    outcome, told = go(rows, ray_nodes, [once])
    assert once.done
    assert outcome.well, told
    assert told.count(f"its worker was taken away, node {address}") == 1
    assert "is being taken away (1 times so far)" in told
    assert written(rows) == undisturbed(rows)
    ray_nodes.kill(address)


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGKILL])
def test_the_parent_is_ended_and_the_same_command_goes_on(
    number: signal.Signals, ray_nodes: Nodes, undisturbed: Undisturbed
) -> None:
    rows = rows_of(training=LONG)
    grid = write_grid(training=LONG)
    with running(ray_nodes, grid) as process:
        until(lambda: len(checkpoints()) == 2, 90, "both runs have a checkpoint here")
        process.send_signal(number)
        told = process.communicate(timeout=60)[1]
    if number == signal.SIGINT:
        assert process.returncode == 130, told
        assert "2 left" in told
    assert len(checkpoints()) == 2
    until(lambda: not ray_nodes.agents(), 30, "Ray ends the actors of a driver that is gone")
    assert ray_nodes.workers() == []
    with running(ray_nodes, grid) as process:
        told = process.communicate(timeout=120)[1]
    assert process.returncode == 0, told
    assert written(rows) == undisturbed(rows)
