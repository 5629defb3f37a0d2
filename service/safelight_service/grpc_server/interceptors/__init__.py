"""Interceptors of all calls: tracing, access, limits and errors."""
