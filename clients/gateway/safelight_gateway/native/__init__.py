"""The native API: the gRPC contract over HTTP."""
