"""Benchmark of fleets: engines on Ray beside a local engine."""
