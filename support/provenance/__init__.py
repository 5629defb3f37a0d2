"""Support for the tests and benchmarks of provenance."""
