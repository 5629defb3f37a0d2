"""Support of a fleet's tests and benchmarks."""
