"""Computing many runs: a schedule gives them to an engine, whose workers compute them."""
