"""What tests, benchmarks and scripts share: real services, recorders, tiny pipelines, clocks.

No distribution contains this package.
"""
