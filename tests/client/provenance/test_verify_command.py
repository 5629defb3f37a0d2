"""The command `safelight verify`."""

import json
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from safelight.cli import main

from support.signed_images.pictures import draw, draw_plain
from support.signed_images.signing import SIGNER, Authority, make_authority

Run = Callable[..., tuple[object, str, str]]


@pytest.fixture
def run(
    authority: Authority,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    tmp_path: Path,
) -> Run:
    """Runs `safelight verify` in a folder with images; returns exit code and output."""
    monkeypatch.chdir(tmp_path)
    signed = authority.sign(draw("image/png"), "image/png")
    Path("signed.png").write_bytes(signed)
    Path("plain.webp").write_bytes(draw_plain("image/webp"))
    Path("damaged.png").write_bytes(signed[:-20] + b"x" + signed[-19:])
    Path("notes.txt").write_text("no image")
    Path("anchor.pem").write_text(authority.anchor)
    Path("other.pem").write_text(make_authority().anchor)

    def run(*arguments: str) -> tuple[object, str, str]:
        monkeypatch.setattr(sys, "argv", ["safelight", "verify", *arguments])
        with pytest.raises(SystemExit) as exited:
            main()
        return exited.value.code, *capsys.readouterr()

    return run


@pytest.mark.parametrize(
    ("arguments", "code", "words"),
    [
        (["signed.png"], 0, "manifest: valid, but its signer may be anybody"),
        (["signed.png", "--trust-anchors", "anchor.pem"], 0, "its signer is trusted"),
        (["signed.png", "--trust-anchors", "other.pem"], 1, "signingCredential.untrusted"),
        (["plain.webp"], 1, "manifest: none"),
        (["damaged.png"], 1, "INVALID"),
        (["notes.txt"], 1, "must be a PNG, JPEG or WebP"),
        (["absent.png"], 1, "No such file"),
        (["signed.png", "plain.webp"], 1, "signer may be anybody"),
        (["signed.png"], 0, f"signer: {SIGNER}"),
        (["signed.png"], 0, r"unsigned parameters: a café\nSteps: 4"),
    ],
)
def test_the_exit_code_tells_whether_all_files_are_verified(
    arguments: list[str], code: int, words: str, run: Run
) -> None:
    ended, stdout, stderr = run(*arguments)
    assert (ended, stderr) == (code, "")
    assert words in stdout


def test_json_has_a_line_for_each_file(run: Run) -> None:
    code, stdout, _ = run("--json", "signed.png", "notes.txt")
    first, second = map(json.loads, stdout.splitlines())
    assert code == 1
    assert (first["path"], first["is_verified"]) == ("signed.png", True)
    assert first["manifest"]["signer"] == SIGNER
    assert second == {"path": "notes.txt", "error": "must be a PNG, JPEG or WebP"}


def test_trust_anchors_that_are_none_are_a_usage_error(run: Run) -> None:
    code, stdout, stderr = run("signed.png", "--trust-anchors", "notes.txt")
    assert (code, stdout) == (2, "")
    assert "must be certificates in PEM" in stderr


def test_claims_cannot_control_the_terminal(authority: Authority, run: Run) -> None:
    image = authority.sign(
        draw("image/png"), "image/png", softwareAgent={"name": "\x1b[2Jmodel\u202e"}
    )
    Path("hostile.png").write_bytes(image)
    _, stdout, _ = run("hostile.png")
    assert r"model: \x1b[2Jmodel\u202e" in stdout
    assert stdout.replace("\n", "").isprintable()
