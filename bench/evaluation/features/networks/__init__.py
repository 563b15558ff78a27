"""The feature networks, one a file; `bench.evaluation.features.base` finds them all."""
