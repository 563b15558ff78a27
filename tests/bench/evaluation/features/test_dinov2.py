"""DINOv2 from a small file of the published names, against torchvision's transformer."""

import hashlib
import math
from collections.abc import Iterator
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch._subclasses.fake_tensor import FakeTensorMode
from torchvision.models import VisionTransformer

from bench.cli import inspect
from bench.errors import RequestError
from bench.evaluation.features.base import NETWORKS, build, resolve
from bench.evaluation.features.networks import dinov2
from bench.evaluation.features.networks.dinov2 import DinoV2
from bench.evaluation.features.vit import at_grid
from bench.files import sha256_file

WIDTH, DEPTH = 128, 2


def state(
    side: int = 16, width: int = WIDTH, depth: int = DEPTH, patch: int = 14
) -> dict[str, Any]:
    """Random weights by the names of the published file, `mask_token` among them."""
    generator = torch.Generator().manual_seed(0)

    def random(*shape: int, scale: float = 0.05) -> Tensor:
        return scale * torch.randn(shape, generator=generator)

    weights = {
        "cls_token": random(1, 1, width),
        "pos_embed": random(1, side**2 + 1, width),
        "mask_token": torch.zeros(1, width),
        "patch_embed.proj.weight": random(width, 3, patch, patch),
        "patch_embed.proj.bias": random(width),
        "norm.weight": 1 + random(width),
        "norm.bias": random(width),
    }
    for number in range(depth):
        own = {
            "norm1.weight": 1 + random(width),
            "norm1.bias": random(width),
            "attn.qkv.weight": random(3 * width, width),
            "attn.qkv.bias": random(3 * width),
            "attn.proj.weight": random(width, width),
            "attn.proj.bias": random(width),
            "ls1.gamma": random(width, scale=1),
            "norm2.weight": 1 + random(width),
            "norm2.bias": random(width),
            "mlp.fc1.weight": random(4 * width, width),
            "mlp.fc1.bias": random(4 * width),
            "mlp.fc2.weight": random(width, 4 * width),
            "mlp.fc2.bias": random(width),
            "ls2.gamma": random(width, scale=1),
        }
        weights |= {f"blocks.{number}.{name}": tensor for name, tensor in own.items()}
    return weights


def saved(weights: object, path: Path) -> Path:
    torch.save(weights, path)
    return path


def torchvisions(weights: dict[str, Any]) -> VisionTransformer:
    """Its vision transformer with the same weights; the blocks' factors are within its layers."""
    network = VisionTransformer(224, 14, DEPTH, WIDTH // 64, WIDTH, 4 * WIDTH)
    network.heads = nn.Identity()
    mapped = {
        "conv_proj.weight": weights["patch_embed.proj.weight"],
        "conv_proj.bias": weights["patch_embed.proj.bias"],
        "class_token": weights["cls_token"],
        "encoder.pos_embedding": weights["pos_embed"],
        "encoder.ln.weight": weights["norm.weight"],
        "encoder.ln.bias": weights["norm.bias"],
    }
    names = {
        "ln_1": "norm1", "self_attention.in_proj_": "attn.qkv.", "self_attention.out_proj":
        "attn.proj", "ln_2": "norm2", "mlp.0": "mlp.fc1", "mlp.3": "mlp.fc2",
    }  # fmt: skip
    for number in range(DEPTH):
        block = f"blocks.{number}."
        for theirs, ours in names.items():
            for kind in ("weight", "bias"):
                dot = "" if theirs.endswith("_") else "."
                value = weights[block + ours.removesuffix(".") + f".{kind}"]
                if ours in ("attn.proj", "mlp.fc2"):
                    factor = weights[block + ("ls1" if ours == "attn.proj" else "ls2") + ".gamma"]
                    value = value * (factor[:, None] if kind == "weight" else factor)
                layer = f"encoder.layers.encoder_layer_{number}."
                mapped[f"{layer}{theirs}{dot}{kind}"] = value
    network.load_state_dict(mapped)
    return network.eval()


def images(channels: int = 3) -> Tensor:
    generator = torch.Generator().manual_seed(1)
    return torch.randint(0, 256, (3, channels, 32, 32), generator=generator, dtype=torch.uint8)


def test_its_class_token_is_that_of_torchvisions_transformer(tmp_path: Path) -> None:
    weights = state()
    path = saved(weights, tmp_path / "small.pth")
    found = build(DinoV2().of(path), "cpu")(images())
    pixels = nn.functional.interpolate(
        images().double(), (224, 224), mode="bicubic", antialias=True
    ).clamp(0, 255)
    mean, deviation = torch.tensor([0.485, 0.456, 0.406]), torch.tensor([0.229, 0.224, 0.225])
    inputs = (pixels.float() / 255 - mean[:, None, None]) / deviation[:, None, None]
    with torch.inference_mode():
        expected = torchvisions(weights)(inputs)
    assert found.shape == (3, WIDTH)
    assert torch.pdist(expected).min() > 0.1
    torch.testing.assert_close(found, expected, rtol=1e-3, atol=1e-3)


def test_a_grid_of_places_keeps_a_slope_and_its_own_size() -> None:
    """Between the edges a bicubic resizing of a plane is nearly the plane (a = -0.75 in torch)."""
    side = 37
    rows, columns = torch.meshgrid(*2 * [torch.arange(side).double()], indexing="ij")
    places = torch.stack([rows.flatten(), columns.flatten()], 1)
    assert at_grid(places, side, 0.1) is places
    found = at_grid(places, 16, 0.1).reshape(16, 16, 2)
    # A place of the new grid is at (i + ½) · 37 / 16.1 - ½ of the old one; without the offset it
    # would be 0.2 farther at the end.
    expected = (torch.arange(16).double() + 0.5) * side / 16.1 - 0.5
    torch.testing.assert_close(found[1:-1, 8, 0], expected[1:-1], rtol=0, atol=0.06)
    torch.testing.assert_close(found[8, 1:-1, 1], expected[1:-1], rtol=0, atol=0.06)


def test_the_published_grid_is_resized_and_a_grey_image_is_three_channels(tmp_path: Path) -> None:
    extractor = build(DinoV2().of(saved(state(side=37), tmp_path / "s.pth")), "cpu")
    grey = images(1)
    assert extractor(grey).shape == (3, WIDTH)
    torch.testing.assert_close(extractor(grey), extractor(grey.repeat(1, 3, 1, 1)))


def test_it_stays_on_a_gpu(monkeypatch: pytest.MonkeyPatch) -> None:
    shapes = {name: tensor.shape for name, tensor in state(side=37).items()}
    cuda = torch.device("cuda")
    with FakeTensorMode(), cuda, torch.no_grad():
        given = {name: torch.zeros(shape) for name, shape in shapes.items()}
        monkeypatch.setattr(dinov2, "state_dict_of", lambda weights: given)
        features = DinoV2().load(Path("none"), cuda)
        found = features(torch.zeros(4, 3, 32, 32, dtype=torch.uint8))
    assert (found.device.type, found.shape) == ("cuda", (4, WIDTH))


def without(weights: dict[str, Any], name: str) -> dict[str, Any]:
    return {key: value for key, value in weights.items() if key != name}


@pytest.mark.parametrize(
    ("weights", "says"),
    [
        (without(state(), "cls_token"), "it has no cls_token"),
        (without(state(), "blocks.1.mlp.fc1.bias"), r"it has no blocks\.1\.mlp\.fc1\.bias"),
        (without(state(), "blocks.0.ls2.gamma"), r"it has no blocks\.0\.ls2\.gamma"),
        (state() | {"norm.weight": torch.ones(3)}, r"norm\.weight has the shape \(3,\)"),
        (state() | {"pos_embed": torch.zeros(1, 30, WIDTH)}, "30 places"),
        (state() | {"register_tokens": torch.zeros(1, 4, WIDTH)}, "it has registers"),
        (state(width=96), "its width is 96, no multiple of 64"),
    ],
)
def test_another_file_is_refused_in_one_line(
    weights: dict[str, Any], says: str, tmp_path: Path
) -> None:
    path = saved(weights, tmp_path / "weights.pth")
    with pytest.raises(
        RequestError, match=rf"weights\.pth: expected DINOv2's weights; .*{says}"
    ) as e:
        build(DinoV2().of(path), "cpu")
    assert "\n" not in str(e.value)


# -- which file ------------------------------------------------------------------------------------


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty torch.hub cache; returns where the weights would be in it."""
    monkeypatch.setenv("TORCH_HOME", str(tmp_path / "torch"))
    monkeypatch.delenv(DinoV2.variable, raising=False)
    return tmp_path / "torch" / "hub" / "checkpoints" / DinoV2.file


def test_only_the_published_weights_have_the_plain_name(tmp_path: Path) -> None:
    assert DinoV2().metric(Path("any"), DinoV2.sha256) == "fd_dinov2"
    path = saved(state(), tmp_path / "own.pth")
    found = resolve(f"dinov2:{path}")
    assert found is not None
    assert found.metric == f"fd_dinov2_{sha256_file(path)[:8]}"


def test_it_is_asked_for_by_name_and_never_chosen_unasked(
    home: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(RequestError, match=r"sigma-bench fetch dinov2.*SIGMA_BENCH_DINOV2=PATH"):
        resolve("dinov2")
    inspect.list_("extractors", as_json=True)
    assert "sigma-bench fetch dinov2" in capsys.readouterr().out
    home.parent.mkdir(parents=True)
    saved(state(), home)
    found = resolve("dinov2")
    assert found is not None
    assert found.source == str(home)
    chosen = resolve("auto")
    assert chosen is None or chosen.name != "dinov2"
    monkeypatch.setenv(DinoV2.variable, "/no/where.pth")
    with pytest.raises(RequestError, match="SIGMA_BENCH_DINOV2 names it"):
        resolve("dinov2")


class Silent(SimpleHTTPRequestHandler):
    def log_message(self, *_: object) -> None:
        return None


@pytest.fixture
def served(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A folder that a server on this machine hands out, in place of the published address."""
    folder = tmp_path / "served"
    folder.mkdir()
    server = ThreadingHTTPServer(("127.0.0.1", 0), partial(Silent, directory=str(folder)))
    thread = Thread(target=server.serve_forever, daemon=True)
    thread.start()
    monkeypatch.setattr(DinoV2, "url", f"http://127.0.0.1:{server.server_port}/{DinoV2.file}")
    yield folder / DinoV2.file
    server.shutdown()
    server.server_close()
    thread.join()


def test_fetch_brings_the_weights_which_are_then_found_and_loaded(
    home: Path, served: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    saved(state(), served)
    monkeypatch.setattr(DinoV2, "sha256", sha256_file(served))
    inspect.fetch(["dinov2"])
    assert str(home) in capsys.readouterr().out
    assert home.read_bytes() == served.read_bytes()
    found = resolve("dinov2")
    assert found is not None
    assert (found.metric, found.source) == ("fd_dinov2", str(home))
    assert build(found, "cpu")(images()).shape == (3, WIDTH)


@pytest.mark.parametrize("kept", [0.6, 1.0], ids=["cut", "wrong"])
def test_a_bad_download_leaves_nothing(
    kept: float, home: Path, served: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    saved(state(), served)
    whole = served.read_bytes()
    monkeypatch.setattr(DinoV2, "sha256", hashlib.sha256(whole).hexdigest())
    served.write_bytes(whole[: math.floor(kept * len(whole)) - 1] + b"?")
    with pytest.raises(RequestError, match=str(home)):
        DinoV2().fetch()
    assert [path for path in home.parent.iterdir() if path.is_file()] == []


def test_the_dimension_is_that_of_the_published_size() -> None:
    (network,) = (one for one in NETWORKS if one.name == "dinov2")
    assert network.dimension == 16 * 64
