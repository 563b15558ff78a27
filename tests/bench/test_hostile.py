"""Records whose checksum is right and whose content is not, as anybody can write them."""

import copy
import json
import logging
import os
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from bench.errors import RequestError
from bench.execution.status import survey
from bench.files import sha256_file, write_checked
from bench.grid.expand import Row
from bench.records.frame import load
from bench.records.store import Record, Store
from bench.regression.results import read_results
from bench.report import figures, pages, run_pages, tables
from bench.report.figures.style import style_context
from bench.report.figures.subset import subsets
from bench.run import HISTORY, SCHEMA

ROOT = Path(__file__).resolve().parents[2]
REFERENCES = ROOT / "results" / "reference"
REFERENCE = REFERENCES / "decoders-quick"
Place = tuple[str | int, ...]


def places(value: Any, above: Place = ()) -> Iterator[Place]:
    """Every place in a JSON value that can be replaced or taken out."""
    items = value.items() if isinstance(value, dict) else enumerate(value[:1])
    for key, part in items:
        yield (*above, key)
        if isinstance(part, dict | list):
            yield from places(part, (*above, key))


def changed(record: Record, place: Place, value: Any) -> Record:
    """A record with another value at one place; `...` takes the key out."""
    forged = copy.deepcopy(record)
    inner: Any = forged
    for key in place[:-1]:
        inner = inner[key]
    if value is ...:
        del inner[place[-1]]
    else:
        inner[place[-1]] = value
    forged.pop("checksum", None)
    return forged


def complaint(read: Callable[[], object]) -> str:
    try:
        read()
    except RequestError as error:
        return str(error)
    return ""


def records(grid: Path = REFERENCE) -> list[Record]:
    chosen = sorted(grid.glob("runs/**/record.json"))
    return [json.loads(path.read_text()) for path in chosen]


def whole(found: list[Record]) -> Record:
    """The first record that has distances too."""
    return next(record for record in found if record["run"]["evaluation"]["features"])


SOUND = whole(records())

VALUES = st.recursive(
    st.none()
    | st.booleans()
    | st.sampled_from([0, -1, 2**63, 10**400, 1e308, -1e308, 5e-324, "", "completed", "../x", "σ"])
    | st.integers(-3, 3)
    | st.floats(allow_nan=False, allow_infinity=False),
    lambda inner: st.lists(inner, max_size=2) | st.dictionaries(st.text(max_size=3), inner),
    max_leaves=4,
)


def three_beside(sound: Record, grid: Path, made: Path) -> Path:
    """Three other records of a grid and its searches, in the folder `made`."""
    for record in [r for r in records(grid) if r["id"] != sound["id"]][:3]:
        write_checked(Store(made).folder_of(record["id"]) / "record.json", record)
    shutil.copytree(grid / "searches", made / "searches")
    return made


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Three sound records and their search, to which each test adds a forged one."""
    made = tmp_path_factory.mktemp("hostile") / "results" / "forged"
    return three_beside(SOUND, REFERENCE, made)


@pytest.fixture
def quiet() -> Iterator[None]:
    logger = logging.getLogger("sigma-bench")
    logger.disabled = True
    yield
    logger.disabled = False


def place_in(folder: Path, record: Record, history: bytes = b"", of: Record = SOUND) -> None:
    """Put a forged record in place of what is there of the run that it was forged `of`."""
    run = Store(folder).folder_of(of["id"])
    shutil.rmtree(run, ignore_errors=True)
    write_checked(run / "record.json", record)
    (run / HISTORY).write_bytes(history)


def read_everywhere(folder: Path) -> None:
    for read in (
        lambda: tables.build(*load([folder]), "forged"),
        lambda: survey([], Store(folder)),
        # The gate refuses to be quietly smaller where a record was set aside.
        lambda: read_results(folder),
    ):
        assert "\n" not in complaint(read)


@settings(
    max_examples=80,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)
@given(place=st.sampled_from(list(places(SOUND))), value=VALUES | st.just(...))
def test_any_value_anywhere_in_a_record_is_believed_set_aside_or_refused(
    place: Place, value: Any, folder: Path, quiet: None
) -> None:
    place_in(folder, changed(SOUND, place, value))
    read_everywhere(folder)


ODD: tuple[Any, ...] = (..., True, "completed", [])
"""What each place of a record may hold instead; `...` is nothing."""


@pytest.mark.slow
@pytest.mark.timeout(1200)
@pytest.mark.parametrize("grid", ["decoders-quick", "hierarchical-quick", "video-quick"])
def test_every_place_of_a_record_may_hold_anything(grid: str, quiet: None, tmp_path: Path) -> None:
    sound = whole(records(REFERENCES / grid))
    folder = three_beside(sound, REFERENCES / grid, tmp_path / "forged")
    # All metrics are read alike.
    for place in (place for place in places(sound) if place[0] != "metrics"):
        for value in ODD:
            place_in(folder, changed(sound, place, value), of=sound)
            read_everywhere(folder)


def draw_all(folder: Path) -> None:
    """Every figure and page of a report, without the rendering and the files, which take longer."""
    table = tables.build(*load([folder]), "forged")
    for part in subsets(table, [], None):
        for kind in figures.KINDS:
            for sketch in kind.sketches(part):
                with style_context():
                    sketch.figure.draw_without_rendering()
    assert pages.page(table, [], "all")
    template = pages.TEMPLATES.get_template("run.html")
    for run in run_pages.chosen(table, "all"):
        content = run_pages.content(Store(folder).folder_of(run), "forged", None)
        assert template.render(name="run", grid="forged", **content)


LINES = st.lists(
    st.dictionaries(st.sampled_from(["epoch", "loss", "distortion", "rate", "sigma"]), VALUES)
    | st.fixed_dictionaries(dict.fromkeys(["epoch", "loss", "distortion", "rate", "sigma"], VALUES))
    | VALUES,
    max_size=4,
).map(lambda lines: "\n".join(map(json.dumps, lines)).encode())
"""What a `history.jsonl` may hold, which no checksum guards."""


def few(examples: int) -> Callable[[Any], Any]:
    quiet = [HealthCheck.function_scoped_fixture, HealthCheck.too_slow]
    return settings(max_examples=examples, suppress_health_check=quiet)


@few(12)
@given(place=st.sampled_from(list(places(SOUND))), value=VALUES | st.just(...))
def test_figures_and_pages_are_drawn_or_refused(
    place: Place, value: Any, folder: Path, quiet: None
) -> None:
    place_in(folder, changed(SOUND, place, value))
    assert "\n" not in complaint(lambda: draw_all(folder))


@few(12)
@given(history=LINES | st.binary(max_size=40))
def test_any_history_is_drawn_or_left_out(history: bytes, folder: Path, quiet: None) -> None:
    place_in(folder, SOUND, history)
    draw_all(folder)


@pytest.mark.parametrize(
    "name", ["$\\x{$", "a$b$\\", "数据", "\x84", "_a", "a\nb", "<b>", "x" * 120]
)
@pytest.mark.parametrize("part", ["decoder", "model", "dataset"])
def test_any_text_may_be_a_label_of_a_figure(name: str, part: str, folder: Path) -> None:
    place = ("run", part) if part == "dataset" else ("run", part, "name")
    place_in(folder, changed(SOUND, place, name), b'{"epoch": 0, "loss": 3, "sigma": 0.5}\n')
    draw_all(folder)


@pytest.mark.slow
@few(40)
@given(
    place=st.sampled_from(list(places(SOUND))),
    value=VALUES | st.just(...),
    history=LINES | st.binary(max_size=40),
)
def test_a_whole_report_is_written_or_refused(
    place: Place, value: Any, history: bytes, folder: Path, quiet: None, tmp_path: Path
) -> None:
    place_in(folder, changed(SOUND, place, value), history)
    assert "\n" not in complaint(lambda: pages.write("forged", [folder], tmp_path))


@settings(max_examples=40, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data())
def test_any_value_anywhere_in_a_search_is_too(
    data: st.DataObject, folder: Path, quiet: None
) -> None:
    (path,) = REFERENCE.glob("searches/*.json")
    search = json.loads(path.read_text())
    place = data.draw(st.sampled_from(list(places(search))))
    target = folder / "searches" / path.name
    write_checked(target, changed(search, place, data.draw(VALUES | st.just(...))))
    try:
        assert "\n" not in complaint(lambda: tables.build(*load([folder]), "forged"))
    finally:
        shutil.copy(path, target)


WRONG: dict[str, tuple[Place, Any]] = {
    **{f"no {key}": ((key,), ...) for key in ("schema", "status", "id", "run", "metrics", "cost")},
    "metrics that are a list": (("metrics",), []),
    "a metric that is null": (("metrics", "rate"), None),
    "a metric that is text": (("metrics", "rate"), "1"),
    "a metric of 1e308": (("metrics", "rate"), 1e308),
    "a metric of 10^400": (("metrics", "rate"), 10**400),
    "a cost that is text": (("cost", "seconds"), "1"),
    "a seed that is text": (("run", "seed"), "0"),
    "a data set that is a list": (("run", "dataset"), ["mnist"]),
    "an id of another folder": (("id",), "0" * 16),
    "a schema that is text": (("schema",), "1"),
    "training images that are a list": (("protocol", "distance", "training_images"), []),
    "rollouts that are text": (("protocol", "prediction"), {"rollouts": "many"}),
    "frames that are a list": (("protocol", "likelihood", "frames"), [9]),
    "curves of unlike length": (("curves", "coverage", "nominal"), [0.5]),
}


@pytest.mark.parametrize("kind", WRONG)
def test_a_forged_record_is_set_aside_with_a_warning_that_says_what_is_wrong(
    kind: str, folder: Path, caplog: pytest.LogCaptureFixture
) -> None:
    place, value = WRONG[kind]
    place_in(folder, changed(SOUND, place, value))
    path = Store(folder).folder_of(SOUND["id"]) / "record.json"
    assert len(list(Store(folder).records())) == 3
    assert path.with_name("record.json.bad").is_file()
    assert str(place[-1]) in caplog.text or "is of run" in caplog.text


def test_report_status_and_compare_work_on_beside_a_forged_record(
    folder: Path, call: Callable[..., tuple[int, str, str]], tmp_path: Path
) -> None:
    forged = changed(SOUND, ("metrics", "rate"), "text")
    for command in (
        ("report", "forged", "--results", folder.parent, "--out", tmp_path, "--format", "csv"),
        ("status", "decoders-quick", "--results", folder.parent),
    ):
        place_in(folder, forged)
        code, _, err = call(*command)
        assert code == 0, err
    place_in(folder, forged)
    code, _, err = call("compare", REFERENCE, folder)
    assert code == 2
    assert "torn or edited" in err


def test_a_record_that_is_a_pipe_is_set_aside(folder: Path) -> None:
    path = Store(folder).folder_of(SOUND["id"]) / "record.json"
    shutil.rmtree(path.parent, ignore_errors=True)
    path.parent.mkdir(parents=True)
    os.mkfifo(path)
    assert len(list(Store(folder).records())) == 3
    assert path.with_name("record.json.bad").is_fifo()
    with pytest.raises(OSError, match="Is a pipe"):
        sha256_file(path.with_name("record.json.bad"))


def test_every_reference_record_and_search_is_sound() -> None:
    for grid in sorted(REFERENCES.glob("*/runs")):
        store = Store(grid.parent)
        assert len(list(store.records())) == len(list(grid.rglob("run.json")))
        assert len(list(store.searches())) == len(list(grid.parent.glob("searches/*.json")))


def test_a_record_of_another_version_is_refused_and_not_counted_as_done(
    expand: Callable[..., list[Row]], tmp_path: Path
) -> None:
    rows, store = expand(decoders=["optimal"]), Store.open(tmp_path, "small")
    (run,) = rows[0].runs
    later = {"schema": 99, "id": run.id, "what": "nobody knows"}
    write_checked(store.run_folder(run) / "record.json", later)
    for read in (lambda: store.record(run), lambda: load([store.folder])):
        with pytest.raises(RequestError, match=f"has schema 99, this version reads {SCHEMA}"):
            read()
    assert [line.state for line in survey(rows, store)] == ["to do"]
    assert (store.run_folder(run) / "record.json").exists()
