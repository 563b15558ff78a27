"""A grid: YAML in, rows of runs out."""
