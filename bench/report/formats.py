"""The table as Markdown, CSV and LaTeX: one frame, one layout, nothing computed here."""

from __future__ import annotations

import re
from collections.abc import Iterator

from bench.report.captions import SHORT
from bench.report.layout import Cell, Layout, layout, overview, title
from bench.report.tables import Table


def csv(table: Table) -> str:
    """Every column but the key in full precision; what holds several values as text, joined."""
    frame = table.frame.drop(columns="key").assign(
        **{name: list(map(" ".join, table.frame[name])) for name in ("ids", "best", "tested")},
        notes=["; ".join(f"{n.column}: {n.text}" for n in notes) for notes in table.frame["notes"]],
    )
    text: str = frame.to_csv(index=False, lineterminator="\n")
    return text


# -- Markdown ----------------------------------------------------------------------------------


def markdown(table: Table) -> str:
    """GitHub tables (data sets across first, where several are) with footnotes and caption."""
    parts = [f"# {escaped(title(table))}"]
    if across := overview(table):
        parts += _markdown_table(across)
    parts += _markdown_table(layout(table))
    caption = "\n".join(f"- {escaped(sentence)}" for sentence in table.caption)
    return "\n\n".join([*parts, caption]) + "\n"


def _markdown_table(shown: Layout) -> Iterator[str]:
    spans = [name for name, width in shown.spans for _ in range(width)]
    heads = [
        escaped(f"{span}: " if span else "") + _markdown_cell(head)
        for span, head in zip(spans or [""] * len(shown.headers), shown.headers, strict=True)
    ]
    sides = ["---" if is_text else "---:" for is_text in shown.text_columns]
    cells = [[_markdown_cell(cell) for cell in line] for line in shown.lines]
    rows = [heads, sides, *cells]
    yield "\n".join(f"| {' | '.join(row)} |" for row in rows)
    for note in shown.footnotes:
        yield f"\\[{note.mark}\\] {escaped(note.text)}"


def _markdown_cell(cell: Cell) -> str:
    text = escaped(cell.text)
    marks = "".join(f" \\[{mark}\\]" for mark in cell.marks)
    return (f"**{text}**" if cell.best else text) + marks


def escaped(text: str) -> str:
    """A text as Markdown that shows it literally."""
    return re.sub(r"([\\`*_\[\]<>|&])", r"\\\1", text)


# -- LaTeX -------------------------------------------------------------------------------------


def latex(table: Table, caption: str = "full") -> str:
    """`table` environments that need the packages booktabs and graphicx.

    Where there are several data sets, the first has them across.

    Arguments:
        caption: one of `captions.LENGTHS`; without one there is no label either.
    """
    lines = ["% needs \\usepackage{booktabs,graphicx}"]
    across = overview(table)
    if across:
        words = "The caption below holds here too." if caption == "full" else SHORT
        lines += _latex_table(across, _caption(table, caption, words), table.grid)
    words = " ".join(table.caption) if caption == "full" else SHORT
    label = f"{table.grid}-rows" if across else table.grid
    lines += _latex_table(layout(table), _caption(table, caption, words), label)
    return "\n".join(lines) + "\n"


def _caption(table: Table, length: str, words: str) -> str | None:
    if length == "none":
        return None
    partial = f"{table.caption[0]} " if table.partial and length == "short" else ""
    return f"{_latex(title(table))}. {_latex(partial + words)}"


def _latex_table(shown: Layout, caption: str | None, label: str) -> Iterator[str]:
    sides = "".join("l" if is_text else "r" for is_text in shown.text_columns)
    yield from ("\\begin{table}", "\\centering")
    if caption is not None:
        yield from (f"\\caption{{{caption}}}", f"\\label{{tab:{label}}}")
    yield "\\resizebox{\\linewidth}{!}{%"
    yield from (f"\\begin{{tabular}}{{{sides}}}", "\\toprule")
    if shown.spans:
        yield (
            " & ".join(
                f"\\multicolumn{{{width}}}{{c}}{{{_latex(name)}}}" for name, width in shown.spans
            )
            + " \\\\"
        )
        first = 1
        for name, width in shown.spans:
            if name:
                yield f"\\cmidrule(lr){{{first}-{first + width - 1}}}"
            first += width
    yield _latex_line(map(_latex_cell, shown.headers))
    yield "\\midrule"
    for line in shown.lines:
        yield _latex_line(map(_latex_cell, line))
    yield from ("\\bottomrule", "\\end{tabular}}")
    for note in shown.footnotes:
        yield f"\\par\\footnotesize{_superscript(note.mark)}{_latex(note.text)}"
    yield "\\end{table}"


def _latex_line(cells: Iterator[str]) -> str:
    return " & ".join(cells) + " \\\\"


def _latex_cell(cell: Cell) -> str:
    text = _latex(cell.text)
    return (f"\\textbf{{{text}}}" if cell.best else text) + _superscript(",".join(cell.marks))


def _superscript(marks: str) -> str:
    return f"\\textsuperscript{{{_latex(marks)}}}" if marks else ""


LATEX = {
    **{character: f"\\{character}" for character in "#$%&_{}"},
    "\\": "\\textbackslash{}",
    "~": "\\textasciitilde{}",
    "^": "\\textasciicircum{}",
    "<": "\\textless{}",
    ">": "\\textgreater{}",
    "|": "\\textbar{}",
    "†": "\\textdagger{}",
    "…": "\\dots{}",
    "±": "$\\pm$",
    "σ²": "$\\sigma^2$",
    "σ": "$\\sigma$",
    "β": "$\\beta$",
    "μ": "$\\mu$",
    "≤": "$\\leq$",
    "≥": "$\\geq$",
    "×": "$\\times$",
    "↓": "$\\downarrow$",
    "↑": "$\\uparrow$",
    "·": "$\\cdot$",
}
# A longer key first (σ² before σ); a hyphen before a number or a logarithm is a minus; a character
# that pdflatex's fonts lack would stop it.
_LATEX = re.compile(
    "|".join([*map(re.escape, sorted(LATEX, key=len)[::-1]), r"-(?=\d|log)", r"[^\x00-\xff]"])
)


def _latex(text: str) -> str:
    return _LATEX.sub(lambda found: LATEX.get(found[0]) or _latex_other(found[0]), text)


def _latex_other(text: str) -> str:
    return "$-$" if text == "-" else f"[U+{ord(text):04X}]"
