"""The OpenAPI document of the native routes, with schemas from the contract."""

from typing import Any

from google.protobuf.descriptor import Descriptor, EnumDescriptor, FieldDescriptor
from safelight.v1 import text_to_image_pb2 as pb

from safelight_gateway.verification.schemas import describe_verification
from safelight_gateway.version import __version__

_Schema = dict[str, Any]

_SCALARS: dict[int, _Schema] = {
    FieldDescriptor.TYPE_BOOL: {"type": "boolean"},
    FieldDescriptor.TYPE_BYTES: {"type": "string", "contentEncoding": "base64"},
    FieldDescriptor.TYPE_DOUBLE: {"type": "number"},
    FieldDescriptor.TYPE_INT32: {"type": "integer", "format": "int32"},
    FieldDescriptor.TYPE_INT64: {
        "type": ["string", "integer"],
        "format": "int64",
        "description": "Always sent as a string: JavaScript's numbers are exact up to 2^53 only.",
    },
    FieldDescriptor.TYPE_STRING: {"type": "string"},
}
_DURATION: _Schema = {
    "type": "string",
    "pattern": r"^-?\d+(\.\d+)?s$",
    "description": "Seconds, such as 1.5s.",
}
_PROBLEM: _Schema = {
    "type": "object",
    "description": "Problem details (RFC 9457).",
    "required": ["type", "title", "status", "detail", "reason"],
    "properties": {
        "type": {"type": "string"},
        "title": {"type": "string"},
        "status": {"type": "integer"},
        "detail": {"type": "string", "description": "Cause, and the allowed values."},
        "reason": {
            "type": "string",
            "description": "Stable name of the cause, the same as over gRPC.",
        },
        "violations": {
            "type": "array",
            "description": "Every invalid field.",
            "items": {
                "type": "object",
                "required": ["field", "description"],
                "properties": {
                    "field": {
                        "type": "string",
                        "description": "Path of the field, such as parameters.width.",
                    },
                    "description": {"type": "string"},
                },
            },
        },
        "retry_after_s": {"type": "number", "description": "Seconds to wait before a retry."},
    },
}
_IMAGES_PARAMETER: _Schema = {
    "name": "images",
    "in": "query",
    "description": "Form of the finished images: base64 (`data`) or a link (`url`).",
    "schema": {"type": "string", "enum": ["data", "url"], "default": "data"},
}
_LAST_EVENT_PARAMETER: _Schema = {
    "name": "Last-Event-ID",
    "in": "header",
    "description": "The last `id` received. The stream omits earlier images.",
    "schema": {"type": "string"},
}
_ID_PARAMETER: _Schema = {
    "name": "generation_id",
    "in": "path",
    "required": True,
    "description": "Id of the generation, from `accepted`.",
    "schema": {"type": "string"},
}
_FLAG_PARAMETERS: tuple[_Schema, ...] = (
    {
        "name": "x-use-cache",
        "in": "header",
        "description": "Whether a cached result of an equal request with a seed may answer.",
        "schema": {"type": "boolean", "default": True},
    },
    {
        "name": "x-wait-for-model",
        "in": "header",
        "description": "Whether to wait while the model loads.",
        "schema": {"type": "boolean", "default": False},
    },
)
_OPENAI_LIST: _Schema = {
    "object": {"type": "string", "const": "list"},
    "data": {
        "type": "array",
        "description": "The same models, for OpenAI's clients.",
        "items": {
            "type": "object",
            "properties": {
                "id": {"type": "string"},
                "object": {"type": "string", "const": "model"},
                "created": {"type": "integer"},
                "owned_by": {"type": "string"},
            },
        },
    },
}
_PREFIX = "#/components/schemas/"


def event_schema_names() -> dict[str, str]:
    """Return the schema of each event's data, by the event's name."""
    events = pb.GenerationEvent.DESCRIPTOR.oneofs_by_name["kind"].fields
    messages = {event.name: event.message_type for event in events if event.name != "chunk"}
    names = {name: message.name for name, message in messages.items() if message is not None}
    return {**names, "image": "Image", "failed": "Problem"}


def describe_api() -> _Schema:
    """Return the document, in OpenAPI 3.1."""
    schemas: dict[str, _Schema] = {"Problem": _PROBLEM}
    for message in (
        pb.GenerateRequest,
        pb.GenerationEvent,
        pb.CancelGenerationResponse,
        pb.ListModelsResponse,
    ):
        _add_message(schemas, message.DESCRIPTOR)
    del schemas["GenerationEvent"], schemas["ImageChunk"]
    header = schemas.pop("ImageHeader")
    schemas["Image"] = {
        **header,
        "properties": {
            **header["properties"],
            "data": {"type": "string", "contentEncoding": "base64"},
            "url": {"type": "string", "format": "uri"},
        },
        "oneOf": [{"required": ["data"]}, {"required": ["url"]}],
    }
    schemas["GenerateRequest"]["required"] = ["inputs"]
    schemas["ListModelsResponse"]["properties"] |= _OPENAI_LIST
    schemas |= describe_verification()
    return {
        "openapi": "3.1.0",
        "info": {
            "title": "Safelight",
            "version": __version__,
            "description": "Text to image, with progress and previews: the gRPC contract "
            "`safelight.v1` as JSON and server-sent events.",
            "license": {"name": "Apache-2.0", "identifier": "Apache-2.0"},
        },
        # Relative to the document, so that it works below any prefix.
        "servers": [{"url": "."}],
        "paths": _paths(),
        "security": [{}, {"token": []}],
        "components": {
            "schemas": schemas,
            "securitySchemes": {"token": {"type": "http", "scheme": "bearer"}},
        },
    }


def _paths() -> _Schema:
    kinds = ", ".join(f"`{kind}` ({name})" for kind, name in event_schema_names().items())
    stream = {
        "description": f"Server-sent events, by name and schema of their data: {kinds}. The last "
        "event is `completed` or `failed`. `id` counts the images received so far.",
        "content": {"text/event-stream": {"schema": {"type": "string"}}},
    }
    return {
        "/v1/generate": {
            "post": {
                "operationId": "generate",
                "summary": "Generate images, with progress and previews",
                "description": "A disconnect cancels the generation, unless the request lingers. "
                "An equal request with the same `generation_id` joins the generation.",
                "parameters": [*_FLAG_PARAMETERS, _IMAGES_PARAMETER, _LAST_EVENT_PARAMETER],
                "requestBody": {"required": True, "content": _json("GenerateRequest")},
                "responses": {"200": stream, "default": _problem()},
            }
        },
        "/v1/generations/{generation_id}": {
            "get": {
                "operationId": "watchGeneration",
                "summary": "Watch a running or recently ended generation",
                "parameters": [_ID_PARAMETER, _IMAGES_PARAMETER, _LAST_EVENT_PARAMETER],
                "responses": {
                    "200": stream,
                    "204": {"description": "Last-Event-ID is the id of the last event."},
                    "default": _problem(),
                },
            },
            "delete": {
                "operationId": "cancelGeneration",
                "summary": "Cancel a generation for all watchers",
                "parameters": [_ID_PARAMETER],
                "responses": _answers("Final state of the generation.", "CancelGenerationResponse"),
            },
        },
        "/v1/models": {
            "get": {
                "operationId": "listModels",
                "summary": "List the models, with capabilities and readiness",
                "responses": _answers("The models, the default first.", "ListModelsResponse"),
            }
        },
        "/v1/verify": {
            "post": {
                "operationId": "verify",
                "summary": "Verify the claims of an image about its origin",
                "description": "The body is the image itself, a PNG, JPEG or WebP.",
                "requestBody": {"required": True, "content": {"image/*": {}}},
                "responses": _answers("The claims, signed and unsigned.", "Verification"),
            }
        },
        "/healthz": {"get": _probe("healthz", "Whether the gateway is alive")},
        "/readyz": {"get": _probe("readyz", "Whether the service accepts generations")},
    }


def _probe(operation_id: str, summary: str) -> _Schema:
    answer = {"type": "object", "properties": {"status": {"type": "string"}}}
    content = {"application/json": {"schema": answer}}
    responses = {"200": {"description": "Yes.", "content": content}, "default": _problem()}
    return {"operationId": operation_id, "summary": summary, "security": [], "responses": responses}


def _answers(description: str, schema: str) -> _Schema:
    answer = {"description": description, "content": _json(schema)}
    return {"200": answer, "default": _problem()}


def _json(schema: str) -> _Schema:
    return {"application/json": {"schema": {"$ref": _PREFIX + schema}}}


def _problem() -> _Schema:
    content = {"application/problem+json": {"schema": {"$ref": f"{_PREFIX}Problem"}}}
    return {"description": "The error.", "content": content}


def _add_message(schemas: dict[str, _Schema], message: Descriptor) -> None:
    """Add the schemas of a message and of the messages in it."""
    if message.name in schemas:
        return
    properties: _Schema = {}
    schemas[message.name] = {
        "type": "object",
        "properties": properties,
        "additionalProperties": False,
    }
    for field in message.fields:
        value = _describe_value(schemas, field)
        properties[field.name] = {"type": "array", "items": value} if field.is_repeated else value


def _describe_value(schemas: dict[str, _Schema], field: FieldDescriptor) -> _Schema:
    if field.enum_type is not None:
        _add_enum(schemas, field.enum_type)
        return {"$ref": _PREFIX + field.enum_type.name}
    if field.message_type is None:
        return _SCALARS[field.type]
    if field.message_type.full_name == "google.protobuf.Duration":
        return _DURATION
    _add_message(schemas, field.message_type)
    return {"$ref": _PREFIX + field.message_type.name}


def _add_enum(schemas: dict[str, _Schema], enum: EnumDescriptor) -> None:
    schemas[enum.name] = {"type": "string", "enum": [value.name for value in enum.values]}
