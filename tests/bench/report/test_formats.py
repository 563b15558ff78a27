from __future__ import annotations

import csv
import html.parser
import io
import math
import re
import shutil
import subprocess
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st

from bench.report import formats, layout, pages
from bench.report.terminal import console
from tests.bench.report.conftest import realistic

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from bench.report.tables import Table
    from tests.bench.report.conftest import Results

AWKWARD = "npz:/tmp/a_b&c<d>|50%.npz"


@pytest.fixture
def table(results: Results) -> Table:
    """Five decoders: no likelihood, a diverged seed, one seed, a probability, one to beat."""
    for seed in range(3):
        common = {"fd_efficientnet_lite0": 120.5 + seed, "mse": 0.0123 + seed * 1e-4}
        results.add("mse", seed=seed, dataset=AWKWARD, metrics=common)
        metrics = common | {"neg_log_p": -896.1 - 3 * seed, "iwae_64": 905.25 + seed}
        status = "completed" if seed else "diverged"
        results.add("optimal", seed=seed, dataset=AWKWARD, metrics=metrics, status=status)
        results.add("shared", seed=seed, dataset=AWKWARD, metrics={"neg_log_p": -500.0 - seed})
    results.add("gaussian", dataset=AWKWARD, metrics={"neg_log_p": 740.5, "sigma": 1.0})
    results.add("categorical", dataset=AWKWARD, metrics={"neg_log_p": 1100.25})
    return results.table("a_grid")


@pytest.fixture(scope="module")
def several(new_results: Callable[[], Results]) -> Table:
    """Two data sets."""
    return realistic(new_results()).table()


class Cells(html.parser.HTMLParser):
    """The text of every table cell, by row: footnote marks in brackets, best in stars."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.rows: list[list[str]] = []
        self.open = False
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        if tag == "tr":
            self.rows.append([])
        if tag in ("td", "th"):
            self.open = True
            self.rows[-1].append("")
            self.best = ("class", "best") in attrs
        if tag == "sup" and self.open:
            self.rows[-1][-1] += " ["
            self.best = False

    def handle_endtag(self, tag: str) -> None:
        if tag == "sup" and self.open:
            self.rows[-1][-1] += "]"
        self.open &= tag not in ("td", "th")

    def handle_data(self, data: str) -> None:
        if self.open:
            self.rows[-1][-1] += f"**{data}**" if self.best else data


def from_markdown(text: str) -> list[list[list[str]]]:
    """The tables of a text, each its cells row by row; as in `Cells`."""
    tables: list[list[list[str]]] = [[]]
    for line in text.splitlines():
        if line.startswith("| ---"):
            continue
        if line.startswith("|"):
            cells = re.split(r"(?<!\\)\|", line)[1:-1]
            tables[-1].append([re.sub(r"\\(.)", r"\1", cell).strip() for cell in cells])
        elif tables[-1]:
            tables.append([])
    return [table for table in tables if table]


def from_latex(text: str) -> list[list[list[str]]]:
    """The same of LaTeX, without the line of spanning headings."""
    symbols = {value: key for key, value in formats.LATEX.items()} | {"$-$": "-"}
    longest_first = sorted(symbols, key=len, reverse=True)

    def plain(cell: str) -> str:
        bold = re.sub(r"\\textbf\{([^{}]*)\}", r"**\1**", cell)
        marked = re.sub(r"\\textsuperscript\{((?:\\textdagger\{\}|[\d,])+)\}", r" [\1]", bold)
        return re.sub("|".join(map(re.escape, longest_first)), lambda m: symbols[m[0]], marked)

    return [
        [
            [plain(cell).strip() for cell in re.split(r"(?<!\\)&", line.removesuffix("\\\\"))]
            for line in body.splitlines()
            if line.endswith("\\\\") and "multicolumn" not in line
        ]
        for body in re.findall(r"\\toprule(.*?)\\bottomrule", text, re.DOTALL)
    ]


def html_table(table: Table) -> str:
    """The table as the page holds it, every column in sight."""
    shown = layout.layout(table)
    template = pages.TEMPLATES.get_template("table.html")
    return template.render(name="rows", shown=shown, hidden=(), caption=table.caption)


def seen(shown: layout.Layout) -> list[list[str]]:
    """A layout's cells as the parsers above give them back."""

    def text(cell: layout.Cell) -> str:
        marks = f" [{']['.join(cell.marks)}]" if cell.marks else ""
        return (f"**{cell.text}**" if cell.best else cell.text) + marks

    return [[text(cell).strip() for cell in line] for line in (shown.headers, *shown.lines)]


@pytest.mark.parametrize("name", ["table", "several"])
def test_every_text_format_has_the_same_cells(name: str, request: pytest.FixtureRequest) -> None:
    table = request.getfixturevalue(name)
    expected = [seen(layout.layout(table))]
    if across := layout.overview(table):
        heads = [name for name, width in across.spans for _ in range(width)]
        expected.insert(0, seen(across))
        markdown = [f"{span}: {head}" if span else head
                    for span, head in zip(heads, expected[0][0], strict=True)]  # fmt: skip
        assert from_markdown(formats.markdown(table)) == [
            [markdown, *expected[0][1:]],
            *expected[1:],
        ]
    else:
        assert from_markdown(formats.markdown(table)) == expected
    assert from_latex(formats.latex(table)) == expected
    cells = Cells(html_table(table)).rows
    assert [[cell.strip() for cell in row] for row in cells] == expected[-1]


@pytest.mark.parametrize("name", ["table", "several"])
def test_the_cells_are_the_frames_numbers(name: str, request: pytest.FixtureRequest) -> None:
    table = request.getfixturevalue(name)
    header, *lines = from_markdown(formats.markdown(table))[-1]
    columns = layout.default_columns(table)
    assert len(header) == len(columns)
    for line, (_, row) in zip(lines, table.frame.iterrows(), strict=True):
        for column, text in zip(columns, line, strict=True):
            if column not in table.metrics:
                continue
            assert text.startswith("**") == (column in row["best"])
            bare = re.sub(r"\[.\]|±\?|\*\*", "", text)
            numbers = bare.replace("±", " ").split()
            if math.isnan(row[column]):
                assert not numbers
                continue
            half = row[f"{column}_half_width"]
            assert float(numbers[0]) == pytest.approx(
                row[column], abs=0.05 * np.nan_to_num(half), rel=5e-4
            )
            if len(numbers) == 2:
                assert float(numbers[1]) == pytest.approx(half, rel=0.05)
            assert ("±?" in text) == math.isnan(half)


def test_a_published_number_stands_beside_ours_with_the_difference(results: Results) -> None:
    results.add("gaussian", dataset="mnist", metrics={"neg_log_p": 739.125})
    table = results.table("table3")
    shown = layout.layout(table)
    cells = dict(zip(shown.columns, shown.lines[0], strict=True))
    assert cells["published_neg_log_p"].text == "740.5 (-1.4)"
    assert table.frame.loc[0, "published_neg_log_p_difference"] == -1.375


def test_data_sets_stand_side_by_side_with_one_line_a_decoder(several: Table) -> None:
    across = layout.overview(several)
    assert across is not None
    assert across.spans == (("", 1), ("fashion_mnist", 2), ("mnist5k", 2))
    names = [line[0].text for line in across.lines]
    assert names.count("beta (tuned)") == 1  # though each search chose a β of its own
    assert len(names) == len(set(names)) == 7


def test_one_data_set_has_no_overview(table: Table) -> None:
    assert layout.overview(table) is None


def test_the_csv_gives_the_frame_back_to_the_last_digit(table: Table) -> None:
    read = list(csv.DictReader(io.StringIO(formats.csv(table))))
    rows = table.frame.to_dict("records")
    assert [list(line) for line in read] == [list(table.frame.columns.drop("key"))] * len(rows)
    for line, row in zip(read, rows, strict=True):
        assert line["dataset"] == AWKWARD
        assert tuple(line["ids"].split()) == row["ids"]
        assert tuple(line["best"].split()) == row["best"]
        for column in table.frame.select_dtypes("number"):
            assert (
                line[column] == "" if pd.isna(row[column]) else float(line[column]) == row[column]
            )


def test_special_characters_are_inert(table: Table) -> None:
    assert "a_b&c<d>" not in html_table(table)
    assert "a_b&c<d>" not in formats.latex(table)
    assert "a\\_b\\&c\\textless{}d\\textgreater{}\\textbar{}50\\%.npz" in formats.latex(table)


@pytest.mark.parametrize("name", ["table", "several"])
def test_a_caption_may_be_short_or_left_to_the_author(
    name: str, request: pytest.FixtureRequest
) -> None:
    table = request.getfixturevalue(name)
    full, short, none = (formats.latex(table, caption) for caption in ("full", "short", "none"))
    assert from_latex(full) == from_latex(short) == from_latex(none)
    captions = re.findall(r"\\caption\{(.*)\}", short)
    assert len(captions) == short.count("\\begin{table}")
    assert all(len(caption) < 250 and "95" in caption for caption in captions)
    assert "\\caption" not in none
    assert "\\label" not in none


def test_a_short_caption_still_says_that_runs_are_missing(results: Results) -> None:
    results.add("gaussian")
    assert "Partial: 1 of 3 runs" in formats.latex(results.table(expected=3), "short")


def test_one_epoch_is_one_epoch(results: Results) -> None:
    results.add("gaussian", training={"epochs": 1})
    assert any(sentence.startswith("Training: 1 epoch, ") for sentence in results.table().caption)
    results.add("gaussian", training={"epochs": 3})
    text = " ".join(results.table().caption)
    assert "Training: 1 or 3 epochs, " in text


def test_diverged_and_missing_intervals_are_visible(table: Table) -> None:
    shown = layout.layout(table)
    rows = {
        line[0].text: dict(zip(shown.columns, map(str, line), strict=True)) for line in shown.lines
    }
    assert rows["optimal"]["n"] == "2 (1 diverged)"
    assert rows["gaussian"]["neg_log_p"] == "740.5 ±?"
    notes = {note.mark: note.text for note in shown.footnotes}
    assert "not a likelihood" in notes[rows["mse"]["neg_log_p"].strip("[]")]


def test_a_probability_has_a_dagger_and_is_never_best_beside_densities(table: Table) -> None:
    shown = layout.layout(table)
    cells = {line[0].text: dict(zip(shown.columns, line, strict=True)) for line in shown.lines}
    assert cells["categorical"]["neg_log_p"].marks == ("†",)
    assert not cells["categorical"]["neg_log_p"].best
    assert cells["optimal"]["neg_log_p"].best
    assert "8-bit" in next(note.text for note in shown.footnotes if note.mark == "†")


def test_a_note_on_every_number_hangs_on_the_heading_and_on_the_best(results: Results) -> None:
    for seed in range(3):
        for decoder, distance in (("optimal", 80.0), ("shared", 120.0)):
            results.add(decoder, seed=seed, metrics={"fd_efficientnet_lite0": distance + seed})
    shown = layout.layout(results.table())
    column = shown.columns.index("fd_efficientnet_lite0")
    (mark,) = shown.headers[column].marks
    assert {line[0].text: line[column].marks for line in shown.lines} == {
        "optimal": (mark,),
        "shared": (),
    }


@pytest.mark.parametrize("width", [40, 80, 120, 160])
def test_a_narrow_terminal_loses_columns_but_no_row_and_no_digit(table: Table, width: int) -> None:
    text = console(table, width)
    for part in ("-901 ± 19 *", "740.5 ±?", "2 (1 diverged)", "optimal", "Training: 10 epochs"):
        assert part in " ".join(text.split())
    if width >= 120:
        assert max(map(len, text.splitlines())) <= width


@pytest.mark.parametrize("width", [40, 80, 160])
def test_what_tells_rows_apart_is_never_left_out(results: Results, width: int) -> None:
    for model in ("conv_vae", "linear_vae"):
        for decoder in ("shared", "optimal"):
            metrics = {"neg_log_p": -900.0, "mse": 0.01, "sigma": 0.2, "rate": 20.0}
            results.add(decoder, model=model, metrics=metrics)
    table = console(results.table(), width).partition("In the report")[0]
    assert table.count("conv_vae") == table.count("linear_vae") == 2


def test_notes_of_a_column_left_out_hang_on_the_row(table: Table) -> None:
    shown = layout.layout(table, ["decoder", "n"])
    marks = {line[0].text: line[0].marks for line in shown.lines}
    assert marks == {
        "mse": ("1", "2"),
        "gaussian": (),
        "optimal": ("2",),
        "categorical": ("†",),
    } | {"shared": ()}


@pytest.mark.parametrize(
    ("mean", "half", "text"),
    [
        (-896.13, 3.21, "-896.1 ± 3.2"),
        (-896.13, 321.0, "-896 ± 321"),
        (0.0123456, 0.00042, "0.01235 ± 0.00042"),
        (740.5, math.nan, "740.5 ±?"),
        (1.0, 0.0, "1.000"),
        (0.0, math.nan, "0.000 ±?"),
        (7.23e-6, 9.4e-7, "7.2e-06 ± 9.4e-07"),
        (123456.7, math.nan, "123457 ±?"),
        (-0.4, 480.0, "0 ± 480"),
    ],
)
def test_a_number_has_the_digits_that_its_interval_allows(
    mean: float, half: float, text: str
) -> None:
    assert layout.with_interval(mean, half) == text


@given(st.floats(-1e8, 1e8))
def test_a_number_without_interval_keeps_four_digits(value: float) -> None:
    assert float(layout.significant(value)) == pytest.approx(value, rel=5.1e-4, abs=1e-300)


@pytest.mark.slow
def test_the_latex_compiles(several: Table, table: Table, tmp_path: Path) -> None:
    compiler = shutil.which("pdflatex") or shutil.which("tectonic")
    if compiler is None:
        pytest.skip("neither pdflatex nor tectonic is installed")
    body = "".join(map(formats.latex, (several, table)))
    source = tmp_path / "paper.tex"
    source.write_text(
        "\\documentclass{article}\\usepackage{booktabs,graphicx}\\begin{document}\n"
        f"{body}\\end{{document}}\n"
    )
    stop = [] if compiler.endswith("tectonic") else ["-interaction=nonstopmode", "-halt-on-error"]
    done = subprocess.run([compiler, *stop, source.name], cwd=tmp_path, capture_output=True)
    assert done.returncode == 0, done.stdout[-2000:].decode(errors="replace")
    assert (tmp_path / "paper.pdf").stat().st_size > 10_000
