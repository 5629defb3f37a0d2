"""A copy of a tiny model to spoil, as people and the Hub spoil theirs."""

import json
import pickle
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

from safelight_service.engine.models.loaded_model import LoadedModel
from safelight_service.engine.models.loading import load_model
from safelight_service.settings import ModelSettings
from support.engine.tiny_models import MERGING


class Snapshot:
    """A model's folder, and a canary that is there once any code of the model has run."""

    def __init__(self, folder: Path, canary: Path) -> None:
        self.folder = folder
        self.canary = canary

    def write_code(self, name: str) -> None:
        """Write a Python file that makes the canary."""
        text = f"open({str(self.canary)!r}, 'w')\nclass Custom: ...\n"
        (self.folder / name).write_text(text)

    def write_pickle(self, name: str) -> None:
        """Write a pickle that makes the canary."""
        (self.folder / name).write_bytes(pickle.dumps(_Touch(self.canary)))

    def edit_json(self, name: str, edit: Callable[[dict[str, Any]], object]) -> None:
        """Change a JSON file in place."""
        path = self.folder / name
        content = json.loads(path.read_text())
        edit(content)
        path.write_text(json.dumps(content))

    def rename_component(self, name: str, library: str, class_name: str) -> None:
        """Make the model index name another class."""
        self.edit_json(
            "model_index.json", lambda index: index.update({name: [library, class_name]})
        )

    def rename(self, component: str, name: str, new_name: str) -> None:
        """Rename a file of a component."""
        (self.folder / component / name).rename(self.folder / component / new_name)

    def remove(self, name: str) -> None:
        """Remove a folder or a file."""
        path = self.folder / name
        if path.is_dir():
            shutil.rmtree(path)
        else:
            path.unlink()

    def load(self, **settings: Any) -> LoadedModel:
        """Load the model, with settings besides its source."""
        values = {"name": "x", "source": str(self.folder), "device": "cpu", "warm_up": False}
        return load_model(ModelSettings(**values | settings), MERGING)


class _Touch:
    def __init__(self, path: Path) -> None:
        self._path = path

    def __reduce__(self) -> Any:
        return open, (str(self._path), "w")
