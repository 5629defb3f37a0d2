"""Training: the embedded text-to-image model, from random weights, on a CPU."""
