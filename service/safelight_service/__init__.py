"""Safelight: a gRPC service that serves text-to-image diffusers pipelines."""
