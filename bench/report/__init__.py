"""Records become a table, figures and pages; one frame feeds every format."""
