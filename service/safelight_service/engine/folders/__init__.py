"""Folders: check what a model folder holds, and load the components of its pipeline."""
