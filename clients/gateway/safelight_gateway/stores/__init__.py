"""Stores: images and jobs, kept in memory between requests."""
