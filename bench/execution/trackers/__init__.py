"""Trackers: a grid's curves and measures, copied to a display; nothing reads them back."""
