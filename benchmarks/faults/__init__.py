"""Faults under load: connections that break, and services that end."""
