"""Models: loaded from a folder to a pipeline in memory."""
