"""What tests and benchmarks of provenance share."""
