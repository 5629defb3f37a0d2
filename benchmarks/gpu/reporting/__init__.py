"""Reporting: recorded figures as goals, tables and a plot."""
