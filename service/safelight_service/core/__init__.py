"""Requests, events, models and errors, shared by all parts; imports neither gRPC nor torch."""
