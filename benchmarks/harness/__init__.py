"""Harness: the bare pipeline to compare with, statistics, and the files of results."""
