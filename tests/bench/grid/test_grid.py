"""Grids: what is wrong is named with file, line and key; what is right has a stable identity."""

import json
from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bench.errors import RequestError
from bench.grid.expand import Row, expand
from bench.grid.read import bundled_grids, read_grid
from bench.records.labels import spec_label
from bench.run import Evaluation, Features, Run, Training
from tests.specs import decoder_spec, model_spec

Write = Callable[..., Path]


def wrong(path: Path, *overrides: str) -> str:
    with pytest.raises(RequestError) as caught:
        read_grid(str(path), overrides)
    message = str(caught.value)
    assert "\n" not in message
    return message


def test_an_unknown_decoder_names_line_and_neighbour(write_grid: Write) -> None:
    message = wrong(write_grid(decoders=["gaussian", "optimol"]))
    assert "small.yaml:5: decoders.1: unknown decoder 'optimol'; did you mean 'optimal'?" in message


def test_an_unknown_model(write_grid: Write) -> None:
    assert "unknown model 'conv_va'; did you mean 'conv_vae'?" in wrong(
        write_grid(models=["conv_va"])
    )


def test_a_misspelt_key(write_grid: Write) -> None:
    path = write_grid(training={"epoch": 3})
    line = next(
        number
        for number, text in enumerate(path.read_text().splitlines(), 1)
        if text.strip().startswith("epoch:")
    )
    expected = f"small.yaml:{line}: training.epoch: unknown key 'epoch'; did you mean 'epochs'?"
    assert expected in wrong(path)


def test_a_misspelt_option_of_a_decoder(write_grid: Write) -> None:
    message = wrong(write_grid(decoders=[{"name": "optimal", "stop_gradien": True}]))
    assert "decoders.0.stop_gradien: unknown key" in message
    assert "did you mean 'stop_gradient'?" in message


@pytest.mark.parametrize("beta", [-1, 0, ".nan", ".inf", "big"])
def test_a_beta_that_is_no_beta(write_grid: Write, beta: object) -> None:
    path = write_grid(decoders=["DECODER"])
    path.write_text(path.read_text().replace("DECODER", f"{{name: beta, beta: {beta}}}"))
    assert "decoders.0.beta: " in wrong(path)


def test_a_missing_beta(write_grid: Write) -> None:
    assert "decoders.0.beta: 'beta' is missing" in wrong(write_grid(decoders=["beta"]))


def test_too_few_samples_are_refused_before_anything_is_trained(
    write_grid: Callable[..., Path],
) -> None:
    path = write_grid()
    message = wrong(path, "evaluation.samples=2")
    assert message == "--set evaluation.samples=2: at least 3, or 0 for no distances, not 2"
    assert read_grid(str(path), ["evaluation.samples=3"]).evaluation.samples == 3


@pytest.mark.parametrize("key", ["seeds", "decoders", "models", "datasets"])
def test_an_empty_list(write_grid: Write, key: str) -> None:
    assert f"{key}: expected at least one entry" in wrong(write_grid(**{key: []}))


@pytest.mark.parametrize("key", ["seeds", "decoders", "name"])
def test_a_missing_key(write_grid: Write, key: str) -> None:
    assert f"{key}: '{key}' is missing" in wrong(write_grid(**{key: None}))


def test_an_entry_twice(write_grid: Write) -> None:
    assert "seeds.2: is listed twice" in wrong(write_grid(seeds=[0, 1, 0]))
    decoders = ["optimal", {"name": "optimal", "over": "batch"}]
    assert "decoders.1: is listed twice" in wrong(write_grid(decoders=decoders))
    assert "models.1: is listed twice" in wrong(write_grid(models=["conv_vae", "conv_vae"]))


def test_seeds_that_are_no_seeds(write_grid: Write) -> None:
    assert "seeds.0" in wrong(write_grid(seeds=[-1]))
    assert "seeds.0" in wrong(write_grid(seeds=[0.5]))


def test_a_key_twice(write_grid: Write) -> None:
    path = write_grid()
    path.write_text(path.read_text() + "seeds: [1]\n")
    assert "key 'seeds' is given twice" in wrong(path)


def test_broken_yaml_names_its_line(tmp_path: Path) -> None:
    path = tmp_path / "broken.yaml"
    path.write_text("name: a\ndatasets: [mnist5k\n")
    assert "broken.yaml:3: not YAML" in wrong(path)


@pytest.mark.parametrize("content", ["", "- a list\n", "just words\n"])
def test_not_a_mapping(tmp_path: Path, content: str) -> None:
    path = tmp_path / "odd.yaml"
    path.write_text(content)
    assert "odd.yaml" in wrong(path)


def test_a_missing_file_a_folder_and_a_typo(tmp_path: Path) -> None:
    assert "there is no such grid file" in wrong(tmp_path / "none.yaml")
    assert "found a folder" in wrong(tmp_path)
    assert "unknown grid 'quikc'; did you mean 'quick'?" in wrong(Path("quikc"))


def test_a_dataset_that_is_not_there(write_grid: Write, tmp_path: Path) -> None:
    assert "datasets.0" in wrong(write_grid(datasets=["mnits"]))
    assert "datasets.0" in wrong(write_grid(datasets=[f"npz:{tmp_path}/none.npz"]))
    (tmp_path / "empty").mkdir()
    assert "datasets.0" in wrong(write_grid(datasets=[f"folder:{tmp_path}/empty"]))


@pytest.mark.parametrize(
    ("tune", "complaint"),
    [
        ({"low": 1, "high": 0.1, "trials": 2}, "low must be below high"),
        (
            {"low": -1, "high": 0.1, "trials": 2},
            "beta: input should be greater than 0, not -1",
        ),
        ({"low": 0.1, "high": 1}, "'trials' is missing"),
        ({"low": 0.1, "high": 1, "trials": 2, "objective": "elbo"}, "objective"),
        ({"low": 0.1, "high": 1, "trials": 2, "seeds": [0]}, "seeds [0] both tune and test"),
        ({"low": 0.1, "high": 1, "trials": 2, "smapler": "gp"}, "did you mean 'sampler'?"),
    ],
)
def test_a_wrong_search(write_grid: Write, tune: dict[str, object], complaint: str) -> None:
    message = wrong(write_grid(decoders=[{"name": "beta", "beta": {"tune": tune}}]))
    assert complaint in message


def test_overrides_are_typed_checked_and_named(write_grid: Write) -> None:
    path = write_grid()
    grid = read_grid(str(path), ["training.epochs=7", "models.0.width=3", "seeds=[4, 5]"])
    assert grid.training.epochs == 7
    assert grid.models[0].spec.options["width"] == 3
    assert grid.seeds == (4, 5)
    assert wrong(path, "training.epochs=x").startswith("--set training.epochs=x: ")
    assert wrong(path, "trainin.epochs=3").startswith("--set trainin.epochs=3: unknown key")
    assert "expected key.path=value" in wrong(path, "training.epochs")
    assert "there is no '9'" in wrong(path, "models.9.width=3")


# -- expansion and identity ----------------------------------------------------------------------


def test_a_grid_expands_to_every_combination(expand: Callable[..., list[Row]]) -> None:
    rows = expand(seeds=[3, 4], decoders=["gaussian", {"name": "beta", "beta": 0.5}, "shared"])
    assert [spec_label(row.runs[0].decoder) for row in rows] == [
        "gaussian",
        "beta (beta=0.5)",
        "shared",
    ]
    assert all([run.seed for run in row.runs] == [3, 4] for row in rows)
    assert len({run.id for row in rows for run in row.runs}) == 6


def test_only_keeps_what_fits(write_grid: Write) -> None:
    grid = read_grid(str(write_grid(seeds=[0, 1], decoders=["gaussian", "optimal", "shared"])))

    def ids(*only: str) -> list[tuple[str, int]]:
        rows = expand(grid, device="cpu", features=None, only=only, prepare=True)
        return [(run.decoder.name, run.seed) for row in rows for run in row.runs]

    assert ids("decoder=shared", "seed=1") == [("shared", 1)]
    assert ids("decoder=shared", "decoder=optimal", "seed=0") == [("optimal", 0), ("shared", 0)]
    with pytest.raises(RequestError, match="no run of grid 'small' fits"):
        ids("decoder=beta")
    with pytest.raises(RequestError, match="expected KEY=VALUE"):
        ids("decodr=beta")


def test_a_batch_larger_than_the_data(expand: Callable[..., list[Row]]) -> None:
    with pytest.raises(RequestError, match=r"training\.batch 300 is larger than the 210"):
        expand(training={"batch": 300})


def test_an_objective_that_nothing_computes(expand: Callable[..., list[Row]]) -> None:
    tune = {"low": 0.1, "high": 1, "trials": 2, "objective": "fid"}
    with pytest.raises(RequestError, match="objective 'fid' is not computed here"):
        expand(decoders=[{"name": "beta", "beta": {"tune": tune}}])


def a_run(**changes: object) -> Run:
    base = {
        "dataset": "npz:here.npz",
        "content": "0" * 64,
        "split_seed": 0,
        "model": model_spec("conv_vae"),
        "decoder": decoder_spec("shared"),
        "training": Training(),
        "evaluation": Evaluation(
            features=Features(name="inception", metric="fid", sha256="1" * 64, source="/a")
        ),
        "seed": 0,
    }
    return Run(**{**base, **changes})


def test_the_id_is_pinned() -> None:
    """Whoever changes what an id means changes SCHEMA, and this."""
    assert a_run().id == "d606bfbda8829030"


def test_labels_and_places_are_not_in_the_id() -> None:
    elsewhere = Evaluation(
        features=Features(name="inception", metric="fid", sha256="1" * 64, source="/b")
    )
    assert a_run(dataset="npz:there.npz").id == a_run().id
    assert a_run(evaluation=elsewhere).id == a_run().id


@given(
    st.sampled_from(
        [
            {"content": "2" * 64},
            {"split_seed": 1},
            {"seed": 1},
            {"model": model_spec("conv_vae", width=16)},
            {"decoder": decoder_spec("optimal")},
            {"decoder": decoder_spec("shared", sigma_lr=2)},
            {"training": Training(epochs=3)},
            {"training": Training(precision="bfloat16")},
            {"evaluation": Evaluation()},
            {"evaluation": Evaluation(iwae=2)},
        ]
    )
)
def test_all_that_decides_a_number_is_in_the_id(change: dict[str, object]) -> None:
    assert a_run(**change).id != a_run().id


def test_a_changed_copy_has_an_id_of_its_own() -> None:
    asked = a_run()
    assert asked.id == a_run().id
    assert asked.model_copy(update={"seed": 8}).id == a_run(seed=8).id != asked.id
    assert asked.model_copy() == asked
    assert asked.model_dump(mode="json") == a_run().model_dump(mode="json")


def test_an_integer_and_its_float_are_one_experiment() -> None:
    ids = {a_run(decoder=decoder_spec("beta", beta=value)).id for value in (1, 1.0)}
    assert len(ids) == 1


def test_a_run_survives_json() -> None:
    run = a_run()
    text = run.model_dump_json()
    assert Run.read(json.loads(text)).id == run.id
    assert "/a" not in text  # where this machine keeps the weights


def test_bundled_grids_are_sound() -> None:
    assert {"quick", "table1", "table2-svhn", "table3"} <= set(bundled_grids())
    for name in bundled_grids():
        assert read_grid(name).name == name
        assert read_grid(name).description


# -- hostile YAML ------------------------------------------------------------------------------


def test_nested_anchors_cost_nothing(tmp_path: Path) -> None:
    """Nine levels of nine aliases stand for 9^9 values, and are nine nodes."""
    levels = ["x: &l0 [y, y, y, y, y, y, y, y, y]"]
    levels += [f"x{n}: &l{n} [{', '.join([f'*l{n - 1}'] * 9)}]" for n in range(1, 10)]
    path = tmp_path / "bomb.yaml"
    path.write_text("\n".join(["name: g", *levels, "models: *l9"]))
    assert "bomb.yaml" in wrong(path)


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("models: &m [*m]", "models.0: refers to itself"),
        ("decoders: [&d {name: gaussian, link: *d}]", "refers to itself"),
        ("models: " + "[" * 5000 + "]" * 5000, "nested too deeply"),
        ("decoders: [{name: logistic_mixture, components: {tune: {low: 1.5, high: 9, trials: 3}}}]",
         "whole number"),
        (f"name: {'n' * 70_000}", "name"),
    ],
)  # fmt: skip
def test_what_cannot_be_a_grid_is_refused_in_one_short_line(
    text: str, told: str, tmp_path: Path
) -> None:
    path = tmp_path / "g.yaml"
    base = {"name": "g", "datasets": "[mnist5k]", "models": "[linear_vae]",
            "decoders": "[gaussian]", "seeds": "[0]"}  # fmt: skip
    base.pop(text.partition(":")[0])
    path.write_text("\n".join([*(f"{key}: {value}" for key, value in base.items()), text]))
    line = wrong(path)
    assert told in line
    assert len(line) < 500


def test_a_path_that_no_system_has_is_refused() -> None:
    assert "cannot be read" in wrong(Path("x" * 5000 + ".yaml"))


def test_feature_maps_that_a_data_set_does_not_have_are_refused_before_any_run(
    write_grid: Callable[..., Path],
) -> None:
    grid = read_grid(str(write_grid(models=[{"name": "hierarchical", "size": "small"}])))
    with pytest.raises(RequestError, match="groups: '2@4': images of 28x28 have"):
        expand(grid, device="cpu", features=None, prepare=True)
