"""Records become a table, figures and a page; one pandas frame feeds every format."""

from bench.report.pages import FORMATS, write
from bench.report.tables import Table, build
from bench.report.terminal import console

__all__ = ["FORMATS", "Table", "build", "console", "write"]
