"""One pipeline: what it takes, and what stands in for its modules."""
