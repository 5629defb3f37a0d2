"""Benchmarks: every figure in docs/performance.md, and the command that repeats it."""
