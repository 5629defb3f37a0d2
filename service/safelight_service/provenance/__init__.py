"""Provenance: marks images as generated, in metadata and in signed manifests."""
