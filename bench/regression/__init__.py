"""Candidate records against baseline records."""
