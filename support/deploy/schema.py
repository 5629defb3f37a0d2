"""Schema of the chart's values, whose `config` tables are those of the programs' settings.

`python -m support.deploy.schema` writes them into `values.schema.json`; the rest of that file is
written by hand.
"""

import json
from typing import Any

from safelight_gateway.settings import Settings as GatewaySettings
from safelight_service.settings import Settings as ServiceSettings
from safelight_settings import ProgramSettings
from support.deploy.chart import CHART

FILE = CHART / "values.schema.json"
_PROGRAMS: dict[str, type[ProgramSettings]] = {
    "Service": ServiceSettings,
    "Gateway": GatewaySettings,
}
_UNUSED = ("title", "default", "format", "writeOnly")
"""Keywords that neither Helm nor an editor needs."""


def build() -> str:
    """Return the text of the schema, with the settings as they are in the code."""
    schema = json.loads(FILE.read_text())
    schema["$defs"] = {
        name: definition
        for program, model in _PROGRAMS.items()
        for name, definition in _define(program, model).items()
    }
    return json.dumps(schema, indent=2) + "\n"


def _define(program: str, model: type[ProgramSettings]) -> dict[str, Any]:
    """Return the definitions of a program's tables, prefixed with its name."""
    schema = model.model_json_schema()
    tables = schema.pop("$defs")
    named = {program: schema} | {f"{program}{name}": table for name, table in tables.items()}
    return {name: _clean(table, program) for name, table in named.items()}


def _clean(value: Any, program: str) -> Any:
    if isinstance(value, list):
        return [_clean(each, program) for each in value]
    if not isinstance(value, dict):
        return value
    cleaned: dict[str, Any] = {}
    for key, each in value.items():
        if key == "$ref":
            cleaned[key] = each.replace("#/$defs/", f"#/$defs/{program}")
        elif key == "properties":
            cleaned[key] = {name: _clean(field, program) for name, field in each.items()}
        elif key == "required":
            # Secrets come from the environment, and never from values.
            is_secret = {name: "writeOnly" in field for name, field in value["properties"].items()}
            cleaned[key] = [name for name in each if not is_secret[name]]
        elif key not in _UNUSED:
            cleaned[key] = _clean(each, program)
    return cleaned


if __name__ == "__main__":
    FILE.write_text(build())
