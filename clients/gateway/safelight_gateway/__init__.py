"""The HTTP gateway of Safelight: others' text-to-image APIs in front of the gRPC service."""

__version__ = "0.1.0"
