"""Deployment files: how the chart is rendered, checked and kept in step with the code."""
