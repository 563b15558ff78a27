"""The report in a real browser: it opens from disk, asks for nothing, and its table works."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from baselines.options import MODELS
from bench.report import figures, pages
from bench.report.figures import learning
from tests.bench.report.conftest import FILM, add_videos, realistic

if TYPE_CHECKING:
    from playwright.sync_api import Browser, Page

    from tests.bench.report.conftest import Results

playwright = pytest.importorskip("playwright.sync_api", reason="playwright is not installed")
REFERENCE = sorted(Path(__file__).parents[3].glob("reports/reference/*/index.html"))
CHROMIUM = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "chrome"))), None)
pytestmark = pytest.mark.skipif(CHROMIUM is None, reason="no Chromium is on the path")


@pytest.fixture(scope="module")
def report(new_results: Callable[[], Results], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A written report: 14 rows, a tuned β, lost runs, images, figures."""
    out = tmp_path_factory.mktemp("reports")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(figures, "KINDS", (learning,))  # one kind of figure is like another here
        pages.write("grid", [realistic(new_results()).folder], out, ["html"])
    return out / "grid" / "index.html"


@pytest.fixture(scope="module")
def films(new_results: Callable[[], Results], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A written report of videos: four decoders, eight frames, the first three given."""
    out = tmp_path_factory.mktemp("reports")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(figures, "KINDS", ())
        patch.setitem(MODELS, "film", FILM)
        pages.write("grid", [add_videos(new_results(), seeds=1).folder], out, ["html"])
    return out / "grid" / "index.html"


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    with playwright.sync_playwright() as driver:
        opened = driver.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        yield opened
        opened.close()


@pytest.fixture
def visit(browser: Browser) -> Iterator[Callable[..., Page]]:
    """Opens a file; afterwards nothing may have been complained of nor asked for elsewhere."""
    complaints: list[str] = []
    requests: list[str] = []
    opened: list[Page] = []

    def open_(path: Path, **options: Any) -> Page:
        page = browser.new_page(**options)
        opened.append(page)
        page.on("console", lambda message: complaints.append(message.text))
        page.on("pageerror", lambda error: complaints.append(str(error)))
        page.on("request", lambda request: requests.append(request.url))
        page.goto(path.as_uri())
        return page

    yield open_
    for page in opened:
        page.close()
    assert not complaints
    assert not [url for url in requests if not url.startswith(("file:", "data:"))]


def settled(page: Page) -> Page:
    """A page whose players are ready."""
    page.locator(".playing").wait_for(state="visible")
    return page


def reached(page: Page, what: str, text: str) -> None:
    """Wait until an element says so, be it for one frame; playwright looks too rarely."""
    assert page.evaluate(
        """([what, text]) => new Promise((done) => {
            setTimeout(done, 10000, false);
            const element = document.querySelector(what);
            const look = () =>
                element.textContent.includes(text) ? done(true) : requestAnimationFrame(look);
            look();
        })""",
        [what, text],
    )


def place(page: Page) -> str:
    return page.locator(".playing output").inner_text()


def column(page: Page, name: str) -> list[str]:
    """The texts of a column in the rows that are seen, from top to bottom."""
    texts: list[str] = page.evaluate(
        """name => {
            const table = document.querySelector("figure[data-interactive] table");
            const index = [...table.tHead.rows[0].cells].findIndex(h => h.dataset.column === name);
            return [...table.tBodies[0].rows].filter(row => !row.hidden)
                .map(row => row.cells[index].textContent.trim());
        }""",
        name,
    )
    return texts


def test_the_columns_sort_by_click_and_by_key(report: Path, visit: Callable[..., Page]) -> None:
    page = visit(report)
    head = page.locator("figure[data-interactive] th[data-column=fd_efficientnet_lite0]")
    head.locator("button").click()
    values = [float(text.split()[0]) for text in column(page, "fd_efficientnet_lite0")]
    assert values == sorted(values)
    assert head.get_attribute("aria-sort") == "ascending"
    head.locator("button").press("Enter")
    assert column(page, "fd_efficientnet_lite0")[0].startswith("180.06")
    assert head.get_attribute("aria-sort") == "descending"
    # Where higher is better the first click brings the best up; what has no number stays below.
    page.locator("figure[data-interactive] th[data-column=iwae_64] button").click()
    assert column(page, "iwae_64")[0].startswith("2121")
    assert column(page, "iwae_64")[-2:] == ["", ""]
    page.locator("figure[data-interactive] th[data-column=decoder] button").click()
    assert column(page, "decoder")[0].startswith("beta")


def test_the_filter_keeps_rows_that_hold_every_word(
    report: Path, visit: Callable[..., Page]
) -> None:
    page = visit(report)
    assert len(column(page, "decoder")) == 14
    page.get_by_role("searchbox").fill("mnist5k Optimal")
    assert column(page, "decoder") == ["optimal"]
    assert page.locator("output").inner_text() == "1 of 14 rows"
    page.get_by_role("searchbox").fill("")
    assert len(column(page, "decoder")) == 14


def test_columns_come_and_go(report: Path, visit: Callable[..., Page]) -> None:
    page = visit(report)
    rate = page.locator("figure[data-interactive] th[data-column=rate]")
    assert not rate.is_visible()
    page.get_by_text("Columns", exact=True).click()
    page.get_by_label("rate", exact=True).check()
    assert rate.is_visible()
    page.get_by_label("rate", exact=True).uncheck()
    assert not rate.is_visible()


def test_every_image_is_seen(report: Path, visit: Callable[..., Page]) -> None:
    page = visit(report)
    widths = page.evaluate("[...document.images].map(i => i.complete && i.naturalWidth)")
    assert len(widths) > 14
    assert all(widths)


def test_without_javascript_the_numbers_are_there(report: Path, visit: Callable[..., Page]) -> None:
    page = visit(report, java_script_enabled=False)
    assert page.locator("td", has_text="22.24 ± 0.13").first.is_visible()
    assert not page.locator(".controls").is_visible()


@pytest.mark.parametrize("width", [390, 1280])
@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_no_page_is_wider_than_the_screen(
    report: Path, visit: Callable[..., Page], width: int, scheme: str
) -> None:
    size = {"width": width, "height": 800}
    pages_ = [report, next((report.parent / "runs").glob("*.html"))]
    for path in pages_:
        page = visit(path, viewport=size, color_scheme=scheme)
        assert page.evaluate("document.documentElement.scrollWidth") <= width
        ground = page.evaluate("getComputedStyle(document.body).backgroundColor")
        assert (ground == "rgb(255, 255, 255)") == (scheme == "light")


def test_a_run_is_a_click_away_and_leads_back(report: Path, visit: Callable[..., Page]) -> None:
    page = visit(report)
    page.locator("ul.links a").first.click()
    assert page.get_by_role("heading", name="Repeat it").is_visible()
    assert page.locator("svg polyline").count() in (0, 4)
    page.get_by_role("link", name="grid").click()
    assert page.get_by_role("heading", name="What it shows").is_visible()


def test_films_play_until_they_are_paused(films: Path, visit: Callable[..., Page]) -> None:
    page = settled(visit(films, reduced_motion="no-preference"))
    button = page.locator("[data-play]")
    assert button.inner_text() == "Pause"
    page.locator(".playing select").select_option("16")
    for frame in (6, 1):  # behind the last one it begins anew
        reached(page, ".playing output", f"{frame} of 7")
    button.press("Enter")
    assert button.inner_text() == "Play"
    stopped = place(page)
    page.wait_for_timeout(200)
    assert place(page) == stopped


def test_films_are_still_where_motion_is_not_wanted(
    films: Path, visit: Callable[..., Page]
) -> None:
    page = settled(visit(films, reduced_motion="reduce"))
    assert page.locator("[data-play]").inner_text() == "Play"
    assert place(page) == "3 of 7, predicted"  # the first that is not given
    page.wait_for_timeout(400)
    assert place(page) == "3 of 7, predicted"
    page.locator("[data-play]").click()
    reached(page, ".playing output", "5 of 7")
    page.emulate_media(reduced_motion="no-preference")
    page.wait_for_timeout(200)  # two changes before the next picture are none
    page.emulate_media(reduced_motion="reduce")
    reached(page, "[data-play]", "Play")


def square(page: Page, name: str) -> tuple[int, int]:
    """Where the square of the first row's film of a name begins: row and column."""
    top, left = page.get_by_role("img", name=name, exact=True).first.evaluate(
        """canvas => {
            const pixels = canvas.getContext("2d").getImageData(0, 0, canvas.width, canvas.height);
            const first = [...Array(canvas.width * canvas.height).keys()]
                .find(place => pixels.data[4 * place] > 0);
            return [Math.floor(first / canvas.width), first % canvas.width];
        }"""
    )
    return top, left


def test_keys_move_all_films_frame_by_frame(films: Path, visit: Callable[..., Page]) -> None:
    page = settled(visit(films, reduced_motion="reduce"))
    slider = page.get_by_role("slider", name="Frame")
    for _ in range(2):
        slider.press("ArrowRight")
    assert place(page) == "5 of 7, predicted"
    assert slider.get_attribute("aria-valuetext") == "5 of 7, predicted"
    # The truth of the second video is at the frame's row; the worst rollout is three rows ahead.
    assert square(page, "video 2, truth") == (5, 4)
    assert square(page, "video 2, worst") == (8, 4)
    slider.press("Home")
    assert square(page, "video 1, truth") == square(page, "video 1, worst") == (0, 0)
    page.get_by_role("button", name="Previous frame").press("Enter")
    assert place(page) == "7 of 7, predicted"
    page.get_by_role("button", name="Next frame").press("Space")
    assert place(page) == "0 of 7, given"


def test_given_frames_say_so(films: Path, visit: Callable[..., Page]) -> None:
    page = settled(visit(films, reduced_motion="reduce"))
    words = page.locator(".player .told")
    assert words.count() == 4
    border = "getComputedStyle(document.querySelector('.films canvas')).borderColor"
    predicted = page.evaluate(border)
    assert not words.first.is_visible()
    page.get_by_role("button", name="Previous frame").click()
    assert place(page) == "2 of 7, given"
    assert all(words.nth(index).is_visible() for index in range(4))
    assert page.evaluate(border) != predicted


def test_without_javascript_the_sheets_are_images(films: Path, visit: Callable[..., Page]) -> None:
    page = visit(films, java_script_enabled=False)
    assert not page.locator(".playing").is_visible()
    for sheet in (images := page.locator(".player img")).all():
        assert sheet.is_visible()
        assert "the first 3 given" in str(sheet.get_attribute("alt"))
    assert images.count() == 4


@pytest.mark.parametrize("width", [390, 1280])
def test_films_fit_the_screen(films: Path, visit: Callable[..., Page], width: int) -> None:
    size = {"width": width, "height": 800}
    for path in (films, next((films.parent / "runs").glob("*.html"))):
        page = settled(visit(path, viewport=size, reduced_motion="reduce"))
        assert page.evaluate("document.documentElement.scrollWidth") <= width
        assert page.locator(".films canvas").count() == 8 * page.locator(".player").count()


@pytest.mark.parametrize("path", REFERENCE, ids=lambda path: path.parent.name)
def test_the_committed_reports_work(path: Path, visit: Callable[..., Page]) -> None:
    page = visit(path, viewport={"width": 390, "height": 800})
    assert page.evaluate("document.documentElement.scrollWidth") <= 390
    assert all(page.evaluate("[...document.images].map(i => i.complete && i.naturalWidth)"))
    rows = column(page, "neg_log_p")
    page.locator("figure[data-interactive] th[data-column=neg_log_p] button").click()
    numbers = [float(text.split()[0]) for text in column(page, "neg_log_p") if "±" in text]
    assert len(numbers) > 1
    assert numbers == sorted(numbers)
    page.get_by_role("searchbox").fill("shared")
    assert 0 < len(column(page, "neg_log_p")) < len(rows)
