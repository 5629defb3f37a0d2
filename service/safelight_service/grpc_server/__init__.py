"""gRPC edge: the only part of the service that uses the contract's messages."""
