"""Callers: tokens, and the permissions and limits of each."""
