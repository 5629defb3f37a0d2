"""Measurements: timings of forwards, images and calls, shared by the stages."""
