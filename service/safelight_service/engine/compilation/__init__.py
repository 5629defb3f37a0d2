"""Compilation: forwards compiled ahead of their use."""
