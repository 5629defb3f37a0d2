"""The vectors cover the contract, and their steps are those that the kit's page describes."""

from collections.abc import Iterator
from typing import Any

import grpc
import pytest
from google.rpc.code_pb2 import Code
from safelight.testing import Vector, load_vectors
from safelight.v1 import text_to_image_pb2 as pb

from clients.conformance.kit import VECTORS, make_job
from clients.conformance.lines import compare_lines
from safelight_service.grpc_server.status import TABLE

ALL = load_vectors(VECTORS)
PAGE = VECTORS.with_name("README.md").read_text()
every_vector = pytest.mark.parametrize("vector", ALL, ids=lambda vector: vector["name"])


def steps() -> Iterator[tuple[str, Any]]:
    for vector in ALL:
        for call in vector["calls"]:
            for step in call["script"]:
                yield from step.items()


def statuses() -> Iterator[dict[str, Any]]:
    return (value for kind, value in steps() if kind == "status")


def reason_of(status: dict[str, Any]) -> str | None:
    for detail in status.get("details", ()):
        info = detail.get("ErrorInfo") if isinstance(detail, dict) else None
        if isinstance(info, dict) and info["domain"] == "safelight":
            return str(info["reason"])
    return None


def test_there_are_many() -> None:
    assert len(ALL) > 100


def test_every_failure_of_the_service_has_a_vector() -> None:
    played = {(status["code"], reason_of(status)) for status in statuses()}
    assert {(Code.Name(row.code), row.reason) for row in TABLE.values()} <= played


def test_every_code_without_a_reason_has_a_vector() -> None:
    played = {status["code"] for status in statuses() if reason_of(status) is None}
    assert played == {code.name for code in grpc.StatusCode} - {"OK"}


def test_every_field_of_every_event_has_a_vector() -> None:
    seen: dict[str, set[str]] = {}
    for kind, value in steps():
        if kind in ("send", "image"):
            for name, fields in [("image", value)] if kind == "image" else value.items():
                seen.setdefault(name, set()).update(fields if isinstance(fields, dict) else ())
    seen["accepted"].add("generation_id")  # the fake service fills it in
    seen["image"] = seen["image"] - {"chunk_bytes"} | {"sha256"}
    for field in pb.GenerationEvent.DESCRIPTOR.fields:
        assert field.message_type is not None
        assert seen[field.name] == {each.name for each in field.message_type.fields}, field.name


def test_every_method_has_a_vector() -> None:
    methods = {call.get("method", "Generate") for vector in ALL for call in vector["calls"]}
    service = pb.DESCRIPTOR.services_by_name["TextToImageService"]
    assert methods == {method.name for method in service.methods}


@every_vector
def test_outcome_is_readable_and_equals_itself(vector: Vector) -> None:
    method = make_job(vector, "target")["method"]
    assert len(compare_lines(method, vector["outcome"], [])) == len(vector["outcome"])


@pytest.mark.parametrize("kind", sorted({kind for kind, _ in steps()}))
def test_step_is_described(kind: str) -> None:
    assert f"| `{kind}` |" in PAGE


def test_expectations_are_described() -> None:
    keys = {key for each in ALL for call in each["calls"] for key in call.get("expect", {})}
    assert keys
    assert all(f"| `{key}` |" in PAGE for key in keys)


def test_ids_keep_the_rule_of_the_contract() -> None:
    names = [
        vector["name"]
        for vector in ALL
        if make_job(vector, "target")["request"].get("generation_id") == vector["name"]
    ]
    assert names
    assert all(set(name.replace("-", "")) <= set("abcdefghijklmnopqrstuvwxyz") for name in names)
