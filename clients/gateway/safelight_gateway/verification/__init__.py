"""Verification: the claims of an image about its origin, checked in a process of its own."""
