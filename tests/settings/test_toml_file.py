"""TOML files: the line of each value, and errors of the whole file."""

from pathlib import Path

import pytest

from safelight_settings import ConfigurationError, TomlFile
from safelight_settings.keys import Path as KeyPath

TEXT = '''\
# A comment, and = signs that assign nothing.
queue_size = 3
text = """
not_a_key = 1
[not_a_table]
"""

[cache]
limits.memory_mib = 4   # dotted
inline = {folder = "a", disk_mib = 5}
numbers = [
    1,  # comment
    2,
]

[[models]]
name = "a"

[models.limits]
side = 1

[[models]]
name = "b"
[models.limits]
side = 2
'''


@pytest.fixture
def file(tmp_path: Path) -> Path:
    return tmp_path / "safelight.toml"


@pytest.mark.parametrize(
    ("path", "line"),
    [
        (("queue_size",), 2),
        (("text",), 3),
        (("cache",), 8),
        (("cache", "limits", "memory_mib"), 9),
        (("cache", "inline", "disk_mib"), 10),
        (("cache", "numbers", 1), 11),
        (("models", 0, "name"), 17),
        (("models", 0, "limits", "side"), 20),
        (("models", 1), 22),
        (("models", 1, "name"), 23),
        (("models", 1, "limits", "side"), 25),
        (("models", 1, "missing"), 22),
        (("cache", "missing", "deeper"), 8),
    ],
)
@pytest.mark.parametrize("newline", ["\n", "\r\n"])
def test_a_value_has_the_line_of_its_statement(
    path: KeyPath, line: int, newline: str, file: Path
) -> None:
    file.write_text(TEXT, newline=newline)
    assert TomlFile(file).locate(path).startswith(f"{file}:{line}: ")


def test_a_key_is_written_as_people_do(file: Path) -> None:
    file.write_text(TEXT)
    assert (
        TomlFile(file)
        .locate(("models", 1, "limits", "side"))
        .endswith(":25: models[1].limits.side")
    )


def test_a_value_that_is_nowhere_has_no_line(file: Path) -> None:
    file.write_text(TEXT)
    assert TomlFile(file).locate(("missing", "key")) == f"{file}: missing.key"


def test_a_byte_order_mark_is_accepted(file: Path) -> None:
    file.write_text("queue_size = 3\n", encoding="utf-8-sig")
    assert TomlFile(file).values == {"queue_size": 3}


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"a = 1\nb 2\n", r": Expected '=' after a key .*\(at line 2, column 3\)"),
        (b"a = 1\na = 2\n", r": Cannot overwrite a value \(at line 2, column 6\)"),
        (b"a = 1\nb = '\xff'\n", ":2: must be UTF-8"),
        (b"a = " + b"[" * 3000, ": is nested too deeply"),
        (b"a = " + b"1" * 5000, ": Exceeds the limit"),
    ],
)
def test_what_is_not_toml_is_an_error_that_names_the_file_and_the_line(
    content: bytes, message: str, file: Path
) -> None:
    file.write_bytes(content)
    with pytest.raises(ConfigurationError, match=rf"^{file}{message}"):
        TomlFile(file)


def test_what_cannot_be_read_is_an_error_that_names_the_file(tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError, match=rf"^cannot read {tmp_path}: Is a directory"):
        TomlFile(tmp_path)
