"""Marker: signs images, and says why it cannot."""

import io
import json
import os
import shutil
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from datetime import datetime, tzinfo
from pathlib import Path
from typing import Any

import c2pa
import PIL.Image
import pytest
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa
from cryptography.hazmat.primitives.asymmetric.utils import decode_dss_signature
from structlog.testing import capture_logs

from safelight_service.provenance import signer as signer_module
from safelight_service.provenance.dev_certificate import write_dev_certificate
from safelight_service.provenance.marker import Marker, UnsignedImageError
from safelight_service.provenance.signer_command import SignerCommand, SignerError
from safelight_service.settings import ConfigurationError, ProvenanceSettings
from support.provenance.samples import FORMATS, ORIGIN, dev_settings, write_file
from support.provenance.timestamp_authority import run_timestamp_authority

MAX_BYTES = 4096
needs_openssl = pytest.mark.skipif(
    shutil.which("openssl") is None, reason="openssl, which signs here, is not installed"
)


def sign(marker: Marker, mime_type: str = "image/png") -> bytes:
    signed = marker.sign(write_file(mime_type, marker), mime_type, ORIGIN)
    assert signed is not None
    return signed


def read(data: bytes, mime_type: str = "image/png") -> c2pa.Reader:
    return c2pa.Reader(mime_type, io.BytesIO(data))


@pytest.mark.parametrize("mime_type", FORMATS)
def test_a_signed_file_is_valid_small_and_has_the_same_pixels(
    mime_type: str, tmp_path: Path
) -> None:
    marker = Marker(dev_settings(tmp_path))
    data = write_file(mime_type, marker)
    signed = marker.sign(data, mime_type, ORIGIN)
    assert signed is not None
    assert read(signed, mime_type).get_validation_state() == "Valid"
    assert len(signed) - len(data) < MAX_BYTES
    pictures = [PIL.Image.open(io.BytesIO(each)) for each in (data, signed)]
    assert pictures[0].tobytes() == pictures[1].tobytes()
    assert pictures[1].info["xmp"] == marker.tag(ORIGIN).xmp
    forged = signed.replace(b'AISystemUsed="shapes"', b'AISystemUsed="nobody"')
    assert read(forged, mime_type).get_validation_state() == "Invalid"


@pytest.mark.parametrize("include_prompts", [False, True])
def test_a_manifest_claims_what_made_the_image(include_prompts: bool, tmp_path: Path) -> None:
    marker = Marker(dev_settings(tmp_path, include_prompts=include_prompts))
    manifest: Any = read(sign(marker)).get_active_manifest()
    assert manifest["claim_generator_info"][0]["name"] == "Safelight"
    assertions = {each["label"]: each["data"] for each in manifest["assertions"]}
    [action] = assertions.pop("c2pa.actions.v2")["actions"]
    assert action["action"] == "c2pa.created"
    assert action["digitalSourceType"].endswith("/trainedAlgorithmicMedia")
    assert action["softwareAgent"] == {"name": "shapes", "version": "r1"}
    prompts = {"prompt": "a red circle 🎈", "negative_prompt": "blurred, dark"}
    assert list(assertions.values()) == [prompts] * include_prompts


def test_threads_sign_at_the_same_time(tmp_path: Path) -> None:
    marker = Marker(dev_settings(tmp_path))
    with ThreadPoolExecutor(8) as threads:
        for signed in threads.map(lambda _: sign(marker), range(16)):
            assert read(signed).get_validation_state() == "Valid"


KEYS: dict[str, Callable[[], Any]] = {
    "P-384": lambda: ec.generate_private_key(ec.SECP384R1()),
    "P-521": lambda: ec.generate_private_key(ec.SECP521R1()),
    "Ed25519": ed25519.Ed25519PrivateKey.generate,
    "RSA": lambda: rsa.generate_private_key(65537, 2048),
}


@pytest.mark.parametrize("kind", KEYS)
def test_all_kinds_of_keys_sign(kind: str, tmp_path: Path) -> None:
    write_dev_certificate(tmp_path, key=KEYS[kind]())
    signed = sign(Marker(dev_settings(tmp_path)))
    assert read(signed).get_validation_state() == "Valid"


def test_bad_certificates_fail_at_the_start(tmp_path: Path) -> None:
    good, expired = dev_settings(tmp_path / "good"), tmp_path / "expired"
    write_dev_certificate(expired, valid_days=0)
    other = dev_settings(tmp_path / "other")
    (tmp_path / "text.pem").write_text("no certificate")
    wrong: list[tuple[dict[str, object], str]] = [
        ({"certificate": expired / "certificate.pem"}, "has expired on"),
        ({"private_key": other.private_key}, "does not belong"),
        ({"private_key": good.certificate}, "private_key: .* must hold a key"),
        ({"private_key": tmp_path / "none"}, "private_key: cannot read .*none: No such file"),
        ({"certificate": tmp_path / "none"}, "certificate: cannot read .*none: No such file"),
        ({"certificate": tmp_path / "text.pem"}, "certificate: .* must hold certificates"),
        ({"certificate": tmp_path / "good" / "authority.pem"}, "provenance: "),
        ({"private_key": None, "signer_command": ("none",)}, "signer_command does not start"),
        ({"private_key": None, "signer_command": ("false",)}, "signer_command exits with 1"),
        ({"private_key": None, "signer_command": ("cat",)}, "does not write a signature"),
    ]
    for change, message in wrong:
        with pytest.raises(ConfigurationError, match=message):
            Marker(good.model_copy(update=change))


def test_a_replaced_certificate_signs_without_a_restart(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(signer_module, "RELOAD_EVERY_S", 0.0)
    marker = Marker(dev_settings(tmp_path / "used"))
    serial_numbers = [read(sign(marker)).get_active_manifest()["signature_info"]]
    before = marker.identity
    dev_settings(tmp_path / "new")
    os.replace(tmp_path / "new" / "private_key.pem", tmp_path / "used" / "private_key.pem")
    with capture_logs() as logs:
        serial_numbers.append(read(sign(marker)).get_active_manifest()["signature_info"])
    assert [line["event"] for line in logs] == ["reload_failed"]  # half of it is there
    assert marker.identity == before
    os.replace(tmp_path / "new" / "certificate.pem", tmp_path / "used" / "certificate.pem")
    serial_numbers.append(read(sign(marker)).get_active_manifest()["signature_info"])
    assert serial_numbers[0] == serial_numbers[1] != serial_numbers[2]
    assert marker.identity != before


@needs_openssl
def test_a_command_signs_in_place_of_a_key(tmp_path: Path) -> None:
    settings = dev_settings(tmp_path)
    command = ("openssl", "dgst", "-sha256", "-sign", str(settings.private_key))
    change = {"private_key": None, "signer_command": command}
    signed = sign(Marker(settings.model_copy(update=change)))
    assert read(signed).get_validation_state() == "Valid"


def test_a_command_may_write_a_signature_as_pkcs_11_does(tmp_path: Path) -> None:
    key = ec.generate_private_key(ec.SECP256R1())
    signature = key.sign(b"claim", ec.ECDSA(hashes.SHA256()))
    file = tmp_path / "signature"
    file.write_bytes(b"".join(part.to_bytes(32) for part in decode_dss_signature(signature)))
    assert SignerCommand(("cat", str(file)), key.public_key())(b"claim") == signature
    with pytest.raises(SignerError, match="does not write a signature"):
        SignerCommand(("cat", str(file)), key.public_key())(b"another claim")


@needs_openssl
@pytest.mark.parametrize("required", [False, True])
def test_an_image_is_sent_unsigned_only_where_no_signature_is_required(
    required: bool, tmp_path: Path
) -> None:
    settings = dev_settings(tmp_path)
    key = tmp_path / "hardware.pem"
    key.symlink_to(settings.private_key or "")
    command = ("openssl", "dgst", "-sha256", "-sign", str(key))
    change = {"private_key": None, "signer_command": command, "required": required}
    marker = Marker(settings.model_copy(update=change))
    sign(marker)
    key.unlink()
    data = write_file("image/png", marker)
    with capture_logs() as logs:
        if required:
            with pytest.raises(UnsignedImageError):
                marker.sign(data, "image/png", ORIGIN)
        else:
            assert marker.sign(data, "image/png", ORIGIN) is None
    assert "signer_command exits with 1" in logs[0]["error"]


@needs_openssl
def test_an_authority_adds_the_time(tmp_path: Path) -> None:
    with run_timestamp_authority(tmp_path / "authority") as url:
        marker = Marker(dev_settings(tmp_path, timestamp_url=url))
        reader = read(sign(marker))
    manifest: Any = reader.get_active_manifest()
    assert reader.get_validation_state() == "Valid"
    assert datetime.fromisoformat(manifest["signature_info"]["time"]).tzinfo is not None


def test_an_authority_that_fails_costs_the_timestamp_only(tmp_path: Path) -> None:
    with capture_logs() as logs:
        marker = Marker(dev_settings(tmp_path, timestamp_url="http://127.0.0.1:9/"))
        for _ in range(3):
            assert read(sign(marker)).get_validation_state() == "Valid"
    assert [line["event"] for line in logs] == ["timestamp_authority_failing"]


def test_results_of_a_certificate_that_has_expired_are_not_replayed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Later(datetime):
        @classmethod
        def now(cls, tz: tzinfo | None = None) -> "Later":
            return cls(9999, 1, 1, tzinfo=tz)

    marker = Marker(dev_settings(tmp_path))
    before = marker.identity
    monkeypatch.setattr(signer_module, "datetime", Later)
    assert marker.identity != before


def test_the_identity_changes_with_whatever_changes_the_bytes(tmp_path: Path) -> None:
    changes: list[dict[str, object]] = [
        {},
        {"include_prompts": True},
        {"include_parameters": False},
        {"timestamp_url": "http://127.0.0.1:9/"},
    ]
    markers = [Marker(dev_settings(tmp_path, **change)) for change in changes]
    markers += [Marker(ProvenanceSettings()), Marker(dev_settings(tmp_path / "other"))]
    assert len({json.dumps(marker.identity) for marker in markers}) == len(markers)
