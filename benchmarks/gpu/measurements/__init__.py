"""Measurements: what each stage times, in this process or over gRPC."""
