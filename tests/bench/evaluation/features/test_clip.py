"""CLIP's image network from a small file of the published names, against torch's own layers."""

import warnings
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch._subclasses.fake_tensor import FakeTensorMode

from bench.errors import RequestError
from bench.evaluation.features.base import build, resolve
from bench.evaluation.features.networks import clip
from bench.evaluation.features.networks.clip import Clip
from bench.files import sha256_file

WIDTH, DEPTH, SIDE, PATCH, OUT = 128, 2, 3, 14, 24


def state() -> dict[str, Any]:
    """Random weights by the names of the published file, half precision where it has that."""
    generator = torch.Generator().manual_seed(0)

    def random(*shape: int, scale: float = 0.05) -> Tensor:
        return scale * torch.randn(shape, generator=generator)

    weights = {
        "visual.class_embedding": random(WIDTH),
        "visual.positional_embedding": random(SIDE**2 + 1, WIDTH),
        "visual.conv1.weight": random(WIDTH, 3, PATCH, PATCH).half(),
        "visual.proj": random(WIDTH, OUT),
        "text_projection": random(2, OUT),
        "logit_scale": torch.tensor(4.6),
    }
    for name in ("ln_pre", "ln_post"):
        weights[f"visual.{name}.weight"] = 1 + random(WIDTH)
        weights[f"visual.{name}.bias"] = random(WIDTH)
    for number in range(DEPTH):
        own = {
            "ln_1.weight": 1 + random(WIDTH),
            "ln_1.bias": random(WIDTH),
            "attn.in_proj_weight": random(3 * WIDTH, WIDTH).half(),
            "attn.in_proj_bias": random(3 * WIDTH).half(),
            "attn.out_proj.weight": random(WIDTH, WIDTH).half(),
            "attn.out_proj.bias": random(WIDTH).half(),
            "ln_2.weight": 1 + random(WIDTH),
            "ln_2.bias": random(WIDTH),
            "mlp.c_fc.weight": random(4 * WIDTH, WIDTH).half(),
            "mlp.c_fc.bias": random(4 * WIDTH).half(),
            "mlp.c_proj.weight": random(WIDTH, 4 * WIDTH).half(),
            "mlp.c_proj.bias": random(WIDTH).half(),
        }
        weights |= {f"visual.transformer.resblocks.{number}.{k}": v for k, v in own.items()}
    return weights


def saved(weights: object, path: Path) -> Path:
    torch.save(weights, path)
    return path


def images(channels: int = 3) -> Tensor:
    generator = torch.Generator().manual_seed(1)
    return torch.randint(0, 256, (3, channels, 20, 20), generator=generator, dtype=torch.uint8)


def torchs(weights: dict[str, Any], inputs: Tensor) -> Tensor:
    """The embeddings by torch's own layers of a transformer, their norms first."""
    own = {k.removeprefix("visual."): v.float() for k, v in weights.items()}
    names = {
        "self_attn.in_proj_": "attn.in_proj_", "self_attn.out_proj.": "attn.out_proj.",
        "linear1.": "mlp.c_fc.", "linear2.": "mlp.c_proj.", "norm1.": "ln_1.", "norm2.": "ln_2.",
    }  # fmt: skip
    tokens = nn.functional.conv2d(inputs, own["conv1.weight"], stride=PATCH).flatten(2).mT
    first = own["class_embedding"].expand(len(inputs), 1, -1)
    tokens = torch.cat([first, tokens], 1) + own["positional_embedding"]

    def norm(values: Tensor, name: str) -> Tensor:
        parts = own[f"{name}.weight"], own[f"{name}.bias"]
        return nn.functional.layer_norm(values, (WIDTH,), *parts)

    tokens = norm(tokens, "ln_pre")
    for number in range(DEPTH):
        layer = nn.TransformerEncoderLayer(
            WIDTH, WIDTH // 64, 4 * WIDTH, 0.0, lambda x: x * torch.sigmoid(1.702 * x),
            batch_first=True, norm_first=True,
        )  # fmt: skip
        block = f"transformer.resblocks.{number}."
        layer.load_state_dict(
            {
                f"{theirs}{kind}": own[f"{block}{ours}{kind}"]
                for theirs, ours in names.items()
                for kind in ("weight", "bias")
            }
        )
        tokens = layer.eval()(tokens)
    embeddings: Tensor = norm(tokens[:, 0], "ln_post") @ own["proj"]
    return embeddings


def test_its_embedding_is_that_of_torchs_layers(tmp_path: Path) -> None:
    weights = state()
    found = build(Clip().of(saved(weights, tmp_path / "small.pt")), "cpu")(images())
    size = SIDE * PATCH
    pixels = nn.functional.interpolate(images().float() / 255, (size, size), mode="bicubic")
    mean = torch.tensor([0.48145466, 0.4578275, 0.40821073])[:, None, None]
    deviation = torch.tensor([0.26862954, 0.26130258, 0.27577711])[:, None, None]
    with torch.no_grad():
        expected = torchs(weights, (pixels - mean) / deviation)
    assert found.shape == (3, OUT)
    assert torch.pdist(expected).min() > 0.05
    torch.testing.assert_close(found, expected, rtol=1e-3, atol=1e-4)


class Part(nn.Module):
    """A module that holds tensors by the names that a dictionary gives them."""

    def __init__(self, tensors: dict[str, Tensor]) -> None:
        super().__init__()
        inside: dict[str, dict[str, Tensor]] = {}
        for name, tensor in tensors.items():
            head, _, rest = name.partition(".")
            if rest:
                inside.setdefault(head, {})[rest] = tensor
            else:
                self.register_parameter(head, nn.Parameter(tensor))
        for head, own in inside.items():
            self.add_module(head, Part(own))

    def forward(self, images: Tensor) -> Tensor:
        return images


def test_a_torchscript_file_as_published_is_the_same(tmp_path: Path) -> None:
    plain = saved(state(), tmp_path / "plain.pt")
    script = tmp_path / "script.pt"
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        torch.jit.script(Part(state())).save(str(script))
    one, other = (build(Clip().of(path), "cpu")(images()) for path in (plain, script))
    assert torch.equal(one, other)


def test_it_stays_on_a_gpu(monkeypatch: pytest.MonkeyPatch) -> None:
    shapes = {name: tensor.shape for name, tensor in state().items()}
    cuda = torch.device("cuda")
    with FakeTensorMode(), cuda, torch.no_grad():
        given = {name: torch.zeros(shape) for name, shape in shapes.items()}
        monkeypatch.setattr(clip, "_state_of", lambda weights: given)
        found = Clip().load(Path("none"), cuda)(torch.zeros(4, 3, 32, 32, dtype=torch.uint8))
    assert (found.device.type, found.shape) == ("cuda", (4, OUT))


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"visual.proj": None}, "no visual.proj"),
        ({"visual.ln_pre.bias": None}, r"it has no visual\.ln_pre\.bias"),
        ({"visual.positional_embedding": torch.zeros(7, WIDTH)}, "it has 7 places"),
        ({"visual.class_embedding": torch.zeros(3)}, r"has the shape \(3,\)"),
    ],
)
def test_another_file_is_refused_in_one_line(
    change: dict[str, Any], says: str, tmp_path: Path
) -> None:
    weights = {k: v for k, v in (state() | change).items() if v is not None}
    path = saved(weights, tmp_path / "weights.pt")
    with pytest.raises(RequestError, match=rf"weights\.pt: expected CLIP's.*{says}") as caught:
        build(Clip().of(path), "cpu")
    assert "\n" not in str(caught.value)


def test_only_the_published_weights_have_the_plain_name(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert Clip().metric(Path("any"), Clip.sha256) == "fd_clip"
    assert Clip.sha256 in Clip.url
    path = saved(state(), tmp_path / "own.pt")
    found = resolve(f"clip:{path}")
    assert found is not None
    assert found.metric == f"fd_clip_{sha256_file(path)[:8]}"
    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    monkeypatch.delenv(Clip.variable, raising=False)
    with pytest.raises(RequestError, match="sigma-bench fetch clip"):
        resolve("clip")


def test_a_good_download_arrives_and_a_bad_one_leaves_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TORCH_HOME", str(tmp_path / "torch"))
    source = saved(state(), tmp_path / "served.pt")
    monkeypatch.setattr(Clip, "url", source.as_uri())
    with pytest.raises(RequestError, match="cannot download"):
        Clip().fetch()
    assert not Clip().is_here()
    monkeypatch.setattr(Clip, "sha256", sha256_file(source))
    assert Clip().fetch().read_bytes() == source.read_bytes()
    assert Clip().is_here()
