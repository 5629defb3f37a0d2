"""What all parts share: requests, events, models, errors. Imports neither gRPC nor torch."""
