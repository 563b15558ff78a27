"""Feature networks for distances between image sets."""
