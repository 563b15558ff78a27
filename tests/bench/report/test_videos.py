"""What a report says of videos: units, protocol, findings, the paper's numbers."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

from bench.files import write_checked
from bench.records.store import Store
from bench.report import figures, pages, run_pages
from bench.report.captions import caption
from bench.report.findings import findings
from bench.report.items import item
from bench.report.layout import default_columns, header
from bench.report.paper import lookup
from bench.report.tables import NoteKind
from bench.run import Features
from tests.bench.report.conftest import CLIPS, squares

if TYPE_CHECKING:
    from pathlib import Path

    import pytest

    from tests.bench.report.conftest import Results


def test_nats_are_of_a_sequence_whose_frames_are_named(videos: Results) -> None:
    told = " ".join(videos.table().caption)
    assert f"nats per sequence on data in [0, 1], one posterior draw, on {CLIPS} sequences" in told
    assert "A sequence: 7 scored frames, the first of each video but its very first" in told
    assert "a prediction is given the first 3 frames" in told
    assert "nats per image" not in told


def test_the_prediction_is_told_with_its_rollouts_and_how_the_best_is_picked(
    videos: Results,
) -> None:
    told = " ".join(videos.table().caption)
    assert f"K = 10 rollouts of each of N = {CLIPS} videos of the test split, 3 frames" in told
    assert "the next 5 predicted; fed back are decoder means." in told
    assert "Best of K: for each measure its own rollout of a clip;" in told
    assert "between 1000 frames (decoder means" in told
    assert "1000 real frames (test split)" in told


def test_without_rollouts_nothing_is_said_of_a_prediction(videos: Results) -> None:
    table = videos.table()
    none = table.records.assign(**{"protocol.prediction.rollouts": 0})
    assert not [told for told in caption(none, [], table.frame) if "Prediction:" in told]


def test_images_have_neither(results: Results) -> None:
    results.add()
    told = " ".join(results.table().caption)
    assert "nats per image" in told
    assert "sequence" not in told
    assert "rollout" not in told


def test_a_run_that_was_never_scored_is_of_what_its_model_is_of(videos: Results) -> None:
    lost = videos.add("per_pixel", model="film", status="diverged", losses=[3.0])
    told = run_pages.content(Store(videos.folder).folder_of(lost["id"]), "grid", None)
    assert told["curves"][0].label == "training loss, nats per sequence"
    assert told["players"] == []


def test_a_model_that_is_not_here_is_of_sequences_where_frames_were_scored(
    videos: Results,
) -> None:
    records = videos.table().records
    assert item(records.replace({"run.model.name": {"film": "lost"}})) == "sequence"
    absent = records.replace({"run.model.name": {"film": "lost"}}).drop(
        columns="protocol.likelihood.frames"
    )
    assert item(absent) == "image"


def test_the_best_prediction_and_its_calibration_at_both_ends_are_found(videos: Results) -> None:
    ((_, sentences),) = findings(videos.table()).shows
    told = " ".join(sentences).replace("\u00a0", " ")
    assert "Lowest CRPS, predicted: shared (" in told
    for end, value in (("first", "0.02000 ± 0.00099"), ("last", "0.1000 ± 0.0050")):
        found = f"Lowest calibration error, {end} predicted frame: shared ({value}), not told apart"
        assert f"{found} from optimal." in told


def test_one_seed_of_each_claims_nothing_of_predictions(results: Results) -> None:
    for decoder, error in (("shared", 0.1), ("optimal", 0.3)):
        name = "prediction_calibration_error_last"
        results.add(decoder, metrics={name: error, "prediction_crps": error})
    assert findings(results.table()).shows == ()


def test_a_page_of_videos_has_no_heading_of_samples(
    videos: Results, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(figures, "KINDS", ())
    videos.add("student_t", model="film", images=True, frames=squares(5, 10, 1, 0.5))
    pages.write("grid", [videos.folder], tmp_path, ["html"])
    page = (tmp_path / "grid" / "index.html").read_text()
    assert "<h2>Reconstructions</h2>" in page
    assert "frames of test videos, each followed by its reconstruction" in page
    assert "Samples come from" not in page
    run = next((tmp_path / "grid" / "runs").glob("*.html")).read_text()
    assert "Predictions, moving" in run
    assert "nats per image" not in page + run


def test_a_network_for_videos_is_asked_for_as_a_file(videos: Results) -> None:
    record = videos.add("student_t", model="film")
    i3d = Features(name="i3d", metric="fvd", sha256="ab" * 32)
    record["run"]["evaluation"]["fvd"] = i3d.model_dump(mode="json")
    assert "--set evaluation.fvd=FILE" in run_pages.command(record["run"], "grid", None)


# -- the paper's column of robot videos ------------------------------------------------------------

FRAME = 64 * 64 * 3
LEAST = FRAME / 2 * math.log(2 * math.pi)


def add_robots(results: Results, decoder: str, features: Features, per_frame: float) -> None:
    """A run as an evaluation of `svg` on the robots leaves it, 11 scored frames a sequence."""
    metrics = {
        "neg_log_p": 11 * per_frame,
        "neg_log_p_per_frame": per_frame,
        "unit_sigma_constant": 11 * (LEAST + 400),
        "fid": 40.0,
    }
    record = results.add(decoder, dataset="bair", features=features, metrics=metrics)
    record["run"]["model"] = {"name": "svg", "past": 2, "future": 10}
    frames = {"frames": 11, "given": 2, "dimensions": 11 * FRAME}
    record["protocol"]["likelihood"] |= frames
    write_checked(Store(results.folder).folder_of(record["id"]) / "record.json", record)


def test_the_papers_nats_of_videos_stand_beside_ours_per_frame(
    results: Results, inception: Features
) -> None:
    found = lookup("table2-bair", "bair", "svg", "shared", None)
    assert found is not None
    assert (found.nats, found.neg_log_p, found.fid) == ("neg_log_p_per_frame", -13974, 34.24)
    add_robots(results, "shared", inception, -13900.0)
    table = results.table("table2-bair")
    (row,) = table.lines
    assert row["published_neg_log_p_per_frame"] == -13974
    assert row["published_neg_log_p_per_frame_difference"] == 74
    assert math.isnan(row["published_neg_log_p"])
    columns = default_columns(table)
    assert "published_neg_log_p" not in columns
    assert header("published_neg_log_p_per_frame", table) == "-log p per frame, paper (Table 2)"
    told = {note.column: note.text for note in row["notes"] if note.kind is NoteKind.VIDEO}
    assert "per frame alone" in told["published_neg_log_p_per_frame"]
    assert "which frames" in told["published_fid"]


def test_the_papers_sigma_of_1_on_videos_cannot_be(results: Results, inception: Features) -> None:
    """64·64·3 / 2 · ln 2π = 11,292 nats a frame are the least; the paper prints -10,379."""
    add_robots(results, "gaussian", inception, 11500.0)
    (row,) = results.table("table2-bair").lines
    (note,) = [note for note in row["notes"] if note.kind is NoteKind.IMPOSSIBLE]
    assert note.column == "published_neg_log_p_per_frame"
    assert "from 11292 nats (no error, no rate) to 11692 (the mean frame" in note.text


def test_a_table_of_images_has_no_column_of_frames(results: Results) -> None:
    results.add("gaussian", dataset="mnist", metrics={"neg_log_p": 741.0})
    assert "published_neg_log_p_per_frame" not in results.table("table3").frame
