"""Connect and gRPC-Web as bytes over HTTP, for details that client libraries hide."""

import base64
import json
import struct
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from http.client import HTTPResponse

from google.protobuf.json_format import MessageToDict, Parse
from google.protobuf.message import Message
from google.rpc import error_details_pb2, status_pb2
from safelight.v1 import text_to_image_pb2 as pb

from tests.gateway.http_call import opened

SERVICE = "safelight.v1.TextToImageService"
PROTOCOLS = ("connect+proto", "connect+json", "grpc-web+proto", "grpc-web+json")
"""Content types of streams, without `application/`."""

_END_OF_STREAM, _TRAILERS = 0x02, 0x80


@dataclass(frozen=True, slots=True)
class Failure:
    """An error on the wire: its code, and its details by the names of their types."""

    code: str
    message: str
    details: dict[str, bytes]

    @property
    def reason(self) -> str:
        """The service's name of the cause."""
        info = error_details_pb2.ErrorInfo.FromString(self.details["google.rpc.ErrorInfo"])
        assert info.domain == "safelight"
        return str(info.reason)

    @property
    def fields(self) -> set[str]:
        """The invalid fields."""
        bad = error_details_pb2.BadRequest.FromString(self.details["google.rpc.BadRequest"])
        return {violation.field for violation in bad.field_violations}

    @property
    def retry_after_s(self) -> float:
        """The seconds to wait."""
        info = error_details_pb2.RetryInfo.FromString(self.details["google.rpc.RetryInfo"])
        return float(info.retry_delay.ToTimedelta().total_seconds())


@dataclass(frozen=True, slots=True)
class End:
    """The end of a stream.

    Attributes:
        failure: The error; None after success.
        metadata: The trailers.
    """

    failure: Failure | None
    metadata: dict[str, str]


def failure_of(error: dict[str, object]) -> Failure:
    """Return an error of Connect's JSON, in which types have their bare names."""
    details = error.get("details", [])
    assert isinstance(details, list)
    values = {each["type"]: base64.b64decode(each["value"] + "==") for each in details}
    return Failure(str(error["code"]), str(error["message"]), values)


def pack(message: Message, protocol: str) -> bytes:
    """Return a message as the only one of a stream."""
    data = encode(message, protocol)
    return struct.pack(">BI", 0, len(data)) + data


def encode(message: Message, codec: str) -> bytes:
    """Return a message in binary or, if the name ends by `json`, in JSON."""
    if codec.endswith("json"):
        return json.dumps(MessageToDict(message)).encode()
    return message.SerializeToString()


def read_stream(response: HTTPResponse, protocol: str) -> Iterator[pb.GenerationEvent | End]:
    """Yield the events of a stream, and last its end."""
    is_web = protocol.startswith("grpc-web")
    while prefix := response.read(5):
        flags, size = struct.unpack(">BI", prefix)
        data = response.read(size)
        if flags == (_TRAILERS if is_web else _END_OF_STREAM):
            yield _read_trailers(data) if is_web else _read_end(data)
        elif protocol.endswith("json"):
            yield Parse(data, pb.GenerateResponse()).event
        else:
            yield pb.GenerateResponse.FromString(data).event


def _read_end(data: bytes) -> End:
    end = json.loads(data)
    metadata = {name: ",".join(values) for name, values in end.get("metadata", {}).items()}
    return End(failure_of(end["error"]) if "error" in end else None, metadata)


def _read_trailers(data: bytes) -> End:
    metadata = dict(line.split(": ", 1) for line in data.decode().splitlines())
    code = metadata.pop("grpc-status")
    packed = metadata.pop("grpc-status-details-bin", "")
    if code == "0":
        return End(None, metadata)
    status = status_pb2.Status.FromString(base64.b64decode(packed + "=="))
    details = {
        each.type_url.removeprefix("type.googleapis.com/"): each.value for each in status.details
    }
    return End(Failure(code, status.message, details), metadata)


@contextmanager
def streaming(
    url: str, request: Message, protocol: str, method: str = "Generate", **headers: str
) -> Iterator[Iterator[pb.GenerationEvent | End]]:
    """Call a method that streams. Leaving the block closes the connection."""
    sent = {"content-type": f"application/{protocol}", **_dashed(headers)}
    body = pack(request, protocol)
    with opened(f"{url}/{SERVICE}/{method}", "POST", body, sent) as response:
        assert response.status == 200
        assert response.headers["content-type"] == sent["content-type"]
        yield read_stream(response, protocol)


def _dashed(headers: dict[str, str]) -> dict[str, str]:
    return {name.replace("_", "-"): value for name, value in headers.items()}
