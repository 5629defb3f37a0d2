"""The schemas of verifications, for the OpenAPI document."""

from typing import Any

from safelight.provenance import ManifestState

_Schema = dict[str, Any]


def describe_verification() -> dict[str, _Schema]:
    """Return the schemas of an answer, by name."""
    time = {"type": ["string", "null"], "format": "date-time"}
    manifest = {
        "state": {
            "type": "string",
            "enum": [state.value for state in ManifestState],
            "description": "`trusted`: intact, and a trust anchor of the gateway vouches for the "
            "signer. `valid`: intact, but the signer may be anybody. `remote`: elsewhere, and not "
            "fetched. `unchecked`: the gateway lacks its extra `provenance`.",
        },
        "signer": _text("Names in the signer's certificate."),
        "signed_at": {**time, "description": "Time by a timestamp authority."},
        "is_time_trusted": {
            "type": "boolean",
            "description": "Whether a trust anchor of the gateway vouches for that authority.",
        },
        "created_at": {**time, "description": "Time of creation, as the signer claims it."},
        "software": _text("Program that made the claims."),
        "model": _text("Program or model that made the image."),
        "source_type": _text("Digital source type of IPTC, a URI."),
        "problems": {
            "type": "array",
            "description": "Codes and explanations of failed checks.",
            "items": {"type": "string"},
        },
    }
    metadata = {
        "source_type": _text("Digital source type of IPTC, a URI."),
        "software": _text("Program that made the image."),
        "model": _text("Model that made it."),
        "parameters": _text("Prompt and parameters, as AUTOMATIC1111's web UI writes them."),
        "problem": _text("Reason why none could be read, such as damage."),
    }
    return {
        "Manifest": _object(manifest, "Claims in the C2PA manifest."),
        "Metadata": _object(metadata, "Unsigned claims, which anyone could have written."),
        "Verification": _object(
            {
                "mime_type": {"type": "string"},
                "is_generated": {
                    "type": "boolean",
                    "description": "Whether the image claims, signed or not, that a model "
                    "generated it or a part of it. False proves nothing.",
                },
                "is_verified": {
                    "type": "boolean",
                    "description": "Whether the signed claims belong to this image, unchanged.",
                },
                "manifest": {"$ref": "#/components/schemas/Manifest"},
                "metadata": {"$ref": "#/components/schemas/Metadata"},
            },
            "Claims of an image about its origin.",
        ),
    }


def _text(description: str) -> _Schema:
    return {"type": ["string", "null"], "description": description}


def _object(properties: _Schema, description: str) -> _Schema:
    return {
        "type": "object",
        "description": description,
        "required": list(properties),
        "properties": properties,
        "additionalProperties": False,
    }
