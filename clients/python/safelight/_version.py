"""The version of all distributions: only this line holds it, and their builds read it."""

__version__ = "0.1.0"
