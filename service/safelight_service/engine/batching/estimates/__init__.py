"""Estimates: measured costs, and what they say about the work to come."""
