"""The gRPC edge: the only part of the service that knows the contract's messages."""
