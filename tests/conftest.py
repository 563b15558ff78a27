"""What every test has: a cache of the session's own, and the real data where they are at hand."""

from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import settings

# A shared machine may stall any example for longer than hypothesis' default of 200 ms.
settings.register_profile("shared machine", deadline=None)
settings.load_profile("shared machine")

ROOT = Path(__file__).resolve().parents[1]


@pytest.fixture(scope="session", autouse=True)
def session_cache(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """The cache folder of all tests; nothing of the user's own is read or written."""
    cache = tmp_path_factory.mktemp("cache")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("SIGMA_BENCH_CACHE", str(cache))
        patch.delenv("SIGMA_BENCH_DATA", raising=False)
        patch.delenv("SIGMA_BENCH_INCEPTION", raising=False)
        yield cache


@pytest.fixture(scope="session")
def shared_data() -> Path:
    """The folder with full MNIST and Fashion-MNIST and 4,000 images of CIFAR-10."""
    for folder in (ROOT.parent / "shared" / "data", ROOT / "shared" / "data"):
        if folder.is_dir():
            return folder
    pytest.skip("no folder shared/data with real images beside or inside the repository")
