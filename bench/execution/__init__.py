"""Running many runs: one worker executes a run, `local` drives workers over a grid's rows."""
