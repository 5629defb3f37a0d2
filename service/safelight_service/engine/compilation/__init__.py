"""Compilation: forwards that were compiled ahead."""
