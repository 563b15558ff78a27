"""Which feature network is found, that its weights load, and what it makes of images."""

import hashlib
import json
import subprocess
import sys
import warnings
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from bench.errors import RequestError
from bench.evaluation.features import base
from bench.evaluation.features.base import NETWORKS, Extractor, build, network_named, resolve
from bench.evaluation.features.network import Network
from bench.evaluation.features.networks.efficientnet import EfficientNetLite0
from bench.evaluation.features.networks.inception import Inception, inception_network
from bench.evaluation.features.networks.squeezenet import SqueezeNet
from bench.files import sha256_file
from bench.run import Features
from bench.speed.peer import random_inception


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty torch.hub cache; returns where the Inception weights would be in it."""
    monkeypatch.setenv("TORCH_HOME", str(tmp_path / "torch"))
    monkeypatch.delenv(Inception.variable, raising=False)
    return Inception().cached()


def put(path: Path, content: bytes = b"weights") -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content)
    return path


# -- which network -----------------------------------------------------------------------------


@pytest.mark.parametrize(
    "environment",
    [
        {"TORCH_HOME": "~/t"},
        {"XDG_CACHE_HOME": "/x"},
        {},
        {"TORCH_HOME": "/t", "XDG_CACHE_HOME": "/x"},
    ],
)
def test_inception_lies_where_torch_hub_keeps_it(
    environment: dict[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("TORCH_HOME", "XDG_CACHE_HOME"):
        monkeypatch.delenv(name, raising=False)
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    checkpoints = Path(torch.hub.get_dir()) / "checkpoints"
    assert Inception().cached() == checkpoints / Inception.file


def test_the_file_and_the_hash_are_those_of_the_address() -> None:
    from pytorch_fid.inception import FID_WEIGHTS_URL

    assert FID_WEIGHTS_URL.endswith("/" + Inception.file)
    assert Inception.file.endswith(f"-{Inception.sha256[:8]}.pth")


def test_none_is_none() -> None:
    assert resolve("none") is None


def test_auto_prefers_inception_then_the_embedded_network_then_none(
    home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip(EfficientNetLite0.package)
    found = resolve("auto")
    assert found is not None
    assert (found.name, found.metric) == ("efficientnet_lite0", "fd_efficientnet_lite0")
    put(home)
    found = resolve("auto")
    assert found is not None
    assert (found.name, found.source) == ("inception", str(home))
    home.unlink()
    monkeypatch.setattr(EfficientNetLite0, "needs", ("no_such_package",))
    monkeypatch.setattr(SqueezeNet, "package", "no_such_package")
    assert resolve("auto") is None


def test_the_variable_goes_before_the_cache_and_a_wrong_one_is_no_silent_fallback(
    home: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    put(home)
    own = put(tmp_path / "own.pth", b"own")
    monkeypatch.setenv(Inception.variable, str(own))
    for word in ("inception", "auto"):
        found = resolve(word)
        assert found is not None
        assert found.source == str(own)
    monkeypatch.setenv(Inception.variable, str(tmp_path / "absent.pth"))
    with pytest.raises(RequestError, match=Inception.variable):
        resolve("auto")


def test_a_path_in_the_grid_names_the_weights(tmp_path: Path) -> None:
    own = put(tmp_path / "own.pth", b"own")
    assert resolve(f"inception:{own}") == Features(
        name="inception",
        metric="fd_inception",
        sha256=hashlib.sha256(b"own").hexdigest(),
        source=str(own),
    )
    script = put(tmp_path / "dino.v2.pt", b"script")
    found = resolve(str(script))
    assert found is not None
    assert (found.name, found.metric) == ("torchscript", "fd_dino.v2")


def test_only_the_published_weights_give_a_fid() -> None:
    assert Inception().metric(Path("any.pth"), Inception.sha256) == "fid"
    assert Inception().metric(Path("any.pth"), "0" * 64) == "fd_inception"


@pytest.mark.usefixtures("home")
@pytest.mark.parametrize(
    ("asked", "says"),
    [
        ("incepton", "did you mean 'inception'"),
        ("vgg", "possible: auto, none, inception, inception:PATH, eff"),
        ("inception", "sigma-bench fetch inception"),
        ("inception:/no/where.pth", "/no/where.pth: No such file"),
        ("/no/where.pt", "expected a TorchScript file"),
        ("/.pt", "No such file"),
    ],
)
def test_what_cannot_be_found_is_said_in_one_line(asked: str, says: str) -> None:
    with pytest.raises(RequestError, match=says) as caught:
        resolve(asked)
    assert "\n" not in str(caught.value)


def test_without_its_package_the_embedded_network_says_what_to_install(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(EfficientNetLite0, "package", "no_such_package")
    with pytest.raises(RequestError, match=r"pip install .*embedded"):
        resolve("efficientnet_lite0")


def test_finding_it_imports_no_torch() -> None:
    program = (
        "import sys\n"
        "from bench.evaluation.features.base import resolve\n"
        "resolve('auto')\n"
        "assert not {'torch', 'torchvision', 'pytorch_fid', 'pandas'} & set(sys.modules)"
    )
    subprocess.run([sys.executable, "-c", program], check=True)


# -- the download ------------------------------------------------------------------------------


def test_a_good_download_arrives(
    home: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    source = put(tmp_path / "served", b"x" * 100_000)
    monkeypatch.setattr("pytorch_fid.inception.FID_WEIGHTS_URL", source.as_uri())
    monkeypatch.setattr(Inception, "sha256", sha256_file(source))
    assert Inception().fetch() == home
    assert home.read_bytes() == source.read_bytes()


@pytest.mark.parametrize("served", [b"x" * 60_000, b"y" * 100_000], ids=["cut", "wrong"])
def test_a_bad_download_leaves_nothing(
    served: bytes, home: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    source = put(tmp_path / "served", served)
    monkeypatch.setattr("pytorch_fid.inception.FID_WEIGHTS_URL", source.as_uri())
    monkeypatch.setattr(Inception, "sha256", hashlib.sha256(b"x" * 100_000).hexdigest())
    with pytest.raises(RequestError, match=str(home)):
        Inception().fetch()
    assert [path for path in home.parent.iterdir() if path.is_file()] == []


# -- the embedded network ----------------------------------------------------------------------


@pytest.fixture(scope="module")
def lite0() -> Extractor:
    pytest.importorskip(EfficientNetLite0.package)
    spec = resolve("efficientnet_lite0")
    assert spec is not None
    return build(spec, "cpu")


@pytest.fixture(scope="module")
def photographs(shared_data: Path) -> Tensor:
    """12 colour photographs, 8 bits, `(12, 3, 32, 32)`."""
    with np.load(shared_data / "cifar10_train_first4000.npz", allow_pickle=False) as archive:
        return torch.from_numpy(archive["images"][:12].transpose(0, 3, 1, 2).copy())


def test_the_embedded_weights_are_the_published_file() -> None:
    pytest.importorskip(EfficientNetLite0.package)
    spec = resolve("efficientnet_lite0")
    assert spec is not None
    # As torch.hub has it, the file's name ends in the first digits of its sha256.
    assert Path(spec.source).stem.endswith(spec.sha256[:8])


def test_our_embedded_features_are_the_packages_own(lite0: Extractor, photographs: Tensor) -> None:
    from efficientnet_lite_pytorch import EfficientNet

    plain = EfficientNet.from_name("efficientnet-lite0")
    state = torch.load(lite0.features.source, weights_only=True)
    assert plain.load_state_dict(state) == ([], [])
    pixels = nn.functional.interpolate(photographs.float(), (224, 224), mode="bilinear")
    with torch.inference_mode():
        expected = plain.eval().extract_features((pixels - 127) / 128).mean((2, 3))
    found = lite0(photographs)
    assert found.dtype == torch.float32
    torch.testing.assert_close(found, expected, rtol=1e-3, atol=1e-4)
    assert torch.pdist(found).min() > 1


def test_one_channel_counts_as_three_equal_ones(lite0: Extractor, photographs: Tensor) -> None:
    grey = photographs[:3, :1]
    torch.testing.assert_close(lite0(grey), lite0(grey.repeat(1, 3, 1, 1)), rtol=1e-4, atol=1e-4)


def test_features_do_not_depend_on_the_company_of_other_images(
    lite0: Extractor, photographs: Tensor
) -> None:
    alone = torch.cat([lite0(image[None]) for image in photographs[:9]])
    torch.testing.assert_close(lite0(photographs[:9]), alone, rtol=1e-3, atol=1e-4)


def test_bfloat16_is_float32_but_for_rounding(lite0: Extractor, photographs: Tensor) -> None:
    exact = lite0(photographs)
    rounded = build(lite0.features, "cpu", "bfloat16")(photographs)
    assert rounded.dtype == torch.float32
    assert 1e-4 < (rounded - exact).norm() / exact.norm() < 0.1


def test_wrong_images_are_refused(lite0: Extractor) -> None:
    with pytest.raises(ValueError, match="uint8"):
        lite0(torch.zeros(1, 3, 8, 8))
    with pytest.raises(RequestError, match="1 or 3 channels, not 2"):
        lite0(torch.zeros(1, 2, 8, 8, dtype=torch.uint8))


def test_building_leaves_the_callers_random_numbers_alone(lite0: Extractor) -> None:
    before = torch.random.get_rng_state()
    build(lite0.features, "cpu")
    assert torch.equal(before, torch.random.get_rng_state())


# -- other weights -----------------------------------------------------------------------------


def save(value: object) -> Callable[[Path], None]:
    return lambda path: torch.save(value, path)


@pytest.mark.parametrize("name", [network.name for network in NETWORKS])
@pytest.mark.parametrize(
    "write",
    [
        lambda path: path.write_bytes(b""),
        lambda path: path.write_bytes(b"PK\x03\x04 cut short"),
        lambda path: path.write_text("not weights at all"),
        save({"conv.weight": torch.zeros(1)}),
        save([1, 2, 3]),
        save(Path("/")),
    ],
    ids=["empty", "torn", "text", "other keys", "no dict", "forbidden type"],
)
def test_unreadable_weights_are_named_in_one_line(
    name: str, write: Callable[[Path], None], tmp_path: Path
) -> None:
    path = tmp_path / "weights.pt"
    write(path)
    with pytest.raises(RequestError, match=r"weights\.pt: expected ") as caught:
        build(network_named(name).of(path), "cpu")
    assert "\n" not in str(caught.value)


def test_the_inception_network_has_the_published_names_and_shapes(
    shared_data: Path, tmp_path: Path
) -> None:
    """And pytorch-fid's own download is what it was, whether the weights were right or wrong."""
    from pytorch_fid import inception as peer

    download = peer.load_state_dict_from_url
    published = json.loads((shared_data / "fid_inception_state_dict_shapes.json").read_text())
    state = {
        name: torch.zeros((), dtype=torch.long if shape == [] else torch.float).expand(shape)
        for name, shape in published.items()
    }
    path = tmp_path / "weights.pth"
    torch.save(state, path)
    count = len(list(inception_network(path).parameters()))
    assert 0 < count < len(published)
    torch.save(dict(list(state.items())[1:]), path)
    with pytest.raises(RequestError, match="Inception weights"):
        inception_network(path)
    assert peer.load_state_dict_from_url is download


class Mean(Network):
    """A network of one file: its only feature is the mean of an image."""

    name = "mean"
    words = ("mean", "mean:PATH")
    metric_name = "fd_mean"

    def __init__(self, weights: Path) -> None:
        self.weights = weights

    def find(self, word: str) -> Features | None:
        return self.of(self.weights, "write it") if word == "mean" else None

    def is_here(self) -> bool:
        return self.weights.exists()

    def load(self, weights: Path, device: torch.device) -> Callable[[Tensor], Tensor]:
        return lambda images: images.float().mean((1, 2, 3))[:, None]


def test_a_class_in_the_tuple_is_all_that_a_network_takes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    from bench import doctor
    from bench.cli import inspect

    for module in (base, doctor, inspect):
        monkeypatch.setattr(module, "NETWORKS", (Mean(tmp_path / "mean"), *NETWORKS))
    with pytest.raises(RequestError, match=r"mean: No such file .*; write it"):
        resolve("mean")
    with pytest.raises(RequestError, match="did you mean 'mean'"):
        resolve("meen")
    put(tmp_path / "mean")
    found = resolve("auto")
    assert found is not None
    assert (found.name, found.metric) == ("mean", "fd_mean")
    images = torch.full((2, 1, 4, 4), 7, dtype=torch.uint8)
    assert build(found, "cpu")(images).tolist() == [[7], [7]]
    assert "features mean" in [finding.what for finding in doctor.examine()]
    assert inspect.list_("extractors", as_json=True) == 0
    first = json.loads(capsys.readouterr().out)[0]
    assert first == {"extractor": "mean | mean:PATH", "metric": "fd_mean", "where": "here"}


def test_a_run_of_an_unknown_network_is_refused_in_one_line() -> None:
    unknown = Features(name="incepton", metric="fd_x", sha256="0" * 64)
    with pytest.raises(RequestError, match="'incepton'; did you mean 'inception'"):
        build(unknown, "cpu")


@pytest.mark.parametrize("network", [Inception(), EfficientNetLite0(), SqueezeNet()])
def test_a_network_has_as_many_features_as_it_says(network: Network, tmp_path: Path) -> None:
    torch.manual_seed(0)
    if isinstance(network, Inception):
        weights = random_inception(tmp_path / "weights.pth")
    else:
        weights = Path(getattr(resolve(network.name), "source", ""))
    features = network.load(weights, torch.device("cpu"))(torch.zeros(1, 3, 9, 9).byte())
    assert features.shape == (1, network.dimension)


class Pooled(nn.Module):
    def forward(self, images: Tensor) -> Tensor:
        return images.mean(dim=(2, 3))


class Unpooled(nn.Module):
    def forward(self, images: Tensor) -> Tensor:
        return images


class Narrow(nn.Module):
    def forward(self, images: Tensor) -> Tensor:
        return images.reshape(-1, 12).sum(1, keepdim=True) @ images.reshape(5, -1)


def scripted(module: nn.Module, path: Path) -> Features:
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", r".*torch\.jit\.script")
        torch.jit.script(module).save(str(path))
    spec = resolve(str(path))
    assert spec is not None
    return spec


def test_a_torchscript_file_sees_the_unit_interval_at_its_own_size(tmp_path: Path) -> None:
    extractor = build(scripted(Pooled(), tmp_path / "pooled.pt"), "cpu")
    images = torch.arange(10 * 6 * 5, dtype=torch.uint8).reshape(10, 1, 6, 5)
    expected = images.double().mean((2, 3)) / 255
    torch.testing.assert_close(extractor(images), expected.expand(-1, 3).float())


@pytest.mark.parametrize(
    ("module", "says"), [(Unpooled(), r"expected features \(B, F\)"), (Narrow(), "failed on")]
)
def test_a_torchscript_file_that_gives_no_features_is_refused(
    module: nn.Module, says: str, tmp_path: Path
) -> None:
    extractor = build(scripted(module, tmp_path / "odd.pt"), "cpu")
    with pytest.raises(RequestError, match=says) as caught:
        extractor(torch.zeros(2, 3, 4, 4, dtype=torch.uint8))
    assert "\n" not in str(caught.value)
