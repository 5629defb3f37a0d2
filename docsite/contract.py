"""Contract: the reference of the gRPC contract, from the comments of its `.proto` file."""

import subprocess
import sys
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path

from google.protobuf.descriptor_pb2 import (
    DescriptorProto,
    EnumDescriptorProto,
    FieldDescriptorProto,
    FileDescriptorProto,
    FileDescriptorSet,
    MethodDescriptorProto,
    ServiceDescriptorProto,
)

from docsite.markdown import code, table

PROTO = Path("protos/safelight/v1/text_to_image.proto")
_ROOT = Path("protos")
# Numbers of the fields of descriptors, of which the paths of comments consist.
_MESSAGES, _ENUMS, _SERVICES, _MEMBERS, _ONEOFS, _SYNTAX = 4, 5, 6, 2, 8, 12


def render(root: Path) -> str:
    """Return the page of the contract of the repository at `root`."""
    return "\n\n".join(_Contract(_read(root)).blocks()) + "\n"


def _read(root: Path) -> FileDescriptorProto:
    with tempfile.TemporaryDirectory() as folder:
        output = Path(folder) / "contract.binpb"
        command = [
            *(sys.executable, "-m", "grpc_tools.protoc", f"--proto_path={_ROOT}"),
            *("--include_source_info", f"--descriptor_set_out={output}", str(PROTO)),
        ]
        subprocess.run(command, cwd=root, check=True)
        [file] = FileDescriptorSet.FromString(output.read_bytes()).file
    return file


class _Contract:
    """The parts of a page, from a file's descriptor and its comments."""

    def __init__(self, file: FileDescriptorProto) -> None:
        self._file = file
        self._comments = {
            tuple(location.path): location for location in file.source_code_info.location
        }

    def blocks(self) -> Iterator[str]:
        file = self._file
        yield "# Contract"
        yield f"Package `{file.package}`."
        yield from self._head()
        for index, service in enumerate(file.service):
            yield from self._service(service, (_SERVICES, index))
        yield "## Messages"
        for index, message in enumerate(file.message_type):
            yield from self._message(message, (_MESSAGES, index))
        yield "## Enums"
        for index, enum in enumerate(file.enum_type):
            yield from self._enum(enum, (_ENUMS, index))

    def _head(self) -> Iterator[str]:
        """Yield the comment above `syntax`, which describes the whole file."""
        location = self._comments[(_SYNTAX,)]
        yield _text(location.leading_comments)

    def _comment(self, *path: int) -> str:
        return _text(self._comments[path].leading_comments)

    def _service(self, service: ServiceDescriptorProto, path: Sequence[int]) -> Iterator[str]:
        yield _heading(2, service.name)
        yield self._comment(*path)
        for index, method in enumerate(service.method):
            yield _heading(3, method.name)
            yield _signature(method)
            yield self._comment(*path, _MEMBERS, index)

    def _message(self, message: DescriptorProto, path: Sequence[int]) -> Iterator[str]:
        yield _heading(3, message.name)
        yield self._comment(*path)
        for index, oneof in enumerate(message.oneof_decl):
            if (comment := self._comments.get((*path, _ONEOFS, index))) is not None:
                yield f"One of `{oneof.name}`: {_text(comment.leading_comments)}"
        rows = [
            (
                code(field.name),
                _type(field),
                str(field.number),
                self._comment(*path, _MEMBERS, index),
            )
            for index, field in enumerate(message.field)
        ]
        if rows:
            yield table(("field", "type", "number", "meaning"), rows)

    def _enum(self, enum: EnumDescriptorProto, path: Sequence[int]) -> Iterator[str]:
        yield _heading(3, enum.name)
        yield self._comment(*path)
        rows = [
            (code(value.name), str(value.number), self._comment(*path, _MEMBERS, index))
            for index, value in enumerate(enum.value)
        ]
        yield table(("value", "number", "meaning"), rows)


def _text(comment: str) -> str:
    return "\n".join(line.removeprefix(" ") for line in comment.rstrip().splitlines())


def _heading(level: int, name: str) -> str:
    return f"{'#' * level} {name} {{ #{name} }}"


def _signature(method: MethodDescriptorProto) -> str:
    stream = "stream of " if method.server_streaming else ""
    return f"Takes {_link(method.input_type)}, returns {stream}{_link(method.output_type)}."


def _type(field: FieldDescriptorProto) -> str:
    name = FieldDescriptorProto.Type.Name(field.type).removeprefix("TYPE_").lower()
    text = _link(field.type_name) if field.type_name else code(name)
    if field.label == FieldDescriptorProto.LABEL_REPEATED:
        return f"repeated {text}"
    return f"optional {text}" if field.proto3_optional else text


def _link(type_name: str) -> str:
    """Return a link to a type of the contract, or the plain name of any other."""
    package, _, name = type_name.removeprefix(".").rpartition(".")
    return f"[`{name}`](#{name})" if package.startswith("safelight.") else code(f"{package}.{name}")
