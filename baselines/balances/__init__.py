"""The rules that balance distortion and rate: what weighs the rate in what training descends."""

MODULES = ("elbo", "schedules", "free_bits", "constraints")
"""The files with bundled balances, in the order in which tables list them."""
