"""Tiny pipelines with random weights, one for each supported family."""
