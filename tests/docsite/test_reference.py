"""The reference, made from the code, has an entry for all that callers and operators can use."""

import re
from collections.abc import Iterator
from functools import cache
from pathlib import Path

import pytest
import safelight
from google.rpc import code_pb2
from pydantic import BaseModel
from pydantic.fields import FieldInfo
from safelight import provenance
from safelight.v1 import text_to_image_pb2 as pb

from docsite.doctests import fence
from docsite.site import render_reference
from safelight_gateway.settings import Settings as GatewaySettings
from safelight_service.grpc_server.status import TABLE
from safelight_service.settings import Settings as ServiceSettings
from safelight_settings import ProgramSettings
from safelight_settings.keys import find_table

ROOT = Path(__file__).parents[2]
METHODS = pb.DESCRIPTOR.services_by_name["TextToImageService"].methods_by_name
Key = tuple[str, ...]


@cache
def read_page(name: str) -> str:
    return render_reference(ROOT)[f"reference/{name}.md"]


def find_section(page: str, title: str) -> str:
    """Return the text from a heading to the next one."""
    [text] = re.findall(rf"(?ms)^#+ {title} \{{.*?\n(.*?)(?=^#|\Z)", page)
    assert isinstance(text, str)
    return text


def read_table(text: str) -> dict[str, list[str]]:
    """Return the cells of each row, by the name that its first cell begins with."""
    rows = {}
    for line in text.splitlines():
        cells = [cell.strip() for cell in re.split(r"(?<!\\)\|", line)[1:-1]]
        if cells and (name := re.match(r"`([^`]+)`", cells[0])):
            rows[name[1]] = cells
    return rows


@pytest.mark.parametrize("name", pb.DESCRIPTOR.message_types_by_name)
def test_every_field_of_a_message_has_its_number_and_its_comment(name: str) -> None:
    rows = read_table(find_section(read_page("contract"), name))
    fields = pb.DESCRIPTOR.message_types_by_name[name].fields
    assert {name: row[2] for name, row in rows.items()} == {
        field.name: str(field.number) for field in fields
    }
    assert all(row[1] and row[3] for row in rows.values())


@pytest.mark.parametrize("name", pb.DESCRIPTOR.enum_types_by_name)
def test_every_value_of_an_enum_has_its_number_and_its_comment(name: str) -> None:
    rows = read_table(find_section(read_page("contract"), name))
    values = pb.DESCRIPTOR.enum_types_by_name[name].values
    assert {name: row[1] for name, row in rows.items()} == {
        value.name: str(value.number) for value in values
    }
    assert all(row[2] for row in rows.values())


@pytest.mark.parametrize("name", METHODS)
def test_every_method_has_its_messages_and_its_comment(name: str) -> None:
    first, *comment = find_section(read_page("contract"), name).strip().split("\n\n")
    assert f"Takes [`{METHODS[name].input_type.name}`]" in first
    assert f"[`{METHODS[name].output_type.name}`]" in first
    assert comment


def list_settings(model: type[BaseModel], path: Key = ()) -> Iterator[tuple[Key, FieldInfo]]:
    for name, field in model.model_fields.items():
        yield (*path, name), field
        if table := find_table(field.annotation):
            yield from list_settings(table, (*path, name))


@pytest.mark.parametrize(
    ("page", "model", "prefix"),
    [
        ("settings", ServiceSettings, "SAFELIGHT_"),
        ("gateway-settings", GatewaySettings, "SAFELIGHT_GATEWAY_"),
    ],
)
def test_every_setting_has_its_type_default_meaning_and_variable(
    page: str, model: type[ProgramSettings], prefix: str
) -> None:
    rows = read_table(read_page(page))
    settings = {".".join(key): (key, field) for key, field in list_settings(model)}
    assert rows.keys() == settings.keys()
    for name, (key, field) in settings.items():
        first, kind, default, meaning = rows[name]
        assert kind, name
        assert meaning, name
        if type(field.default) in (int, float):
            assert default == f"`{field.default:.10g}`", name
        if not {"models", "pools"} & {*key[:-1]}:  # lists, whose items have no variables
            assert f"`{prefix}{'__'.join(key).upper()}`" in first
        assert field.is_required() == (default == "required"), name


def test_every_error_has_its_status_and_its_cause() -> None:
    rows = read_table(read_page("errors").partition("## Without a reason")[0])
    assert {reason: row[1] for reason, row in rows.items()} == {
        row.reason: f"`{code_pb2.Code.Name(row.code)}`" for row in TABLE.values()
    }
    for kind, entry in TABLE.items():
        assert f"{kind.__name__}" in rows[entry.reason][0]
        assert all(rows[entry.reason])


def test_every_name_of_the_client_has_an_entry() -> None:
    entries = re.findall(r"(?m)^::: safelight\.(\w+)$", read_page("python"))
    assert sorted(entries) == sorted({*safelight.__all__} - {"__version__"})
    entries = re.findall(r"(?m)^::: safelight\.provenance\.(\w+)$", read_page("python"))
    assert entries == sorted(provenance.__all__)


def test_examples_in_docstrings_become_code() -> None:
    text = "First.\n\n>>> 1 + 1\n2\n\nLast.\n\n>>> a\n"
    assert fence(text) == "First.\n\n```pycon\n>>> 1 + 1\n2\n```\n\nLast.\n\n```pycon\n>>> a\n```\n"
