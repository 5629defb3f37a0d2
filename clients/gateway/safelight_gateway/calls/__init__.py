"""Calls to the service: their callers, and each caller's share of them."""
