"""Build hook: pins the siblings of a distribution to the version that all share."""

from typing import Any

from hatchling.metadata.plugin.interface import MetadataHookInterface


class SiblingPins(MetadataHookInterface):
    """Adds `siblings` of pyproject.toml to `dependencies`, each at this distribution's version."""

    def update(self, metadata: dict[str, Any]) -> None:
        """Set the dynamic field `dependencies`."""
        pins = [f"{name}=={metadata['version']}" for name in self.config["siblings"]]
        metadata["dependencies"] = sorted([*self.config["dependencies"], *pins])
