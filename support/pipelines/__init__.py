"""Tiny pipelines with random weights, one of each family that is served."""
