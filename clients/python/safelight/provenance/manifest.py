"""The C2PA manifest of an image: signed claims."""

import io
import json
from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum
from typing import Any

_MARK = b"jumdc2pa"
"""Type and first bytes of the box around all manifests of a file."""


class ManifestState(StrEnum):
    """Result of checking a manifest."""

    TRUSTED = "trusted"
    """Intact, and the signer's certificate leads to one of the trust anchors."""
    VALID = "valid"
    """Intact, but nothing shows that the signer is the named one."""
    INVALID = "invalid"
    """Damaged, made for other bytes, or signed with an unsuitable certificate."""
    REMOTE = "remote"
    """Elsewhere: the file only links to it. It is not fetched."""
    ABSENT = "absent"
    """The file has none."""
    UNCHECKED = "unchecked"
    """The extra `safelight[provenance]` is not installed."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Manifest:
    """Signed claims. Those of an invalid manifest prove nothing.

    Attributes:
        state: Result of the check.
        signer: Names in the signer's certificate.
        signed_at: Time by a timestamp authority; None without one.
        is_time_trusted: Whether a trust anchor vouches for that authority.
        created_at: Time of creation, as the signer claims it.
        software: Program that made the claims.
        model: Program or model that made the image.
        source_type: Digital source type of the image, a URI.
        problems: Codes and explanations of failed checks.
    """

    state: ManifestState
    signer: str | None = None
    signed_at: datetime | None = None
    is_time_trusted: bool = False
    created_at: datetime | None = None
    software: str | None = None
    model: str | None = None
    source_type: str | None = None
    problems: tuple[str, ...] = ()


def read_manifest(data: bytes, mime_type: str, trust_anchors: str | None) -> Manifest:
    """Return the checked manifest of an image. Nothing is fetched from the network."""
    try:
        import c2pa
    except ModuleNotFoundError:
        return Manifest(state=ManifestState.UNCHECKED)
    settings: dict[str, Any] = {
        "core": {"allowed_network_hosts": [], "decode_identity_assertions": False},
        "verify": {
            "remote_manifest_fetch": False,
            "ocsp_fetch": False,
            "verify_trust": trust_anchors is not None,
        },
    }
    if trust_anchors is not None:
        settings["trust"] = {"trust_anchors": trust_anchors}
    try:
        with (
            c2pa.Context(c2pa.Settings.from_dict(settings)) as context,
            c2pa.Reader(mime_type, io.BytesIO(data), context=context) as reader,
        ):
            return _describe(json.loads(reader.json()))
    except c2pa.C2paError as error:
        if _MARK in data:
            return Manifest(state=ManifestState.INVALID, problems=(str(error),))
        if str(error).startswith("Remote"):
            return Manifest(state=ManifestState.REMOTE, problems=(str(error),))
        return Manifest(state=ManifestState.ABSENT)


def check_trust_anchors(trust_anchors: str) -> None:
    """Check that trust anchors can be used.

    Raises:
        ValueError: they are no certificates in PEM, or the extra is not installed.
    """
    try:
        import c2pa  # noqa: F401
        from cryptography.x509 import load_pem_x509_certificates
    except ModuleNotFoundError:
        raise ValueError("trust anchors need the extra safelight[provenance]") from None
    try:
        load_pem_x509_certificates(trust_anchors.encode())
    except ValueError as error:
        raise ValueError("trust anchors must be certificates in PEM") from error


def _describe(store: dict[str, Any]) -> Manifest:
    active = store["manifests"][store["active_manifest"]]
    signature = active.get("signature_info", {})
    created = _find_creation(active)
    passed = store.get("validation_results", {}).get("activeManifest", {}).get("success", ())
    return Manifest(
        state=ManifestState(store["validation_state"].lower()),
        signer=_join(signature.get("common_name"), signature.get("issuer"), by=", "),
        signed_at=_parse_time(signature.get("time")),
        is_time_trusted=any(check["code"] == "timeStamp.trusted" for check in passed),
        created_at=_parse_time(created.get("when")),
        software=_name_agent(next(iter(active.get("claim_generator_info", ())), None)),
        model=_name_agent(created.get("softwareAgent")),
        source_type=_text(created.get("digitalSourceType")),
        problems=tuple(
            f"{failure['code']}: {failure.get('explanation', '')}"
            for failure in store.get("validation_status", ())
        ),
    )


def _find_creation(manifest: dict[str, Any]) -> dict[str, Any]:
    """Return the action that created the image; an empty one if there is none."""
    for assertion in manifest.get("assertions", ()):
        if assertion["label"].startswith("c2pa.actions"):
            for action in assertion["data"]["actions"]:
                if action["action"] == "c2pa.created":
                    return dict(action)
    return {}


def _name_agent(agent: Any) -> str | None:
    if isinstance(agent, dict):
        return _join(agent.get("name"), agent.get("version"), by=" ")
    return _text(agent)


def _join(*parts: Any, by: str) -> str | None:
    return by.join(text for part in parts if (text := _text(part))) or None


def _text(value: Any) -> str | None:
    """Return a value if it is a text: the library passes claims of any type on."""
    return value if isinstance(value, str) else None


def _parse_time(value: Any) -> datetime | None:
    try:
        return datetime.fromisoformat(value)
    except (TypeError, ValueError):
        return None
