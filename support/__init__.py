"""Support for tests, benchmarks and scripts: real services, recorders, tiny pipelines, clocks.

No distribution contains this package.
"""
