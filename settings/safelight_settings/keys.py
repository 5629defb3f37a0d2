"""Keys: paths of the settings in a model, and suggestions for mistyped ones."""

import difflib
from collections.abc import Iterable, Iterator
from types import UnionType
from typing import Any, Union, get_args, get_origin

from pydantic import BaseModel

Path = tuple[str | int, ...]
"""Path of a setting: keys of tables and indices of lists."""

_UNIONS = (Union, UnionType)


def write_path(path: Path) -> str:
    """Format a path: `models[0].limits.max_side_px`."""
    text = ""
    for part in path:
        text += f"[{part}]" if isinstance(part, int) else f".{part}" if text else part
    return text


def depth(values: Any, path: Path) -> int:
    """Return the number of leading parts of a path that exist in `values`."""
    for index, part in enumerate(path):
        try:
            values = values[part]
        except (IndexError, KeyError, TypeError):
            return index
    return len(path)


def list_keys(model: type[BaseModel], *, with_lists: bool) -> Iterator[tuple[str, ...]]:
    """List the keys of a model, nested keys after their table.

    `with_lists` includes the keys of tables in lists, without indices.
    """
    for name, field in model.model_fields.items():
        yield (name,)
        if table := find_table(field.annotation, with_lists=with_lists):
            yield from ((name, *key) for key in list_keys(table, with_lists=with_lists))


def find_table(annotation: Any, *, with_lists: bool = True) -> type[BaseModel] | None:
    """Find the table in a type: itself, an option of a union or, `with_lists`, a list's item."""
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return annotation
    if with_lists or get_origin(annotation) in _UNIONS:
        tables = (find_table(part, with_lists=with_lists) for part in get_args(annotation))
        return next((table for table in tables if table), None)
    return None


def is_structured(annotation: Any) -> bool:
    """Whether a variable of this type holds JSON: a table, a list or a mapping."""
    return find_table(annotation) is not None or get_origin(annotation) in (dict, list, tuple)


def suggest(name: str, candidates: Iterable[str], prefix: str = "") -> str:
    """Return `; did you mean X?` with the closest candidate, or nothing if none is close.

    `prefix` precedes the candidate in the text and does not count towards the distance.
    """
    close = difflib.get_close_matches(name, list(candidates), n=1)
    return f"; did you mean {prefix}{close[0]}?" if close else ""


def suggest_key(model: type[BaseModel], path: Path) -> str:
    """Suggest a key for an unknown one: a similar sibling, or the same name in another table."""
    *parents, name = path
    table: type[BaseModel] | None = model
    for parent in parents:
        if table is not None and isinstance(parent, str):
            field = table.model_fields.get(parent)
            table = find_table(field.annotation) if field else None
    prefix = f"{write_path(tuple(parents))}." if parents else ""
    if neighbour := suggest(str(name), table.model_fields if table else (), prefix):
        return neighbour
    namesakes = (key for key in list_keys(model, with_lists=True) if key[-1] == name)
    return next((f"; did you mean {write_path(key)}?" for key in namesakes), "")
