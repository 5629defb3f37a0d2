"""Floods of connections and calls by a stranger, and their cost to other callers."""
