"""Verification: the claims of images that these tests sign, and of damaged ones."""

import struct
import sys
import warnings
import zlib
from dataclasses import replace
from pathlib import Path

import pytest
from safelight.provenance import ManifestState, check_trust_anchors, verify

from safelight_service.provenance.dev_certificate import AUTHORITY
from safelight_service.provenance.origin import SOURCE_TYPE
from support.provenance.timestamp_authority import run_timestamp_authority
from support.signed_images.pictures import (
    FORMATS,
    MODEL,
    PARAMETERS,
    SOFTWARE,
    XMP,
    draw,
    draw_plain,
)
from support.signed_images.signing import SIGNER, Authority, make_authority

AGENT = {"name": "shapes", "version": "r1"}
PIXELS = {"image/png": b"IDAT", "image/jpeg": b"\xff\xda", "image/webp": b"VP8 "}
"""Begin of the pixels."""

WITH_ENTITY = f'<!DOCTYPE x [<!ENTITY a "a">]>{XMP}'


@pytest.mark.parametrize("mime_type", FORMATS)
def test_signed_claims_are_read_and_trusted_if_an_anchor_vouches_for_the_signer(
    mime_type: str, authority: Authority
) -> None:
    image = authority.sign(draw(mime_type), mime_type, softwareAgent=AGENT)
    verification = verify(image, trust_anchors=authority.anchor)
    assert verification.mime_type == mime_type
    manifest = verification.manifest
    assert manifest.state is ManifestState.TRUSTED
    assert (manifest.signer, manifest.software, manifest.model) == (SIGNER, SOFTWARE, MODEL)
    assert manifest.source_type == SOURCE_TYPE
    assert not manifest.problems
    assert verification.is_verified
    assert verification.is_generated
    assert verify(image).manifest.state is ManifestState.VALID
    stranger = verify(image, trust_anchors=make_authority().anchor)
    assert stranger.manifest.state is ManifestState.VALID
    assert "signingCredential.untrusted" in stranger.manifest.problems[0]


@pytest.mark.parametrize("mime_type", FORMATS)
@pytest.mark.parametrize("encoding", ["utf-16-be", "utf-16-le"])
def test_unsigned_claims_are_read(mime_type: str, encoding: str) -> None:
    verification = verify(draw(mime_type, encoding=encoding))
    metadata = verification.metadata
    assert (metadata.source_type, metadata.software) == (SOURCE_TYPE, SOFTWARE)
    assert (metadata.model, metadata.parameters) == (MODEL, PARAMETERS)
    assert verification.is_generated
    assert not verification.is_verified
    assert verification.manifest.state is ManifestState.ABSENT


@pytest.mark.parametrize("mime_type", FORMATS)
def test_a_picture_without_claims_claims_nothing(mime_type: str) -> None:
    verification = verify(draw_plain(mime_type))
    claims = verification.as_record()["metadata"]
    assert claims == dict.fromkeys(("source_type", "software", "model", "parameters", "problem"))
    assert not verification.is_generated


@pytest.mark.parametrize("mime_type", FORMATS)
def test_a_manifest_of_other_pixels_is_invalid(mime_type: str, authority: Authority) -> None:
    image = bytearray(authority.sign(draw(mime_type), mime_type))
    image[image.index(PIXELS[mime_type]) + 40] ^= 1
    verification = verify(bytes(image), trust_anchors=authority.anchor)
    assert verification.manifest.state is ManifestState.INVALID
    assert "Hash" in verification.manifest.problems[0]
    assert not verification.is_verified


def test_a_manifest_that_cannot_be_read_is_invalid(authority: Authority) -> None:
    image = authority.sign(draw("image/png"), "image/png", softwareAgent=AGENT)
    broken = image.replace(b"softwareAgent", b"softwareAgenx").replace(b"c2pa.claim", b"c2pa.clain")
    verification = verify(broken)
    assert verification.manifest.state is ManifestState.INVALID
    assert verification.metadata.problem  # its checksum


def test_the_time_of_creation_is_read(authority: Authority) -> None:
    image = authority.sign(draw("image/png"), "image/png", when="2026-08-02T10:00:00Z")
    manifest = verify(image).manifest
    assert manifest.created_at is not None
    assert manifest.created_at.isoformat() == "2026-08-02T10:00:00+00:00"
    assert manifest.signed_at is None
    assert verify(image).as_record()["manifest"] == {
        "state": "valid",
        "signer": SIGNER,
        "signed_at": None,
        "is_time_trusted": False,
        "created_at": "2026-08-02T10:00:00+00:00",
        "software": SOFTWARE,
        "model": None,
        "source_type": SOURCE_TYPE,
        "problems": [],
    }


def test_the_time_of_a_timestamp_is_trusted_if_an_anchor_vouches_for_its_authority(
    authority: Authority, tmp_path: Path
) -> None:
    with run_timestamp_authority(tmp_path) as url:
        signer = replace(authority, timestamp_url=url)
        image = signer.sign(draw("image/png"), "image/png")
    anchors = authority.anchor
    for is_trusted in (False, True):
        manifest = verify(image, trust_anchors=anchors).manifest
        assert manifest.state is ManifestState.TRUSTED
        assert manifest.signed_at is not None
        assert manifest.is_time_trusted is is_trusted
        anchors += (tmp_path / AUTHORITY).read_text()


def test_a_manifest_elsewhere_is_not_fetched(authority: Authority) -> None:
    image = authority.link(draw_plain("image/png"), "image/png", "http://127.0.0.1:9/picture")
    manifest = verify(image).manifest
    assert manifest.state is ManifestState.REMOTE
    assert "http://127.0.0.1:9/picture" in manifest.problems[0]


def test_without_the_extra_the_manifest_is_unchecked(
    authority: Authority, monkeypatch: pytest.MonkeyPatch
) -> None:
    image = authority.sign(draw("image/jpeg"), "image/jpeg")
    monkeypatch.setitem(sys.modules, "c2pa", None)
    verification = verify(image)
    assert verification.manifest.state is ManifestState.UNCHECKED
    assert verification.metadata.parameters == PARAMETERS
    with pytest.raises(ValueError, match=r"safelight\[provenance\]"):
        verify(image, trust_anchors=authority.anchor)


@pytest.mark.parametrize(
    "xmp", [WITH_ENTITY, "<x", XMP.replace("<x:xmpmeta", "<y"), "\xff", XMP + " " * 2**20]
)
def test_damaged_and_huge_xmp_claims_nothing(xmp: str) -> None:
    verification = verify(draw("image/webp", xmp=xmp))
    assert verification.metadata.source_type is None
    assert verification.metadata.parameters == PARAMETERS


@pytest.mark.parametrize("data", [b"", b"GIF89a", b"RIFF\0\0\0\0WAVE"])
def test_other_files_are_refused(data: bytes) -> None:
    with pytest.raises(ValueError, match="must be a PNG, JPEG or WebP"):
        verify(data)


@pytest.mark.parametrize("data", [b"\x89PNG\r\n\x1a\n", b"\xff\xd8\xff", b"RIFF\1\0\0\0WEBP"])
def test_damaged_images_claim_nothing(data: bytes) -> None:
    verification = verify(data)
    assert verification.metadata.problem == "the file is damaged"
    assert verification.manifest.state is ManifestState.ABSENT


def test_pixels_are_not_decoded() -> None:
    """A header of 30000 x 5000 pixels neither takes their memory nor warns."""
    image = draw_plain("image/png")
    large = image[:16] + struct.pack(">II", 30000, 5000) + image[24:]
    large = large[:29] + struct.pack(">I", zlib.crc32(large[12:29])) + large[33:]
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert verify(large).mime_type == "image/png"


def test_a_file_is_read_by_its_path(tmp_path: Path) -> None:
    (tmp_path / "circle.webp").write_bytes(draw("image/webp"))
    assert verify(tmp_path / "circle.webp").mime_type == "image/webp"
    with pytest.raises(FileNotFoundError):
        verify(str(tmp_path / "square.webp"))


@pytest.mark.parametrize("cut", [slice(0), slice(40), slice(200)])
def test_trust_anchors_must_be_certificates(cut: slice, authority: Authority) -> None:
    with pytest.raises(ValueError, match="must be certificates in PEM"):
        check_trust_anchors(authority.anchor[cut])
