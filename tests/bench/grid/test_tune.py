"""`{tune: …}` in any part of a grid: what it may stand for, and what is refused in one line."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from bench.grid.expand import Row
from bench.grid.read import read_grid
from bench.records.labels import row_label
from bench.records.searches import chosen_by
from bench.records.store import Store
from tests.refusal import refused

Write = Callable[..., Path]
Expand = Callable[..., list[Row]]
Call = Callable[..., tuple[int, str, str]]

BETA = {"name": "beta", "beta": {"tune": {"low": 0.001, "high": 10}}}
LR = {"tune": {"low": 1e-4, "high": 1e-2}}
TRAINING = {"epochs": 1, "batch": 70, "lr": LR}
VAE = {"name": "conv_vae", "width": 2, "latent": {"tune": {"low": 2, "high": 8}}}


def test_every_row_tunes_what_its_parts_say(expand: Expand) -> None:
    rows = expand(
        decoders=[BETA, "optimal"], models=[VAE, "linear_vae"], training=TRAINING,
        search={"trials": 5},
    )  # fmt: skip
    assert [[knob.name for knob in row.knobs] for row in rows] == [
        ["beta", "model.latent", "training.lr"],
        ["model.latent", "training.lr"],
        ["beta", "training.lr"],
        ["training.lr"],
    ]
    assert len({row.search for row in rows}) == 1
    assert [row_label(row).partition(" · ")[2] for row in rows] == [
        "conv_vae (latent tuned, width=2) · beta (β tuned, lr tuned)",
        "conv_vae (latent tuned, width=2) · optimal (lr tuned)",
        "linear_vae · beta (β tuned, lr tuned)",
        "linear_vae · optimal (lr tuned)",
    ]


def test_a_tune_says_itself_what_the_grid_leaves_open_or_has_otherwise(expand: Expand) -> None:
    own = {"name": "beta", "beta": {"tune": {"low": 0.1, "high": 1, "trials": 7}}}
    search = {"trials": 5, "objective": "iwae_3", "seeds": [8, 9]}
    ours, theirs = expand(decoders=[own, {**BETA, "link": "identity"}], search=search)
    assert ours.search is not None
    assert theirs.search is not None
    assert (ours.search.trials, theirs.search.trials) == (7, 5)
    assert ours.search.objective == theirs.search.objective == "iwae_3"
    assert ours.search.seeds == (8, 9)


def test_a_grid_that_shares_a_search_and_tunes_nothing_is_sound(expand: Expand) -> None:
    assert [row.search for row in expand(search={"trials": 5})] == [None, None]


@pytest.mark.parametrize(
    ("changes", "told"),
    [
        ({"training": TRAINING}, "training.lr.tune.trials: 'trials' is missing"),
        ({"search": {"trials": 3, "sampler": "cma"}}, "search.sampler: "),
        ({"search": {"trails": 3}}, "search.trails: unknown key 'trails'; did you mean 'trials'?"),
        ({"search": 3}, "search: expected keys (trials, objective"),
        (
            {
                "search": {"trials": 4},
                "training": {"lr": {"tune": {"low": 1e-4, "high": 1, "trials": 6}}},
                "decoders": ["optimal", BETA],
            },
            "training.lr.tune: is tuned together with 'beta', whose search is another one (trials "
            "4 against 6); say it once, in the grid's key `search`",
        ),
        (
            {"training": {"lr": {"tune": {"low": 1e-4, "high": 1, "trials": 2, "seeds": [0]}}}},
            "training: seeds [0] both tune and test",
        ),
        (
            {"training": {"optimizer": {"tune": {"low": 1, "high": 2, "trials": 2}}}},
            "training.optimizer: ",
        ),
        (
            {"training": {"flips": {"tune": {"low": 0, "high": 1, "trials": 2}}}},
            "training.flips: ",
        ),
        (
            {"decoders": [{"name": "optimal", "stop_gradient": LR}], "search": {"trials": 2}},
            "decoders.0.stop_gradient: ",
        ),
        (
            {"training": {"lr": {"tune": {"low": 0, "high": 1, "trials": 2}}}},
            "training.lr: input should be greater than 0",
        ),
        (
            {"training": {"lr": {"tune": {"low": 0, "high": 1, "trials": 2, "scale": "log"}}}},
            "training.lr.tune.scale: `log` needs a range above 0",
        ),
        (
            {"training": {"lr": {"tune": {"low": 1, "high": 1, "trials": 2}}}},
            "training.lr.tune: low must be below high",
        ),
        ({"training": {"lr": {"tune": 3}}}, "training.lr.tune: expected keys (trials, "),
        ({"training": {"lr": {"low": 1}}}, "training.lr: expected a value, or {tune: "),
        (
            {"models": [{"name": "conv_vae", "latent": {"tune": {"low": 2, "high": 8.5}}}],
             "search": {"trials": 2}},
            "models.0.latent: expected a whole number, not 2.0",
        ),
        (
            {"training": {"warm_up": {"tune": {"low": 0, "high": 9, "trials": 2}}, "steps": 5}},
            "`warm_up` must be below `steps`",
        ),
    ],
)  # fmt: skip
def test_what_cannot_be_tuned_is_told_with_its_place(
    write_grid: Write, changes: dict[str, Any], told: str
) -> None:
    message = refused(lambda: read_grid(str(write_grid(**changes))))
    assert told in message
    assert message.partition(":")[0].endswith("small.yaml")


def test_the_line_of_a_bad_range_is_named(write_grid: Write) -> None:
    path = write_grid(training={"lr": {"tune": {"low": 2, "high": 1, "trials": 2}}})
    lines = path.read_text().splitlines()
    number = next(n for n, text in enumerate(lines, 1) if text.strip() == "tune:")
    assert f"small.yaml:{number}: training.lr.tune: low" in refused(lambda: read_grid(str(path)))


def test_a_value_on_the_command_line_ends_the_search_for_it(write_grid: Write) -> None:
    path = str(write_grid(decoders=["optimal"], training=TRAINING, search={"trials": 3}))
    grid = read_grid(path, ["training.lr=0.002"])
    assert (grid.training.lr, grid.search.knobs) == (0.002, ())
    assert read_grid(path, ["search.trials=9"]).search.search != read_grid(path).search.search


def test_the_high_end_of_a_range_must_fit_the_data(expand: Expand) -> None:
    training = {"epochs": 1, "batch": {"tune": {"low": 30, "high": 211}}}
    told = refused(lambda: expand(training=training, search={"trials": 3}))
    assert "training.batch 211 is larger than the 210 training images" in told


def test_a_joint_search_runs_and_its_table_says_what_it_set(
    write_grid: Write, tmp_path: Path, tiny: Path, call: Call
) -> None:
    grid = write_grid(
        datasets=[{"name": "shapes", "data": f"npz:{tiny}"}], decoders=["optimal", BETA],
        training=TRAINING, search={"trials": 2},
    )  # fmt: skip
    words = ("--results", tmp_path / "results", "--json")
    code, out, err = call("run", grid, *words)
    assert code == 0, err
    first, second = json.loads(out)
    store = Store(tmp_path / "results" / "small")
    values = {
        search["decoder"]["name"]: [value for _, value in chosen_by(search)]
        for search in store.searches()
    }
    beta, lr = values["beta"]
    assert {first["decoder"], second["decoder"]} == {
        f"optimal (tuned, lr={values['optimal'][0]:g})",
        f"beta (tuned, β={beta:g}, lr={lr:g})",
    }
    assert {first["entry"], second["entry"]} == {"optimal (tuned)", "beta (tuned)"}
    assert {first["tuned"], second["tuned"]} == {"training.lr", "beta, training.lr"}
    assert first["tuning_runs"] == second["tuning_runs"] == 2
    # The rows were given different learning rates, which are no settings that set them apart.
    assert first["settings"] == second["settings"] == ""
    code, out, _ = call("status", grid, "--results", tmp_path / "results")
    assert "6 runs: 6 done" in out
    code, out, _ = call("run", grid, "--results", tmp_path / "results", "--dry-run")
    assert f"beta (beta={beta:g}) [lr={lr:g}]" in out
    out_folder = tmp_path / "reports"
    code, _, err = call("report", grid, "--results", tmp_path / "results", "--out", out_folder)
    assert code == 0, err
    page = (out_folder / "small" / "table.md").read_text()
    assert "Tuned β (0.001 to 10) and lr (0.0001 to 0.01) together" in page
    assert "Tuned lr: lowest neg\\_log\\_p on the validation split among 2 trials between" in page
