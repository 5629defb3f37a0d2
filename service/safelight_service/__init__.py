"""Safelight: a gRPC service that serves text-to-image diffusers pipelines."""

__version__ = "0.1.0"
