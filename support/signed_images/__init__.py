"""Signed images: certificates, manifests and pictures of one test, and files that are damaged."""
