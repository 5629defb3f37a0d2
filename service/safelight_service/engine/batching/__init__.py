"""Batching: the images that share the next forward."""
