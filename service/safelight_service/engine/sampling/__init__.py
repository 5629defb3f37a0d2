"""Sampling: schedulers, their steps and their noise."""
