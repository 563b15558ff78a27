"""The table as Markdown, CSV, LaTeX, HTML and for the terminal, from one layout of its frame."""

from __future__ import annotations

import io
import math
import re
import textwrap
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from typing import TYPE_CHECKING, Any

from bench.evaluation.names import METRICS
from bench.progress import duration
from bench.report.captions import metric_name
from bench.report.tables import Line, Note, Table

if TYPE_CHECKING:
    import jinja2

TEXT_COLUMNS = ("dataset", "model", "decoder")
ARROWS = {"lower": " ↓", "higher": " ↑", None: ""}
GAP, FOLD = 3, 36
"""Characters between a terminal's columns, and of a name before it folds."""
TINY = 1e-4
"""Below it a number is written with an exponent."""
DIGITS = 4
"""Significant digits of a number without an interval; with one, its second digit is the last."""


@dataclass(frozen=True)
class Cell:
    """A cell's text and the numbers of the footnotes that hang on it, from 1."""

    text: str
    notes: tuple[int, ...] = ()

    def __str__(self) -> str:
        return " ".join([self.text, *(f"[{number}]" for number in self.notes)]).strip()


@dataclass(frozen=True)
class Layout:
    """What a reader sees of a table: headers, cells and footnotes, all text."""

    columns: tuple[str, ...]
    headers: tuple[str, ...]
    lines: tuple[tuple[Cell, ...], ...]
    footnotes: tuple[str, ...]


# -- layout ------------------------------------------------------------------------------------


def layout(table: Table, columns: Sequence[str] | None = None) -> Layout:
    """The table as text; `columns` are the frame's, by default those that say something."""
    chosen = tuple(columns or default_columns(table))
    footnotes: dict[str, int] = {}
    lines = tuple(
        tuple(_cell(row, column, chosen, footnotes) for column in chosen)
        for row in table.frame.to_dict("records")
    )
    headers = tuple(header(column, table) for column in chosen)
    return Layout(chosen, headers, lines, tuple(footnotes))


def default_columns(table: Table) -> tuple[str, ...]:
    """Every column with something to tell; a single data set or model is in the title."""
    frame = table.frame
    varying = [column for column in ("dataset", "model") if frame[column].nunique() > 1]
    paper = [
        column for column in ("published_neg_log_p", "published_fid") if frame[column].notna().any()
    ]
    return (*varying, "decoder", "n", *table.metrics, *paper, "runs", "seconds")


def title(table: Table) -> str:
    """The grid's name, and the data set and model where there is but one."""
    single = [c for c in ("dataset", "model") if table.frame[c].nunique() == 1]
    return " · ".join([table.grid, *(table.frame[column].iloc[0] for column in single)])


def header(column: str, table: Table) -> str:
    """A column's heading, with an arrow to where better is."""
    if column.startswith("published_"):
        tables = table.frame["published_table"].dropna().unique()
        what = metric_name(column.removeprefix("published_"))
        return f"{what}, paper" + (f" (Table {tables[0]})" if len(tables) == 1 else "")
    if column in ("seconds", "tuning_seconds"):
        return column.replace("seconds", "time").replace("_", " ")
    return metric_name(column) + ARROWS[_directions().get(_generic(column))]


@cache
def _directions() -> dict[str, Any]:
    return {metric.name: metric.better for metric in METRICS}


def _generic(metric: str) -> str:
    return re.sub(r"^iwae_\d+$", "iwae_K", re.sub(r"^fd_\w+$", "fd_<extractor>", metric))


def _cell(row: Line, column: str, columns: Sequence[str], footnotes: dict[str, int]) -> Cell:
    # A note on a column that is not shown still has to reach the reader: it hangs on the decoder.
    notes: list[Note] = [
        note
        for note in row["notes"]
        if note.column == column or (column == "decoder" and note.column not in columns)
    ]
    numbers = tuple(footnotes.setdefault(note.text, len(footnotes) + 1) for note in notes)
    return Cell(_cell_text(row, column), numbers)


def _cell_text(row: Line, column: str) -> str:
    value = row[column]
    if column in TEXT_COLUMNS:
        return str(value)
    if column == "n":
        lost = [f"{row[status]} {status}" for status in ("diverged", "failed") if row[status]]
        return f"{value} ({', '.join(lost)})" if lost else str(value)
    if column in ("seconds", "tuning_seconds"):
        return duration(value)
    if math.isnan(value):
        return ""
    if column.startswith("published_"):
        return f"{value:g}"
    if f"{column}_half_width" in row:
        return with_interval(value, row[f"{column}_half_width"])
    return str(value) if isinstance(value, int) else significant(value)


def significant(value: float) -> str:
    """The value with four significant digits and every digit before the point."""
    if abs(value) < TINY and value:
        return f"{value:.{DIGITS - 1}e}"
    return f"{value:.{_decimals(value, DIGITS)}f}"


def with_interval(mean: float, half_width: float) -> str:
    """`-896.1 ± 3.2`: the decimals that the half-width's two digits need; `±?` if it is NaN.

    A half-width of zero (a σ that is fixed) is left out.
    """
    if math.isnan(half_width):
        return f"{significant(mean)} ±?"
    if half_width == 0:
        return significant(mean)
    if max(abs(mean), half_width) < TINY:
        return f"{mean:.1e} ± {half_width:.1e}"
    decimals = _decimals(half_width, 2)
    return f"{mean:.{decimals}f} ± {half_width:.{decimals}f}"


def _decimals(value: float, digits: int) -> int:
    size = math.floor(math.log10(abs(value))) if value else 0
    return max(0, digits - 1 - size)


# -- formats -----------------------------------------------------------------------------------


def csv(table: Table) -> str:
    """Every column of the frame in full precision; `ids` and `notes` as text, joined."""
    frame = table.frame.assign(
        ids=[" ".join(ids) for ids in table.frame["ids"]],
        notes=["; ".join(f"{n.column}: {n.text}" for n in notes) for notes in table.frame["notes"]],
    )
    text: str = frame.to_csv(index=False, lineterminator="\n")
    return text


def markdown(table: Table) -> str:
    """A GitHub table with its title, footnotes and caption."""
    shown = layout(table)
    sides = ["---" if column in TEXT_COLUMNS else "---:" for column in shown.columns]
    cells = [[_markdown(cell.text) + _marks(cell) for cell in line] for line in shown.lines]
    rows = [[_markdown(text) for text in shown.headers], sides, *cells]
    body = "\n".join(f"| {' | '.join(row)} |" for row in rows)
    notes = [
        f"\\[{number}\\] {_markdown(text)}" for number, text in enumerate(shown.footnotes, start=1)
    ]
    caption = _markdown(" ".join(table.caption))
    return "\n\n".join([f"# {_markdown(title(table))}", body, *notes, caption]) + "\n"


def _markdown(text: str) -> str:
    return re.sub(r"([\\`*_\[\]<>|&])", r"\\\1", text)


def _marks(cell: Cell) -> str:
    return "".join(f" \\[{number}\\]" for number in cell.notes)


def latex(table: Table) -> str:
    """A `table` environment that needs the packages booktabs and graphicx."""
    shown = layout(table)
    sides = "".join("l" if column in TEXT_COLUMNS else "r" for column in shown.columns)
    lines = [
        "% needs \\usepackage{booktabs,graphicx}",
        "\\begin{table}",
        "\\centering",
        f"\\caption{{{_latex(title(table))}. {_latex(' '.join(table.caption))}}}",
        f"\\label{{tab:{table.grid}}}",
        "\\resizebox{\\linewidth}{!}{%",
        f"\\begin{{tabular}}{{{sides}}}",
        "\\toprule",
        " & ".join(_latex(text) for text in shown.headers) + " \\\\",
        "\\midrule",
        *(
            " & ".join(_latex(cell.text) + _superscript(cell) for cell in line) + " \\\\"
            for line in shown.lines
        ),
        "\\bottomrule",
        "\\end{tabular}}",
        *(
            f"\\par\\footnotesize\\textsuperscript{{{number}}}{_latex(text)}"
            for number, text in enumerate(shown.footnotes, start=1)
        ),
        "\\end{table}",
    ]
    return "\n".join(lines) + "\n"


LATEX = {
    **{character: f"\\{character}" for character in "#$%&_{}"},
    "\\": "\\textbackslash{}",
    "~": "\\textasciitilde{}",
    "^": "\\textasciicircum{}",
    "<": "\\textless{}",
    ">": "\\textgreater{}",
    "±": "$\\pm$",
    "σ²": "$\\sigma^2$",
    "σ": "$\\sigma$",
    "β": "$\\beta$",
    "μ": "$\\mu$",
    "≤": "$\\leq$",
    "≥": "$\\geq$",
    "↓": "$\\downarrow$",
    "↑": "$\\uparrow$",
    "·": "$\\cdot$",
}
# A longer key first (σ² before σ); a hyphen before a number or a logarithm is a minus.
_LATEX = re.compile("|".join([*map(re.escape, sorted(LATEX, key=len)[::-1]), r"-(?=\d|log)"]))


def _latex(text: str) -> str:
    return _LATEX.sub(lambda found: LATEX.get(found[0], "$-$"), text)


def _superscript(cell: Cell) -> str:
    numbers = ",".join(map(str, cell.notes))
    return f"\\textsuperscript{{{numbers}}}" if numbers else ""


def templates() -> jinja2.Environment:
    """The page's templates; what they are given is escaped."""
    import jinja2

    return jinja2.Environment(
        loader=jinja2.PackageLoader("bench.report"),
        autoescape=True,
        trim_blocks=True,
        lstrip_blocks=True,
        undefined=jinja2.StrictUndefined,
    )


def html(table: Table) -> str:
    """The table with its footnotes and caption as a fragment of a page."""
    return (
        templates()
        .get_template("table.html")
        .render(layout=layout(table), caption=table.caption, text_columns=TEXT_COLUMNS)
    )


def console(table: Table, width: int = 160) -> str:
    """The table with footnotes and caption for a terminal of `width` columns, plain text.

    Where not all columns fit, the least important ones are left out and named below.
    """
    from rich import box
    from rich.console import Console
    from rich.markup import escape
    from rich.table import Table as Grid

    shown, left_out = _fitting(table, width)
    widths = _widths(shown)
    grid = Grid(title=title(table), title_justify="left", box=box.SIMPLE_HEAD, show_edge=False)
    for column, text, needed in zip(shown.columns, shown.headers, widths, strict=True):
        # Headings break at spaces and long names fold; a number stays whole.
        if column in TEXT_COLUMNS:
            grid.add_column(text, overflow="fold", max_width=needed)
        else:
            grid.add_column("\n".join(textwrap.wrap(text, needed)), justify="right", no_wrap=True)
    for line in shown.lines:
        grid.add_row(*(escape(str(cell)) for cell in line))
    # What cannot be left out is printed, however narrow the terminal.
    width = max(width, _total(widths))
    written = io.StringIO()
    output = Console(file=written, width=width, color_system=None, highlight=False)
    output.print(grid)
    words = [f"[{number}] {text}" for number, text in enumerate(shown.footnotes, start=1)]
    if left_out:
        words.append(f"In the report, not here: {'; '.join(left_out)}.")
    for text in ["", *words, "", " ".join(table.caption)]:
        output.print(text, markup=False)
    return "\n".join(line.rstrip() for line in written.getvalue().splitlines())


EXPENDABLE = (
    "beta_effective",
    "rate",
    "neg_log_p_fitted_sigma",
    "mse",
    "model",
    "published_fid",
    "sigma",
    "runs",
)
"""What a narrow terminal does without, first to last."""


def _fitting(table: Table, width: int) -> tuple[Layout, list[str]]:
    columns, left_out = list(default_columns(table)), []
    shown = layout(table, columns)
    for column in EXPENDABLE:
        if _total(_widths(shown)) <= width:
            break
        if column in columns:
            columns.remove(column)
            left_out.append(header(column, table))
            shown = layout(table, columns)
    return shown, left_out


def _widths(shown: Layout) -> list[int]:
    from rich.cells import cell_len

    return [
        min(longest, FOLD) if column in TEXT_COLUMNS else longest
        for column, heading, *cells in zip(shown.columns, shown.headers, *shown.lines, strict=True)
        for longest in [max(map(cell_len, [*heading.split(), *map(str, cells)]))]
    ]


def _total(widths: Sequence[int]) -> int:
    return sum(widths) + GAP * len(widths)
