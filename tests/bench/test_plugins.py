"""A user's own: registered, checked and hashed; what goes wrong is named with file and line."""

import hashlib
import io
import json
import pickle
import re
import subprocess
import sys
from collections.abc import Callable, Iterator
from importlib import metadata
from pathlib import Path

import numpy as np
import pytest
import torch
from rich.console import Console

from baselines.build import build_decoder, build_model
from baselines.options import MODELS
from baselines.vae import Vae, step_terms
from bench import data, plugins
from bench.cli.app import main
from bench.execution.schedule import execute
from bench.execution.status import survey
from bench.files import write_checked
from bench.grid.expand import Row, expand, trial_run
from bench.grid.read import read_grid
from bench.records.frame import frame
from bench.records.rows import rows as table_rows
from bench.records.store import Store, new_record
from bench.run import Run
from tests.readme import README, blocks, run_printed
from tests.refusal import refused
from tests.specs import decoder_spec, model_spec

Write = Callable[..., Path]
Expand = Callable[..., list[Row]]

PRINTED = blocks("Your own decoder, model or data")
LAPLACE = PRINTED["python"]

MODEL = """
from baselines.models.conv_vae import ConvVae
from baselines.options import model


@model("plain")
class Plain(ConvVae):
    honours_detached_outputs = False
    latent = 3
    width = 2
"""

DETACHING = """
from baselines.decoders.gaussian import PerPixelGaussian
from baselines.options import decoder


@decoder("detaching")
class Detaching(PerPixelGaussian):
    detached_outputs = 1
"""

BLOBS = """
import numpy as np
from bench.plugins import dataset


@dataset("blobs")
def blobs():
    return np.random.default_rng(0).integers(0, 256, (40, 28, 28, 1), np.uint8)
"""


@pytest.fixture
def plugin(tmp_path: Path) -> Callable[..., Path]:
    """Write a plugin beside the small grid."""

    def write(content: str = LAPLACE, name: str = "my_decoder.py") -> Path:
        path = tmp_path / name
        path.write_text(content)
        return path

    return write


# -- the README's example --------------------------------------------------------------------------


def test_the_example_is_short_and_runs_as_printed(tmp_path: Path, tiny: Path) -> None:
    """Its three blocks, on little data and two jobs: a table with every decoder's row."""
    printed = PRINTED
    assert len(printed["python"].splitlines()) < 23
    (tmp_path / "my_decoder.py").write_text(printed["python"])
    (tmp_path / "mine.yaml").write_text(printed["yaml"])
    small = [
        f"datasets=[npz:{tiny}]",
        "models=[{name: conv_vae, width: 2, latent: 3}]",
        "seeds=[0]",
        "training={epochs: 1, batch: 70}",
        "evaluation={samples: 0, iwae: 2, features: none}",
    ]
    done = run_printed(printed, tmp_path, small)
    for label in ("shared", "my_laplace", "my_laplace (initial_log_scale=0)"):
        assert re.search(rf"^ {re.escape(label)} +1 ", done.stdout, re.MULTILINE), done.stdout
    records = [json.loads(path.read_text()) for path in tmp_path.glob("results/**/record.json")]
    assert [record["status"] for record in records] == ["completed"] * 3
    runs = [record["run"] for record in records]
    hashes = [run["plugins"] for run in runs if run["decoder"]["name"] == "my_laplace"]
    assert hashes == [{"decoder": hashlib.sha256(printed["python"].encode()).hexdigest()}] * 2


# -- the contract ----------------------------------------------------------------------------------


@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("name", list(MODELS))
def test_a_decoder_works_with_every_model(
    plugin: Callable[..., Path], name: str, channels: int
) -> None:
    plugins.load(plugin())
    torch.manual_seed(0)
    decoder = build_decoder(decoder_spec("my_laplace", initial_log_scale=-2))
    spec = model_spec(name, latent=5)
    side = min(spec.resolutions, default=28)
    model = build_model(spec, channels=channels, resolution=side, outputs=decoder.outputs)
    vae = Vae(model, decoder)
    images, noise = torch.rand(6, *model.data_shape), torch.randn(6, model.noise_size)
    state = vae.initial_state()
    with torch.no_grad():
        for parameter in vae.model.parameters():  # a layer of zeros stops what is behind it
            parameter.add_(torch.randn_like(parameter), alpha=0.01)
    terms, _ = step_terms(vae, dict(vae.named_parameters()), state, images, noise)
    terms.loss.backward()
    assert all(p.grad is not None and p.grad.abs().max() > 0 for p in vae.parameters())
    context, _ = vae.model.encode(images, state, training=True)
    draw = vae.model.draw(context, noise, state, training=True)
    scale = np.exp(-2)
    target = vae.model.target(images)
    error = (target - draw.output.sigmoid()).abs().flatten(1).sum(1)
    nats = error / scale + target[0].numel() * np.log(2 * scale)
    torch.testing.assert_close(terms.loss, (nats + draw.rate.sum(-1)).mean())
    # A Laplace distribution of scale b has variance 2b².
    assert float(terms.sigma) == pytest.approx(np.sqrt(2) * scale)


def test_a_model_that_detaches_nothing_is_refused_where_a_decoder_needs_it(
    plugin: Callable[..., Path], write_grid: Write
) -> None:
    plugin(MODEL, "my_model.py")
    grid = read_grid(str(write_grid(plugins=["my_model.py"], models=["plain"])))
    assert grid.models[0].spec.options == {"latent": 3, "width": 2}
    model = build_model(grid.models[0].spec, channels=1, resolution=28, outputs=2)
    assert model.generate(torch.randn(4, 3), model.initial_state()).shape == (4, 2, 28, 28)
    with pytest.raises(ValueError, match="'plain' does not honour detached outputs"):
        build_model(grid.models[0].spec, channels=1, resolution=28, outputs=2, detached_outputs=1)
    plugin(DETACHING, "detaching.py")
    path = write_grid(
        plugins=["my_model.py", "detaching.py"], models=["plain"], decoders=["detaching"]
    )
    assert "models.0: decoder 'detaching' needs a model that honours `detached_outputs`" in (
        refused(lambda: read_grid(str(path)))
    )


# -- options ---------------------------------------------------------------------------------------


def test_options_are_checked_like_ours(plugin: Callable[..., Path], write_grid: Write) -> None:
    plugin()

    def complaint(**options: object) -> str:
        decoders = [{"name": "my_laplace", **options}]
        path = write_grid(plugins=["my_decoder.py"], decoders=decoders)
        return refused(lambda: read_grid(str(path)))

    told = complaint(initial_log_scal=1)
    assert re.search(r"small\.yaml:\d+: decoders\.0\.initial_log_scal: unknown key", told)
    assert "did you mean 'initial_log_scale'?" in told
    assert "decoders.0.initial_log_scale: input should be" in complaint(initial_log_scale="big")
    assert "finite" in complaint(initial_log_scale=float("inf"))
    assert "decoders.0.link" in complaint(link="tanh")


def test_an_option_can_be_tuned(plugin: Callable[..., Path], write_grid: Write) -> None:
    plugin(LAPLACE.replace("-1.0", "1.0"))
    tune = {"tune": {"low": 0.1, "high": 1, "trials": 4}}
    decoders = [{"name": "my_laplace", "initial_log_scale": tune}]
    grid = read_grid(str(write_grid(plugins=["my_decoder.py"], decoders=decoders)))
    (row,) = expand(grid, device="cpu", features=None, prepare=True)
    trial = trial_run(row, [0.5], 1000)
    assert trial.decoder.options["initial_log_scale"] == 0.5
    assert trial.plugins.keys() == {"decoder"}


def test_a_misspelt_plugin_decoder_is_near(plugin: Callable[..., Path], write_grid: Write) -> None:
    plugin()
    path = write_grid(plugins=["my_decoder.py"], decoders=["my_laplase"])
    assert "did you mean 'my_laplace'?" in refused(lambda: read_grid(str(path)))


# -- identity --------------------------------------------------------------------------------------


def ids(rows: list[Row]) -> dict[str, str]:
    return {row.runs[0].decoder.name: row.runs[0].id for row in rows}


def test_an_edited_plugin_is_a_new_experiment_and_the_other_rows_are_not(
    plugin: Callable[..., Path], expand: Expand
) -> None:
    decoders = ["gaussian", "my_laplace"]
    without = ids(expand(decoders=["gaussian"]))
    plugin()
    first = ids(expand(plugins=["my_decoder.py"], decoders=decoders))
    again = ids(expand(plugins=["my_decoder.py"], decoders=decoders))
    plugin(name="elsewhere.py")
    moved = ids(expand(plugins=["elsewhere.py"], decoders=decoders))
    plugin(LAPLACE + "# edited\n")
    edited = ids(expand(plugins=["my_decoder.py"], decoders=decoders))
    assert first == again == moved
    assert edited["my_laplace"] != first["my_laplace"]
    assert without["gaussian"] == first["gaussian"] == edited["gaussian"]


def test_a_run_survives_json_and_pickle(plugin: Callable[..., Path], expand: Expand) -> None:
    path = plugin()
    run = expand(plugins=["my_decoder.py"], decoders=["my_laplace"])[0].runs[0]
    fields = json.loads(run.model_dump_json())
    assert Run.read(fields).id == run.id
    assert pickle.loads(pickle.dumps(run)).id == run.id
    plugins.forget()
    assert "decoder 'my_laplace' of this run is not here" in refused(lambda: Run.read(fields))
    path.write_text(LAPLACE + "# edited\n")
    plugins.load(path)
    assert "not here" in refused(lambda: Run.read(fields))


def test_another_process_has_the_same_plugins(plugin: Callable[..., Path], expand: Expand) -> None:
    """What a worker does: a pickled run means nothing before its plugin is there."""
    plugin(LAPLACE + BLOBS)
    run = expand(plugins=["my_decoder.py"], decoders=["my_laplace"])[0].runs[0]
    script = (
        "import pickle, sys; from bench import data; from bench.plugins import restore\n"
        "had, run = pickle.load(sys.stdin.buffer)\n"
        "restore(had)\n"
        "assert 'blobs' in data.names()\n"
        "print(pickle.loads(run).id)"
    )
    done = subprocess.run(
        [sys.executable, "-c", script],
        input=pickle.dumps((plugins.loaded(), pickle.dumps(run))),
        capture_output=True,
        check=True,
        cwd=README.parent,
    )
    assert done.stdout.decode().strip() == run.id


def test_a_worker_refuses_a_plugin_that_changed_meanwhile(
    plugin: Callable[..., Path], expand: Expand, tmp_path: Path
) -> None:
    path = plugin()
    rows = expand(plugins=["my_decoder.py"], decoders=["my_laplace"])
    path.write_text("raise SystemExit('not to be executed')")
    store, console = Store.open(tmp_path, "small"), Console(file=io.StringIO())
    message = refused(lambda: execute(rows, store, "small", ["cpu"], 1, console))
    assert message == f"plugin {path} changed while the grid ran; start it again"


def test_without_the_plugin_its_records_are_still_reported(
    plugin: Callable[..., Path], expand: Expand, tmp_path: Path
) -> None:
    plugin()
    rows = expand(plugins=["my_decoder.py"], decoders=["gaussian", "my_laplace"])
    store = Store(tmp_path / "results")
    for row in rows:
        for rule in ("by hand", "trial"):
            run = row.runs[0]
            if rule == "trial":
                evaluation = run.evaluation.model_copy(update={"split": "validation"})
                run = run.model_copy(update={"evaluation": evaluation})
            record = new_record(run, {"rule": rule, "search": "0" * 16})
            record["metrics"], record["cost"] = {"neg_log_p": 1.0}, {"seconds": 2.0}
            write_checked(store.run_folder(run) / "record.json", record)
    assert [line.state for line in survey(rows, store)] == ["done", "done"]
    plugins.forget()
    others = expand(decoders=["gaussian", "shared"])
    assert [line.state for line in survey(others, store)] == ["done", "to do"]
    labels = list(table_rows(frame(store.records()), []).table["decoder"])
    assert labels == ["gaussian", "my_laplace (link=sigmoid, initial_log_scale=-1)"]


# -- what goes wrong -------------------------------------------------------------------------------

HEAD = (
    "from baselines.options import decoder, model; from bench.plugins import dataset\n"
    "from baselines.decoders.base import Decoder\n"
)


@pytest.mark.parametrize(
    ("content", "line", "complaint"),
    [
        ("x = (\n", 1, "not Python: "),
        ("import os\n\nos.missing\n", 3, "AttributeError: "),
        ("import sys\nsys.exit(3)\n", 2, "SystemExit: 3"),
        ("x = 1\n", 1, "registers nothing"),
        (HEAD + "@decoder('optimal')\nclass D(Decoder): pass", 3, "'optimal' is a bundled decoder"),
        (HEAD + "@dataset('mnist')\ndef f(): pass", 3, "'mnist' is a bundled dataset"),
        (HEAD + "@decoder('a b')\nclass D(Decoder): pass", 3, "a name is letters, digits and _"),
        (HEAD + "@decoder('d')\nclass D: pass", 3, "is not a subclass of Decoder"),
        (HEAD + "@model('m')\nclass M(Decoder): pass", 3, "is not a subclass of Model"),
        (
            HEAD + "@decoder('d')\nclass D(Decoder):\n  def __init__(self, a: int = 1): pass",
            3,
            "D has a constructor: declare its options as annotated attributes",
        ),
        (
            HEAD + "import torch\n@decoder('d')\nclass D(Decoder):\n  scale: torch.Tensor",
            4,
            "D: scale: <class 'torch.Tensor'> is no type of an option",
        ),
        (
            HEAD + "@decoder('d')\nclass D(Decoder):\n  options: int = 1",
            3,
            "the option 'options' of D has a name that is taken",
        ),
        (
            HEAD + "@decoder('d')\nclass D(Decoder):\n  training: bool = True",
            3,
            "the option 'training' of D has a name that is taken",
        ),
        (
            HEAD + "@decoder('d')\nclass D(Decoder):\n  mean: float = 0.5",
            3,
            "the option 'mean' of D has a name that is taken",
        ),
        (
            HEAD + "@decoder('d')\nclass D(Decoder):\n  link: 'Unknown' = 1",
            3,
            "NameError: name 'Unknown' is not defined",
        ),
        (
            HEAD + "@decoder('d')\nclass D(Decoder): pass\n@decoder('d')\nclass E(Decoder): pass",
            5,
            "decoder 'd' is registered at ",
        ),
    ],
)
def test_a_wrong_plugin_is_told_with_file_and_line(
    plugin: Callable[..., Path], write_grid: Write, content: str, line: int, complaint: str
) -> None:
    path = plugin(content)
    grid = str(write_grid(plugins=["my_decoder.py"]))
    message = refused(lambda: read_grid(grid))
    assert re.match(rf".*small\.yaml:\d+: plugins\.0: {path}:{line}: ", message), message
    assert complaint in message


def test_a_missing_file_and_two_plugins_with_one_name(
    plugin: Callable[..., Path], write_grid: Write
) -> None:
    path = write_grid(plugins=["none.py"])
    assert "none.py cannot be read: No such file or directory" in (
        refused(lambda: read_grid(str(path)))
    )
    first, second = plugin(), plugin(LAPLACE + "\n", "second.py")
    path = write_grid(plugins=["my_decoder.py", "second.py"])
    line = LAPLACE.splitlines().index('@decoder("my_laplace")') + 1
    expected = (
        f"{second}:{line}: decoder 'my_laplace' is registered at {first}:{line} too; rename one"
    )
    assert f"plugins.1: {expected}" in refused(lambda: read_grid(str(path)))
    path = write_grid(plugins=["my_decoder.py", "my_decoder.py"])
    assert "plugins.1: is listed twice" in refused(lambda: read_grid(str(path)))


def test_the_next_grid_has_its_own_plugins(plugin: Callable[..., Path], write_grid: Write) -> None:
    plugin()
    read_grid(str(write_grid(plugins=["my_decoder.py"], decoders=["my_laplace"])))
    path = write_grid(decoders=["my_laplace"])
    assert "unknown decoder 'my_laplace'" in refused(lambda: read_grid(str(path)))


# -- data ------------------------------------------------------------------------------------------


def test_a_dataset_is_made_once_and_again_when_its_plugin_changes(
    plugin: Callable[..., Path], capsys: pytest.CaptureFixture[str]
) -> None:
    content = BLOBS.replace("    return", "    print('made')\n    return")
    plugins.load(plugin(content))
    assert "blobs" in data.names()
    assert data.describe("blobs") is None
    made = data.prepare("blobs")
    assert (made.channels, made.resolution) == (1, 28)
    assert (made.train, made.validation, made.test) == (28, 4, 8)
    assert data.describe("blobs") == made
    assert len(data.load("blobs").train) == 28
    assert capsys.readouterr().err == "made\n"
    assert data.prepare("blobs@32").resolution == 32
    plugins.forget()
    plugins.load(plugin(content + "# edited\n"))
    assert data.describe("blobs") is None
    # The content decides, not the code that made it.
    assert data.prepare("blobs").content == made.content
    assert capsys.readouterr().err == "made\nmade\n"


def test_a_dataset_of_videos(plugin: Callable[..., Path]) -> None:
    videos = BLOBS.replace("(40, 28, 28, 1)", "(40, 5, 28, 28, 1)")
    plugins.load(plugin(videos))
    assert data.frames("blobs") is None  # which only the function knows
    made = data.prepare("blobs")
    assert (made.frames, made.train, made.noun) == (5, 28, "sequence")
    assert data.frames("blobs") == 5
    assert tuple(data.load("blobs@32").test.shape) == (8, 5, 1, 32, 32)


def test_an_official_test_part(plugin: Callable[..., Path]) -> None:
    images = "np.random.default_rng(0).integers(0, 256, ({}, 28, 28, 1), np.uint8)"
    pair = f"({images.format(40)}, {images.format(9)})"
    plugins.load(plugin(BLOBS.replace(images.format(40), pair)))
    made = data.prepare("blobs")
    assert (made.train, made.validation, made.test) == (37, 3, 9)


@pytest.mark.parametrize(
    ("result", "complaint"),
    [
        ("np.zeros((40, 28, 28, 1))", "'images' is float64 (40, 28, 28, 1)"),
        ("[1, 2]", "must return `images` or `(images, test_images)`"),
        ("np.zeros((40, 20, 20, 1), np.uint8)", "append @28, @32, @64 or @128"),
        ("np.zeros((40, 1, 28, 28, 1), np.uint8)", "a video has 2 frames or more"),
        ("1 / 0", "ZeroDivisionError: division by zero"),
    ],
)
def test_a_wrong_dataset_is_told_with_file_and_line(
    plugin: Callable[..., Path], result: str, complaint: str
) -> None:
    head = "import numpy as np\nfrom bench.plugins import dataset\n@dataset('wrong')\n"
    content = f"{head}def wrong():\n    return {result}\n"
    path = plugin(content)
    plugins.load(path)
    message = refused(lambda: data.prepare("wrong"))
    assert message.startswith(f"{path}:{5 if '/' in result else 3}: ")
    assert complaint in message


# -- installed packages, and the command line ------------------------------------------------------


@pytest.fixture
def installed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """A package with a decoder in a module of its own, and its entry point."""
    name = f"package_{tmp_path.name}"
    site = tmp_path / "site"
    (site / name).mkdir(parents=True)
    (site / name / "__init__.py").write_text(f"from {name} import heads\n")
    (site / name / "heads.py").write_text(LAPLACE)
    about = site / f"{name}-1.0.dist-info"
    about.mkdir()
    (about / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {name}\nVersion: 1.0\n")
    (about / "entry_points.txt").write_text(f"[{plugins.GROUP}]\nheads = {name}\n")
    monkeypatch.syspath_prepend(str(site))
    yield name
    for module in [module for module in sys.modules if module.startswith(name)]:
        del sys.modules[module]


def test_an_installed_plugin_is_found_when_a_name_is_not_ours(
    installed: str, expand: Expand
) -> None:
    assert metadata.entry_points(group=plugins.GROUP)
    expand(decoders=["gaussian"])
    assert installed not in sys.modules
    run = expand(decoders=["my_laplace"])[0].runs[0]
    assert plugins.loaded()[0].module == installed
    assert Run.read(json.loads(run.model_dump_json())).id == run.id
    assert pickle.loads(pickle.dumps(run)).id == run.id


@pytest.mark.parametrize("name", ["blobs", "blobs@32", "blobs[:20]", "blobs@32[:20]"])
def test_an_installed_data_set_is_found_at_a_size_and_cut_down(
    name: str, installed: str, tmp_path: Path, write_grid: Callable[..., Path]
) -> None:
    (tmp_path / "site" / installed / "heads.py").write_text(BLOBS)
    read_grid(str(write_grid(datasets=[name])))
    assert plugins.loaded()[0].module == installed


def test_a_broken_installed_plugin_names_itself(installed: str, tmp_path: Path) -> None:
    (tmp_path / "site" / installed / "heads.py").write_text("1 / 0\n")
    message = refused(plugins.discover)
    assert message == (
        f"plugin {installed}, an installed package, fails at import: ZeroDivisionError: division "
        "by zero"
    )


def test_list_shows_plugins_with_their_defaults(
    installed: str,
    plugin: Callable[..., Path],
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    path = plugin(MODEL + BLOBS, "more.py")

    def listed(*words: str) -> str:
        monkeypatch.setattr(sys, "argv", ["sigma-bench", "list", *words])
        with pytest.raises(SystemExit) as ended:
            main()
        assert not ended.value.code
        plugins.forget()
        return capsys.readouterr().out

    told = {entry["name"]: entry for entry in json.loads(listed("decoders", "--json"))}
    assert told["my_laplace"]["options"] == "link=sigmoid, initial_log_scale=-1.0"
    assert told["my_laplace"]["what"].startswith("Laplace with one learned scale")
    assert "plain" in listed("models", "--plugin", str(path))
    assert "blobs" in listed("datasets", "--plugin", str(path))
    assert "blobs" not in listed("datasets")
