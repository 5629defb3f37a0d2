"""Tags: other programs find the mark and the parameters in files of all formats."""

import io
import xml.etree.ElementTree as ET

import PIL.Image
import pytest

from safelight_service.provenance.marker import Marker
from safelight_service.provenance.origin import Origin
from safelight_service.provenance.samplers import sampler_name
from safelight_service.settings import ProvenanceSettings
from support.provenance.samples import FORMATS, ORIGIN, with_prompt, write_file

PLAIN = Marker(ProvenanceSettings())
IPTC = "{http://iptc.org/std/Iptc4xmpExt/2008-02-29/}"
TEXT = (
    "a red circle 🎈\nNegative prompt: blurred, dark\n"
    "Steps: 20, Sampler: Euler a, CFG scale: 4.0, Seed: 7, Size: 96x64, Model: shapes, "
    "Scheduler: euler_a"
)


def read(data: bytes) -> PIL.Image.Image:
    return PIL.Image.open(io.BytesIO(data))


def read_parameters(data: bytes) -> str | None:
    """Read as AUTOMATIC1111's web UI does, which reads EXIF with piexif."""
    picture = read(data)
    if "parameters" in picture.info:
        return str(picture.info["parameters"])
    comment = picture.getexif().get_ifd(0x8769).get(0x9286)
    if comment is None:
        return None
    assert b"\x92\x86\x00\x07" in data  # the type UNDEFINED, or piexif refuses it
    assert comment.startswith(b"UNICODE\0")
    return str(comment[8:].decode("utf-16-be"))


@pytest.mark.parametrize("mime_type", FORMATS)
def test_a_file_says_that_it_is_generated_and_how(mime_type: str) -> None:
    data = write_file(mime_type, PLAIN)
    packet = read(data).info["xmp"]
    [description] = ET.fromstring(packet)[0]
    assert description.get(f"{IPTC}DigitalSourceType") == (
        "http://cv.iptc.org/newscodes/digitalsourcetype/trainedAlgorithmicMedia"
    )
    assert description.get("{http://ns.adobe.com/xap/1.0/}CreatorTool") == "Safelight"
    assert description.get(f"{IPTC}AISystemUsed") == "shapes"
    assert description.get(f"{IPTC}AISystemVersionUsed") == "r1"
    assert read_parameters(data) == TEXT


@pytest.mark.parametrize("mime_type", FORMATS)
def test_tags_keep_the_pixels_and_are_the_same_each_time(mime_type: str) -> None:
    picture = PIL.Image.effect_noise((96, 64), 64).convert("RGB")
    data = write_file(mime_type, PLAIN, picture=picture)
    assert write_file(mime_type, PLAIN, picture=picture) == data
    bare = io.BytesIO()
    picture.save(bare, FORMATS[mime_type])
    assert read(data).tobytes() == read(bare.getvalue()).tobytes()


@pytest.mark.parametrize("mime_type", FORMATS)
def test_prompts_and_parameters_can_be_left_out(mime_type: str) -> None:
    marker = Marker(ProvenanceSettings(include_parameters=False))
    data = write_file(mime_type, marker, with_prompt("a secret"))
    assert read_parameters(data) is None
    for encoding in ("utf-8", "utf-16-be"):
        assert "secret".encode(encoding) not in data
    assert b"trainedAlgorithmicMedia" in data


@pytest.mark.parametrize("mime_type", FORMATS)
def test_the_longest_prompts_make_a_file_that_is_marked(mime_type: str) -> None:
    data = write_file(mime_type, PLAIN, with_prompt("é" * 100_000))
    read(data).load()
    assert b"trainedAlgorithmicMedia" in data
    assert (read_parameters(data) is None) is (mime_type == "image/jpeg")


def test_a_revision_cannot_break_the_xmp_packet() -> None:
    origin = Origin("a/b:c", "\"'<&>", ORIGIN.request, 7, "")
    [description] = ET.fromstring(read(write_file("image/png", PLAIN, origin)).info["xmp"])[0]
    assert description.get(f"{IPTC}AISystemVersionUsed") == "\"'<&>"


@pytest.mark.parametrize(
    ("class_name", "config", "name"),
    [
        ("EulerAncestralDiscreteScheduler", {}, "Euler a"),
        ("FlowMatchEulerDiscreteScheduler", {}, "Euler"),
        ("DPMSolverMultistepScheduler", {"use_karras_sigmas": False}, "DPM++ 2M"),
        ("DPMSolverMultistepScheduler", {"use_karras_sigmas": True}, "DPM++ 2M Karras"),
        (
            "DPMSolverMultistepScheduler",
            {"algorithm_type": "sde-dpmsolver++", "use_karras_sigmas": True},
            "DPM++ 2M SDE Karras",
        ),
        ("LMSDiscreteScheduler", {"use_beta_sigmas": True}, "LMS Beta"),
        ("UniPCMultistepScheduler", {"algorithm_type": None}, "UniPC"),
        ("NewScheduler", {}, "NewScheduler"),
    ],
)
def test_samplers_have_the_names_that_other_programs_know(
    class_name: str, config: dict[str, object], name: str
) -> None:
    assert sampler_name(class_name, config) == name
