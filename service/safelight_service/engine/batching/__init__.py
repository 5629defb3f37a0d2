"""Batching: which images share the next forward."""
