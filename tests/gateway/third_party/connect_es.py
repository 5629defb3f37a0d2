"""connect-es: calls of the contract by the library that browsers use, in a process of Node."""

import base64
import json
import subprocess
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from google.protobuf.descriptor import Descriptor, FileDescriptor
from google.protobuf.descriptor_pb2 import (
    DescriptorProto,
    FileDescriptorProto,
    FileDescriptorSet,
)
from google.rpc import error_details_pb2
from safelight.v1 import text_to_image_pb2 as pb

from tests.gateway.third_party.client_process import INSTALLED

_SCRIPT = Path(__file__).parents[1] / "clients/connect.mjs"
_MODULES = INSTALLED / "node/node_modules"
IS_INSTALLED = (_MODULES / "@connectrpc/connect-web").is_dir()
"""Whether `scripts/install-gateway-clients` has run."""

PROTOCOLS = ("connect+proto", "connect+json", "grpc-web")


@dataclass(frozen=True, slots=True)
class ConnectCall:
    """One generation.

    Attributes:
        protocol: One of `PROTOCOLS`.
        url: URL of the server.
        request: A `GenerateRequest`, in the names of JavaScript.
        timeoutMs: Deadline in milliseconds; None for none.
        leavesAt: Name of the event at which to leave; None to stay.
    """

    protocol: str
    url: str
    request: Mapping[str, Any]
    timeoutMs: int | None = None  # noqa: N815
    leavesAt: str | None = None  # noqa: N815


@dataclass(frozen=True, slots=True)
class ConnectOutcome:
    """What connect-es made of a generation.

    Attributes:
        models: Names of the models that ListModels returned.
        events: Names of the events.
        sizeBytes: Size of all chunks.
        cache: The trailer x-cache.
        code: Name of the error's code; empty after success.
        reasons: Reasons of the `ErrorInfo` that it found in the error.
        fields: Fields of the `BadRequest` that it found in the error.
    """

    models: Sequence[str] = ()
    events: Sequence[str] = ()
    sizeBytes: int = 0  # noqa: N815
    cache: str | None = None
    code: str = ""
    reasons: Sequence[str] = ()
    fields: Sequence[str] = field(default=())


def run_connect_es(calls: Sequence[ConnectCall]) -> list[ConnectOutcome]:
    """Make calls one after another; return the outcome of each."""
    job = {
        "modules": str(_MODULES),
        "descriptors": base64.b64encode(_descriptors().SerializeToString()).decode(),
        "calls": [asdict(each) for each in calls],
    }
    process = subprocess.run(
        ["node", str(_SCRIPT)],
        input=json.dumps(job),
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert process.returncode == 0, process.stderr
    return [ConnectOutcome(**json.loads(line)) for line in process.stdout.splitlines()]


def _descriptors() -> FileDescriptorSet:
    """Return the contract and the error details, each file after those that it needs."""
    files: dict[str, FileDescriptorProto] = {}

    def add(file: FileDescriptor) -> None:
        for needed in file.dependencies:
            add(needed)
        files[file.name] = FileDescriptorProto.FromString(file.serialized_pb)
        for message in files[file.name].message_type:
            _add_json_names(message, file.message_types_by_name[message.name])

    add(pb.DESCRIPTOR)
    add(error_details_pb2.DESCRIPTOR)
    return FileDescriptorSet(file=files.values())


def _add_json_names(message: DescriptorProto, known: Descriptor) -> None:
    """Add the names that protoc gives to its plugins, but not to the stubs of Python."""
    for each in message.field:
        each.json_name = known.fields_by_name[each.name].json_name
    for nested in message.nested_type:
        _add_json_names(nested, known.nested_types_by_name[nested.name])
