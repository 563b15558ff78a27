"""Options: declared once, checked wherever they are set, the same from source and from class."""

import importlib
import subprocess
import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from types import ModuleType
from typing import ClassVar, Literal

import pytest
from torch import nn

from baselines import balances, decoders, models, options
from baselines.build import build_decoder, build_model
from baselines.declarations import DeclarationError, from_class, from_source
from baselines.decoders.base import Decoder
from baselines.decoders.gaussian import BetaGaussian, OptimalPerImage, SharedGaussian
from baselines.models.conv_vae import ConvVae
from baselines.options import BALANCES, DECODERS, MODELS, Configured, Positive
from baselines.registration import registrations
from tests.specs import decoder_spec, model_spec

ORDER = [
    "mse", "gaussian", "beta", "per_pixel", "shared", "optimal", "optimal_per_image",
    "low_rank_gaussian", "bernoulli", "categorical", "bitwise_categorical", "logistic_mixture",
    "discretised_gaussian", "continuous_bernoulli", "student_t", "laplace", "laplace_optimal",
    "laplace_fixed", "beta_sigma", "beta_nll", "faithful",
]  # fmt: skip
CONSTANTS = {
    "decoder": ["learns_scale", "is_likelihood", "is_discrete", "detached_outputs"],
    "model": ["honours_detached_outputs", "is_sequence", "resolutions", "sizes"],
    "balance": ["sets_scale", "ends_at_elbo", "has_beta", "fixes"],
}


def test_tables_list_decoders_in_this_order() -> None:
    assert [name for name in DECODERS if DECODERS[name].source is None] == ORDER


@pytest.mark.parametrize(
    ("kind", "package"), [("decoder", decoders), ("model", models), ("balance", balances)]
)
def test_the_source_and_the_class_declare_the_same(kind: str, package: ModuleType) -> None:
    name = package.__name__
    folder = Path(importlib.import_module(name).__path__[0])
    assert {path.stem for path in folder.glob("*.py")} == {"__init__", "base", *package.MODULES}
    read = from_source(name, package.MODULES, Configured, kind, vars(options), CONSTANTS[kind])
    registries: dict[str, Mapping[str, type[options.Spec]]]
    registries = {"decoder": DECODERS, "model": MODELS, "balance": BALANCES}
    registry = registries[kind]
    assert read.keys() == {key for key, spec in registry.items() if spec.source is None}
    for declared in read.values():
        module, _, owner = declared.implementation.partition(":")
        live = getattr(importlib.import_module(module), owner)
        assert from_class(live, Configured, CONSTANTS[kind]) == declared
        assert declared.documentation


def test_a_grid_is_checked_without_torch() -> None:
    script = (
        "import sys; from baselines.options import DECODERS, MODELS\n"
        "assert DECODERS['optimal'](over='pixel').options['over'] == 'pixel'\n"
        "assert MODELS['conv_vae'].honours_detached_outputs\n"
        "print('torch' in sys.modules)"
    )
    done = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, check=True, text=True
    )
    assert done.stdout.strip() == "False"


def test_constructors_have_the_defaults_of_the_specs() -> None:
    spec = decoder_spec("shared")
    assert {name: getattr(SharedGaussian(), name) for name in spec.options} == spec.options
    built = build_decoder(decoder_spec("shared", sigma_lr=20))
    assert type(built) is SharedGaussian
    assert built.sigma_lr == 20
    model = ConvVae(channels=1, resolution=28, width=16)
    assert (model.latent, model.outputs, model.width) == (20, 1, 16)
    # What the harness gives is no option of a grid.
    assert list(model_spec("conv_vae").options) == ["latent", "width"]


@pytest.mark.parametrize(
    ("make", "error", "message"),
    [
        (lambda: SharedGaussian(sigma_lr=-1), ValueError, "SharedGaussian: sigma_lr: input should "
         "be greater than 0, not -1"),
        (lambda: SharedGaussian(initial_log_sigma="date"), ValueError,  # type: ignore[arg-type]
         r"initial_log_sigma: .* valid number.* or input should be 'data', not 'date'"),
        (lambda: SharedGaussian(min_log_sigma=float("nan")), ValueError, "finite number, not nan"),
        (lambda: SharedGaussian(link="tanh"), ValueError,  # type: ignore[arg-type]
         "link: input should be 'sigmoid' or 'identity', not 'tanh'"),
        (lambda: OptimalPerImage(over="batch"), ValueError,  # type: ignore[arg-type]
         "over: input should be 'image', not 'batch'"),
        (lambda: SharedGaussian(sigma_rl=1), TypeError,  # type: ignore[call-arg]
         "SharedGaussian has no option 'sigma_rl'; possible: link, min_log_sigma, max_log_sigma, "
         "initial_log_sigma, sigma_lr"),
        (lambda: BetaGaussian(), TypeError, "BetaGaussian: 'beta' is missing"),  # type: ignore[call-arg]
        (lambda: ConvVae(resolution=28), TypeError, "'channels' is missing"),  # type: ignore[call-arg]
        (lambda: ConvVae(channels=1, resolution=30), ValueError, "30 is not a multiple of 4"),
    ],
)  # fmt: skip
def test_bad_input_is_one_plain_line(
    make: Callable[[], object], error: type[Exception], message: str
) -> None:
    with pytest.raises(error, match=message) as caught:
        make()
    assert "\n" not in str(caught.value)


def test_a_subclass_inherits_narrows_and_changes_defaults() -> None:
    class Mine(SharedGaussian):
        sigma_lr = 5.0
        link: Literal["identity"] = "identity"
        extra: Positive = 2
        limit: ClassVar[int] = 3
        _seen: dict[str, int]
        outputs = 1

    # A type checker takes `_seen` for a keyword: `dataclass_transform` cannot leave it out.
    mine = Mine(extra=4)  # type: ignore[call-arg]
    assert (mine.sigma_lr, mine.link, mine.extra, mine.min_log_sigma) == (5.0, "identity", 4.0, -6)
    declared = from_class(Mine, Configured, ["outputs", "is_discrete"])
    assert list(declared.arguments) == [*decoder_spec("shared").options, "extra"]
    assert declared.constants == {"outputs": 1, "is_discrete": False}


def test_a_module_with_an_options_name_is_refused() -> None:
    """Reading it would give the option's default."""

    class Hidden(Decoder):
        scale: int = 1

        def setup(self) -> None:
            self.scale = nn.Linear(self.scale, 1)  # type: ignore[assignment]

    with pytest.raises(TypeError, match="of the option's name 'scale'; choose another name"):
        Hidden()


def test_what_is_not_literal_cannot_be_read(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    package = tmp_path / "computed"
    package.mkdir()
    (package / "__init__.py").touch()
    (package / "base.py").write_text("class Base(Configured):\n    a: int = 1\n")
    (package / "mine.py").write_text("@decoder('x')\nclass Mine(Base):\n    a: int = 1 + N\n")
    monkeypatch.syspath_prepend(str(tmp_path))
    with pytest.raises(DeclarationError, match=r"computed\.mine:3: 'a' must have a literal value"):
        from_source("computed", ["mine"], Configured, "decoder", vars(options), [])


def test_detached_outputs_need_a_model_that_honours_them() -> None:
    assert DECODERS["faithful"].detached_outputs == 1
    assert all(spec.honours_detached_outputs for spec in MODELS.values() if spec.source is None)
    built = build_model(
        model_spec("linear_vae"), channels=1, resolution=8, outputs=2, detached_outputs=1
    )
    assert built.detached_outputs == 1


def test_a_cell_that_runs_again_replaces_what_it_registered() -> None:
    """A notebook's module has no file; in a file the second registration is an error."""
    notebook = ModuleType("notebook_of_options")
    cell = (
        "from baselines.decoders.base import Decoder; from baselines.options import decoder\n"
        "@decoder('mine')\nclass Mine(Decoder):\n    scale: float = {}\n"
    )
    sys.modules[notebook.__name__] = notebook
    try:
        for scale in (1.0, 2.0):
            exec(cell.format(scale), vars(notebook))
        (kept,) = registrations(notebook)
        assert kept.content().options == {"link": "sigmoid", "scale": 2.0}
        notebook.__file__ = "mine.py"
        with pytest.raises(DeclarationError, match="'mine' is registered at notebook_of_options:2"):
            exec(cell.format(3.0), vars(notebook))
    finally:
        del sys.modules[notebook.__name__]
