"""Settings: the reference of a program's settings, from its pydantic models."""

from collections.abc import Collection, Iterator, Mapping
from typing import Any

from docsite.markdown import code, table
from safelight_settings import ProgramSettings

_Schema = Mapping[str, Any]
_NAMES = {
    "array": "list",
    "boolean": "true or false",
    "integer": "integer",
    "number": "number",
    "object": "table",
    "string": "text",
}
_FORMATS = {"path": "path", "password": "text, kept secret"}
_LIMITS = {"minimum": "from", "exclusiveMinimum": "above", "maximum": "to"}


def render(model: type[ProgramSettings], title: str, introduction: str) -> str:
    """Return the page of a program's settings, a table for each table of its TOML file."""
    pages = _Settings(model.model_json_schema(), str(model.model_config["env_prefix"]))
    return "\n\n".join([f"# {title}", introduction, *pages.blocks()]) + "\n"


class _Settings:
    """The parts of a page, from the JSON Schema of the settings."""

    def __init__(self, schema: _Schema, prefix: str) -> None:
        self._schema = schema
        self._prefix = prefix

    def blocks(self) -> Iterator[str]:
        yield from self._table(self._schema, (), has_variables=True)

    def _table(
        self, schema: _Schema, path: tuple[str, ...], *, has_variables: bool
    ) -> Iterator[str]:
        nested = []
        rows = []
        for name, value in schema["properties"].items():
            key = (*path, name)
            kind, is_list = _find_table(value)
            meaning = value.get("description", "")
            if kind is None:
                default = _default(name, value, schema.get("required", ()))
                limits = _type(value)
            else:
                target = self._schema["$defs"][kind]
                nested.append((target, key, has_variables and not is_list))
                meaning = f"{meaning} See [`{'.'.join(key)}`](#{'-'.join(key)})."
                default, limits = "", "list of tables" if is_list else "table"
            rows.append((self._name(key, has_variables=has_variables), limits, default, meaning))
        yield table(("setting", "type", "default", "meaning"), rows)
        for target, key, has_own in nested:
            yield f"{'#' * (1 + len(key))} `{'.'.join(key)}` {{ #{'-'.join(key)} }}"
            yield target.get("description", "")
            yield from self._table(target, key, has_variables=has_own)

    def _name(self, key: tuple[str, ...], *, has_variables: bool) -> str:
        name = code(".".join(key))
        variable = self._prefix + "__".join(key).upper()
        return f"{name}<br>{code(variable)}" if has_variables else name


def _find_table(value: _Schema) -> tuple[str | None, bool]:
    """Return the name of a value's table, if it is one, and whether it is a list of them."""
    for option in value.get("anyOf", (value,)):
        if "$ref" in option:
            return option["$ref"].rpartition("/")[2], False
        if "$ref" in option.get("items", ()):
            return option["items"]["$ref"].rpartition("/")[2], True
    return None, False


def _type(value: _Schema) -> str:
    options = value.get("anyOf", (value,))
    return " or ".join(_option(each) for each in options if each.get("type") != "null")


def _option(option: _Schema) -> str:
    """Return one of the types that a setting can have, with its limits."""
    if "enum" in option:
        return " or ".join(map(code, option["enum"]))
    name = _FORMATS.get(option.get("format", ""), _NAMES[option["type"]])
    limits = [f"{word} {option[key]:.10g}" for key, word in _LIMITS.items() if key in option]
    return " ".join([name, *limits])


def _default(name: str, value: _Schema, required: Collection[str]) -> str:
    if name in required:
        return "required"
    if "default" not in value:
        return "see right"
    match value["default"]:
        case None | "" | {}:
            return "unset"
        case bool(flag):
            return code(str(flag).lower())
        case int(number) | float(number):
            return code(f"{number:.10g}")
        case other:
            return code(str(other))
