"""The distributions of this repository, as their build backend sees them."""

from pathlib import Path

from hatchling.metadata.core import ProjectMetadata
from hatchling.plugin.manager import PluginManager

ROOT = Path(__file__).parents[1]
FOLDERS = ("settings", "clients/python", "service", "clients/gateway")
"""Folders of the distributions, each after those that it requires."""


def read_metadata(folder: str, root: Path = ROOT) -> ProjectMetadata[PluginManager]:
    """Return the metadata that a wheel of this folder below `root` would have."""
    metadata = ProjectMetadata(str(root / folder), PluginManager())
    metadata.validate_fields()
    return metadata
