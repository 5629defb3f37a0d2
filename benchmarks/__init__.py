"""Benchmarks: the commands behind every figure in docs/performance.md."""
