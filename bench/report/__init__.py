"""Records become a table, figures and a page; one pandas frame feeds every format."""

from bench.report.formats import console
from bench.report.pages import FORMATS, write
from bench.report.tables import Table, build

__all__ = ["FORMATS", "Table", "build", "console", "write"]
