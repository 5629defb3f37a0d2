"""The JSON codec: protobuf JSON in camel case, in which unknown fields are errors."""

from google.protobuf.json_format import MessageToJson, ParseDict, ParseError
from google.protobuf.message import Message
from safelight.v1 import text_to_image_pb2 as pb

from safelight_gateway.connect.errors import connect_errors
from safelight_gateway.edge.call import parse_object
from safelight_gateway.errors import bad_request
from safelight_gateway.native.routes import parse_request


class JsonCodec:
    """Reads and writes messages; connectrpc's own codec drops unknown fields."""

    def name(self) -> str:
        """Return its name in content types."""
        return "json"

    def encode(self, message: Message) -> bytes:
        """Return a message as JSON."""
        return MessageToJson(message, indent=None).encode()

    def decode(self, data: bytes | bytearray, message_class: type[Message]) -> Message:
        """Parse a message.

        Raises:
            ConnectError: a field does not exist, or its value has another type.
        """
        with connect_errors():
            fields = parse_object(bytes(data))
            if message_class is pb.GenerateRequest:
                return parse_request(fields)
            try:
                return ParseDict(fields, message_class())
            except ParseError as error:
                name = message_class.DESCRIPTOR.name
                raise bad_request(f"the body must be a {name} in JSON") from error
