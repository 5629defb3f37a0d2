"""Chart: renders `deploy/helm/safelight` with Helm."""

import subprocess
import sys
from functools import cache
from pathlib import Path
from typing import Any

from ruamel.yaml import YAML

ROOT = Path(__file__).parents[2]
CHART = ROOT / "deploy" / "helm" / "safelight"
EXAMPLES = tuple(sorted(file.stem for file in (CHART / "ci").glob("*.yaml")))
"""Names of the example values, which `render_example` takes."""

_NAMESPACE = "images"

HELM = Path(sys.executable).parent / "helm"
"""Helm as `scripts/install-helm` installs it."""

Manifest = dict[str, Any]


class RenderingError(Exception):
    """Helm refuses the values; the message is what it prints."""


def render(*options: str, values: str = "") -> list[Manifest]:
    """Render the chart.

    Args:
        options: of `helm template`, such as `--values` and a file.
        values: further values, in YAML.

    Raises:
        RenderingError: the values are not allowed.
    """
    command = [str(HELM), "template", "test", str(CHART), "--namespace", _NAMESPACE]
    command += [*options, "--values", "-"]
    result = subprocess.run(command, input=values, capture_output=True, text=True, check=False)
    if result.returncode:
        raise RenderingError(result.stderr)
    return read_manifests(result.stdout)


@cache
def render_example(name: str) -> list[Manifest]:
    """Render the chart with values of its folder `ci`, once in a process."""
    return render("--values", str(CHART / "ci" / f"{name}.yaml"))


def read_manifests(text: str) -> list[Manifest]:
    """Parse a file of manifests."""
    return [manifest for manifest in YAML(typ="safe").load_all(text) if manifest]


def find(manifests: list[Manifest], kind: str, name: str) -> Manifest:
    """Return the manifest of this kind and full name."""
    (found,) = [
        manifest
        for manifest in manifests
        if (manifest["kind"], manifest["metadata"]["name"]) == (kind, name)
    ]
    return found
