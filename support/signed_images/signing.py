"""Signing: certificates of one test, and C2PA manifests that they sign."""

import io
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import c2pa

from safelight_service.provenance.dev_certificate import (
    AUTHORITY,
    CERTIFICATE,
    PRIVATE_KEY,
    write_dev_certificate,
)
from safelight_service.provenance.origin import SOURCE_TYPE

SIGNER = "Safelight development signer, Safelight development"
_SETTINGS = {"builder": {"thumbnail": {"enabled": False}}, "verify": {"verify_after_sign": False}}


@dataclass(frozen=True, slots=True)
class Authority:
    """A certificate authority, and a signer with one of its certificates.

    Attributes:
        anchor: PEM of the authority's certificate.
        chain: PEM of the signer's certificate, then of the authority's.
        key: PEM of the signer's key.
        timestamp_url: URL of a timestamp authority for its signatures.
    """

    anchor: str
    chain: bytes
    key: bytes
    timestamp_url: str | None = None

    def sign(self, image: bytes, mime_type: str, **creation: Any) -> bytes:
        """Return an image with a manifest; `creation` are fields of its action `c2pa.created`."""
        signed = io.BytesIO()
        with self._build(creation) as builder, self._open_signer() as signer:
            builder.sign(signer, mime_type, io.BytesIO(image), signed)
        return signed.getvalue()

    def link(self, image: bytes, mime_type: str, url: str) -> bytes:
        """Return an image that links to its manifest at a URL."""
        linked = io.BytesIO()
        with self._build({}) as builder, self._open_signer() as signer:
            builder.set_no_embed()
            builder.set_remote_url(url)
            builder.sign(signer, mime_type, io.BytesIO(image), linked)
        return linked.getvalue()

    def _open_signer(self) -> c2pa.Signer:
        url = self.timestamp_url
        info = c2pa.C2paSignerInfo(c2pa.C2paSigningAlg.ES256, self.chain, self.key, url)
        return c2pa.Signer.from_info(info)

    def _build(self, creation: dict[str, Any]) -> c2pa.Builder:
        action = {"action": "c2pa.created", "digitalSourceType": SOURCE_TYPE, **creation}
        manifest = {
            "claim_generator_info": [{"name": "Safelight", "version": "1.0"}],
            "assertions": [{"label": "c2pa.actions.v2", "data": {"actions": [action]}}],
        }
        return c2pa.Builder(manifest, c2pa.Context(c2pa.Settings.from_dict(_SETTINGS)))


def make_authority() -> Authority:
    """Make an authority, and a signer with a certificate of it."""
    with TemporaryDirectory() as name:
        folder = Path(name)
        write_dev_certificate(folder)
        certificate, key, authority = (
            (folder / file).read_bytes() for file in (CERTIFICATE, PRIVATE_KEY, AUTHORITY)
        )
    return Authority(authority.decode(), certificate + authority, key)
