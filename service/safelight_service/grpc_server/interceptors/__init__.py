"""Interceptors of all calls: tracing, access and errors."""
