"""Pages: copies `docs/` and all that it links to, as pages of the site.

In the repository, links lead to files and folders. In the site, they lead to

- the page of the reference that a file is the source of (the contract, the settings, the errors);
- a page with the text of any other file, or the list of files of a folder;
- a copy of an image.
"""

import os
import shutil
from collections.abc import Mapping
from pathlib import Path, PurePosixPath

from docsite import links

_DOCS = PurePosixPath("docs")
_FILES = PurePosixPath("files")
_HIDDEN = "---\nsearch:\n  exclude: true\n---\n\n"
_ASSETS = (".css", ".png", ".svg")
_LANGUAGES = {".py": "python", ".proto": "proto", ".toml": "toml", ".yaml": "yaml", ".json": "json"}
_LONGEST_FILE = 100_000


class MissingTargetError(Exception):
    """A page links to a file that the repository does not have."""


class Pages:
    """Copies of pages; each link from one page brings its target along."""

    def __init__(self, root: Path, folder: Path, references: Mapping[str, str]) -> None:
        """Copy from the repository at `root` to `folder`.

        Args:
            root: Folder of the repository.
            folder: Folder for the copies.
            references: The page of the site that replaces each source file or folder.
        """
        self._root = root
        self._folder = folder
        self._references = references
        self._pending: list[PurePosixPath] = []
        self._known: set[PurePosixPath] = set()

    def copy(self) -> None:
        """Copy all pages of `docs/`, and then what they link to, until nothing is left.

        Raises:
            MissingTargetError: a link leads nowhere.
        """
        for path in sorted((self._root / _DOCS).rglob("*")):
            if path.is_file():
                self._add(PurePosixPath(path.relative_to(self._root).as_posix()))
        while self._pending:
            self._write(self._pending.pop())

    def _add(self, source: PurePosixPath) -> None:
        if source not in self._known:
            self._known.add(source)
            self._pending.append(source)

    def _write(self, source: PurePosixPath) -> None:
        target = self._folder / self._place(source)
        target.parent.mkdir(parents=True, exist_ok=True)
        path = self._root / source
        if source.suffix in _ASSETS:
            shutil.copyfile(path, target)
        elif path.is_dir():
            target.write_text(self._list(source))
        elif source.suffix == ".md":
            target.write_text(
                links.rewrite(path.read_text(), lambda link: self._follow(source, link))
            )
        else:
            target.write_text(self._quote(source))

    def _follow(self, page: PurePosixPath, link: str) -> str:
        """Return where a link of a page leads in the site; bring its target along."""
        path, hash_sign, anchor = link.partition("#")
        source = PurePosixPath(os.path.normpath(page.parent / path))
        if str(source) in self._references:
            place = PurePosixPath(self._references[str(source)])
        else:
            if not (self._root / source).exists():
                raise MissingTargetError(f"{page} links to {link}, which does not exist")
            self._add(source)
            place = self._place(source)
        relative = os.path.relpath(place, self._place(page).parent)
        return f"{relative}{hash_sign}{anchor}"

    def _place(self, source: PurePosixPath) -> PurePosixPath:
        """Return the path of a source in the site's folder."""
        if source.is_relative_to(_DOCS):
            return source.relative_to(_DOCS)
        if source.suffix in (".md", *_ASSETS):
            return _FILES / source
        return _FILES / source.with_name(f"{source.name}.md")

    def _list(self, source: PurePosixPath) -> str:
        """Return the page of a folder: its files, each with a link to its page."""
        folder = self._root / source
        names = []
        for path in sorted(each for each in folder.iterdir() if not each.name.startswith(".")):
            if path.is_file() and path.stat().st_size <= _LONGEST_FILE:
                target = self._follow(source, f"{source.name}/{path.name}")
                names.append(f"- [`{path.name}`]({target})")
        return f"{_HIDDEN}# `{source}`\n\n" + "\n".join(names) + "\n"

    def _quote(self, source: PurePosixPath) -> str:
        language = _LANGUAGES.get(source.suffix, "text")
        text = (self._root / source).read_text()
        return f"{_HIDDEN}# `{source}`\n\n````{language}\n{text.rstrip()}\n````\n"
