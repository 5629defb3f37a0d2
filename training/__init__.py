"""Training of the embedded text-to-image model, from nothing, on a processor."""
