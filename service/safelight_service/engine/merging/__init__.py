"""Merging: one forward of the denoiser for the images of several generations."""
