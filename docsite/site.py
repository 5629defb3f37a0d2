"""Site: all sources of the documentation site, and the check of its navigation."""

import tomllib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from docsite import client, contract, errors, settings
from docsite.pages import Pages
from safelight_gateway.settings import Settings as GatewaySettings
from safelight_service.settings import Settings as ServiceSettings

REFERENCES = {
    str(contract.PROTO): "reference/contract.md",
    "clients/python/safelight": "reference/python.md",
    "clients/gateway/safelight_gateway/settings.py": "reference/gateway-settings.md",
    "service/safelight_service/grpc_server/status.py": "reference/errors.md",
    "service/safelight_service/settings": "reference/settings.md",
}
"""The page of the reference that stands for a source file or folder."""

_RULES = "[Settings](../settings.md#where-settings-come-from) explains files, variables and paths."


class NavigationError(Exception):
    """The navigation names a page that does not exist, or omits one."""


def write(root: Path, folder: Path) -> None:
    """Write the sources of the site of the repository at `root` to `folder`.

    Raises:
        MissingTargetError: a link leads nowhere.
        NavigationError: the navigation and the pages differ.
    """
    Pages(root, folder, REFERENCES).copy()
    for place, text in render_reference(root).items():
        path = folder / place
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    check_navigation(root, folder)


def render_reference(root: Path) -> dict[str, str]:
    """Return the text of each page of the reference, by its place in the site."""
    return {
        "reference/contract.md": contract.render(root),
        "reference/python.md": client.render(),
        "reference/settings.md": settings.render(
            ServiceSettings, "Settings of the service", _RULES
        ),
        "reference/gateway-settings.md": settings.render(
            GatewaySettings, "Settings of the gateway", _RULES
        ),
        "reference/errors.md": errors.render(),
    }


def check_navigation(root: Path, folder: Path) -> None:
    """Check that the navigation lists each page in `folder` and `folder/reference`, and no other.

    Raises:
        NavigationError: they differ.
    """
    listed = set(_list_pages(tomllib.loads((root / "zensical.toml").read_text())["project"]["nav"]))
    pages = [*folder.glob("*.md"), *folder.glob("reference/*.md")]
    written = {page.relative_to(folder).as_posix() for page in pages}
    for page in sorted(listed - written):
        if not (folder / page).exists():
            raise NavigationError(f"zensical.toml: nav names {page}, which does not exist")
    if omitted := sorted(written - listed):
        raise NavigationError(f"zensical.toml: nav omits {', '.join(omitted)}")


def _list_pages(entries: Any) -> Iterator[str]:
    """List the pages of a part of the navigation: a page, a list, or a table with a title."""
    match entries:
        case str(page):
            yield page
        case [*parts]:
            for part in parts:
                yield from _list_pages(part)
        case {**titles}:
            yield from _list_pages([*titles.values()])
