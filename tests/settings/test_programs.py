"""Programs: service and gateway load their settings alike, from the same kinds of sources."""

import pwd
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import pytest

import safelight_gateway.settings
import safelight_service.settings
from safelight_settings import ConfigurationError


class Program(NamedTuple):
    """Program, and one of its settings: `size`, a number in `table`."""

    load: Callable[..., Any]
    prefix: str
    table: str
    size: str

    @property
    def variable(self) -> str:
        """Environment variable of the number."""
        return f"{self.prefix}{self.table}__{self.size}".upper()

    def load_size(self, file: Path | None = None) -> int:
        """Load the settings, and return the number."""
        return int(getattr(getattr(self.load({}, file), self.table), self.size))


PROGRAMS = {
    "service": Program(
        safelight_service.settings.load_settings, "SAFELIGHT_", "cache", "memory_mib"
    ),
    "gateway": Program(
        safelight_gateway.settings.load_settings, "SAFELIGHT_GATEWAY_", "files", "keep_mib"
    ),
}


@pytest.fixture(params=PROGRAMS)
def program(request: pytest.FixtureRequest) -> Program:
    return PROGRAMS[request.param]


@pytest.fixture
def file(tmp_path: Path) -> Path:
    return tmp_path / "program.toml"


def error_of(program: Program, file: Path | None = None, **options: object) -> str:
    with pytest.raises(ConfigurationError) as raised:
        program.load(options, file)
    return str(raised.value)


def test_options_win_over_variables_and_these_over_the_file(
    program: Program, file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file.write_text('listen = "127.0.0.1:1"\ngrace_s = 1\nlog_level = "debug"\n')
    monkeypatch.setenv(f"{program.prefix}LISTEN", "127.0.0.1:2")
    monkeypatch.setenv(f"{program.prefix}GRACE_S", "2")
    settings = program.load({"listen": "127.0.0.1:3"}, file)
    assert (settings.listen, settings.grace_s, settings.log_level) == ("127.0.0.1:3", 2, "debug")


def test_a_variable_names_the_file(
    program: Program, file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file.write_text("grace_s = 7\n")
    monkeypatch.setenv(f"{program.prefix}CONFIG", str(file))
    assert program.load().grace_s == 7


def test_the_constructor_reads_no_variables(
    program: Program, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings = type(program.load())
    monkeypatch.setenv(f"{program.prefix}GRACE_S", "7")
    assert settings().grace_s == 30


def test_a_missing_file_is_an_error_that_says_where_it_was_named(
    program: Program, file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    reason = f"cannot read {file}: No such file or directory"
    assert error_of(program, file) == f"--config: {reason}"
    monkeypatch.setenv(f"{program.prefix}CONFIG", str(file))
    assert error_of(program) == f"{program.prefix}CONFIG: {reason}"


# Variables of nested settings


def test_a_nested_setting_has_a_plain_variable(
    program: Program, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(program.variable, "3")
    assert program.load_size() == 3


def test_a_nested_variable_wins_over_the_file_and_leaves_the_rest_of_the_table(
    program: Program, file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file.write_text('[tls]\ncertificate = "/c.pem"\nprivate_key = "/k.pem"\n')
    monkeypatch.setenv(f"{program.prefix}TLS__PRIVATE_KEY", "/other.pem")
    tls = program.load({}, file).tls
    assert (tls.certificate, tls.private_key) == (Path("/c.pem"), Path("/other.pem"))


def test_nested_variables_alone_make_an_optional_table(
    program: Program, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(f"{program.prefix}TLS__CERTIFICATE", "/c.pem")
    monkeypatch.setenv(f"{program.prefix}TLS__PRIVATE_KEY", "/k.pem")
    assert program.load().tls.certificate == Path("/c.pem")


def test_a_nested_variable_wins_over_that_of_its_table(
    program: Program, monkeypatch: pytest.MonkeyPatch
) -> None:
    table = '{"certificate": "/c.pem", "private_key": "/k.pem"}'
    monkeypatch.setenv(f"{program.prefix}TLS", table)
    monkeypatch.setenv(f"{program.prefix}TLS__PRIVATE_KEY", "/other.pem")
    tls = program.load().tls
    assert (tls.certificate, tls.private_key) == (Path("/c.pem"), Path("/other.pem"))


@pytest.mark.parametrize(
    ("name", "closest"),
    [
        ("GRACE", "GRACE_S"),
        ("TLS__CERTIFICATES", "TLS__CERTIFICATE"),
        ("TLS_CERTIFICATE", "TLS__CERTIFICATE"),
        ("TLS__PRIVATE_KEY__X", "TLS__PRIVATE_KEY"),
        ("LISTEN_PORT", "LISTEN"),
    ],
)
def test_a_mistyped_variable_is_an_error_that_suggests_the_closest_one(
    name: str, closest: str, program: Program, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(program.prefix + name, "1")
    assert error_of(program) == (
        f"the environment variable {program.prefix}{name} is not a setting; "
        f"did you mean {program.prefix}{closest}?"
    )


def test_a_variable_that_is_like_no_other_is_an_error_without_a_suggestion(
    program: Program, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(f"{program.prefix}XYZZY", "1")
    assert error_of(program).endswith("XYZZY is not a setting")


def test_a_table_that_is_not_json_is_an_error(
    program: Program, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(f"{program.prefix}TLS", "{certificate}")
    assert error_of(program).startswith(f"{program.prefix}TLS: must be JSON: Expecting property")


def test_a_wrong_value_names_its_variable(
    program: Program, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(program.variable, "-1")
    assert error_of(program).startswith(f"{program.variable}: Input should be greater than")


def test_a_wrong_value_in_json_names_its_variable_and_its_key(
    program: Program, monkeypatch: pytest.MonkeyPatch
) -> None:
    variable = f"{program.prefix}{program.table}".upper()
    monkeypatch.setenv(variable, f'{{"{program.size}": -1}}')
    key = f"{program.table}.{program.size}"
    assert error_of(program).startswith(f"{variable}: {key}: Input should be greater than")


# Kubernetes

LINKS = {
    "PORT": "tcp://10.0.0.1:50051",
    "SERVICE_HOST": "10.0.0.1",
    "SERVICE_PORT": "50051",
    "SERVICE_PORT_GRPC": "50051",
    "PORT_50051_TCP": "tcp://10.0.0.1:50051",
    "PORT_50051_TCP_ADDR": "fd00::1",
    "PORT_50051_TCP_PORT": "50051",
    "PORT_50051_TCP_PROTO": "tcp",
    "REDIS_MASTER_SERVICE_HOST": "10.0.0.2",
    "REDIS_MASTER_PORT": "tcp://10.0.0.2:6379",
}


def test_service_links_of_kubernetes_are_ignored(
    program: Program, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, value in LINKS.items():
        monkeypatch.setenv(program.prefix + name, value)
    program.load()


@pytest.mark.parametrize(("name", "value"), [("PORT", "50051"), ("SERVICE_PORT", "grpc")])
def test_what_only_looks_like_a_service_link_is_refused(
    name: str, value: str, program: Program, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(program.prefix + name, value)
    assert f"{program.prefix}{name} is not a setting" in error_of(program)


# The file


def test_a_mistyped_key_names_the_line_and_the_closest_key(program: Program, file: Path) -> None:
    table, size = program.table, program.size
    file.write_text(f"grace_s = 3\n\n[{table}]\n{size}s = 4\n")
    assert error_of(program, file) == (
        f"{file}:4: {table}.{size}s is not a setting; did you mean {table}.{size}?"
    )


def test_a_key_in_the_wrong_table_names_the_right_one(program: Program, file: Path) -> None:
    file.write_text(f"[{program.table}]\ngrace_s = 4\n")
    assert error_of(program, file) == (
        f"{file}:2: {program.table}.grace_s is not a setting; did you mean grace_s?"
    )


def test_every_problem_has_a_line_of_its_own(program: Program, file: Path) -> None:
    file.write_text(f"grace_s = -1\nxyzzy = 1\n[{program.table}]\n{program.size} = -1\n")
    starts = [line.split(": ")[0] for line in error_of(program, file).splitlines()]
    assert sorted(starts) == [
        f"{file}:1",
        f"{file}:2",
        f"{file}:4",
    ]


def test_an_infinite_number_is_refused(program: Program, file: Path) -> None:
    file.write_text("grace_s = inf\n")
    assert error_of(program, file) == f"{file}:1: grace_s: Input should be a finite number"


def test_a_value_of_an_option_is_not_blamed_on_the_file(program: Program, file: Path) -> None:
    file.write_text('listen = "127.0.0.1:1"\n')
    assert error_of(program, file, listen="x").startswith("--listen: must be HOST:PORT")


def test_keys_of_the_file_are_written_in_lower_case(program: Program, file: Path) -> None:
    file.write_text("GRACE_S = 1\n")
    assert f"{file}:1: GRACE_S is not a setting" in error_of(program, file)


# Paths


def test_relative_paths_in_a_file_start_at_its_folder(
    program: Program, file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file.write_text('[tls]\ncertificate = "tls/c.pem"\nprivate_key = "/k.pem"\n')
    monkeypatch.chdir("/")
    tls = program.load({}, file).tls
    assert (tls.certificate, tls.private_key) == (tmp_path / "tls" / "c.pem", Path("/k.pem"))
    monkeypatch.chdir(tmp_path)
    assert program.load({}, Path(file.name)).tls.certificate == tmp_path / "tls" / "c.pem"


def test_a_tilde_is_the_home_folder(
    program: Program, file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    file.write_text('[tls]\ncertificate = "~/c.pem"\nprivate_key = "/k.pem"\n')
    monkeypatch.setenv(f"{program.prefix}TLS__PRIVATE_KEY", "~/k.pem")
    tls = program.load({}, Path("~") / file.name).tls
    assert (tls.certificate, tls.private_key) == (tmp_path / "c.pem", tmp_path / "k.pem")


def test_a_tilde_without_a_home_folder_is_an_error_that_names_the_setting(
    program: Program, file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def find_nobody(user_id: int) -> None:
        raise KeyError(user_id)

    monkeypatch.delenv("HOME", raising=False)
    monkeypatch.setattr(pwd, "getpwuid", find_nobody)
    file.write_text('[tls]\ncertificate = "~/c.pem"\nprivate_key = "/k.pem"\n')
    assert f"{file}:2: tls.certificate: cannot expand ~ in ~/c.pem" in error_of(program, file)


def test_an_empty_path_of_a_file_that_is_needed_is_refused(
    program: Program, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(f"{program.prefix}TLS__CERTIFICATE", "")
    monkeypatch.setenv(f"{program.prefix}TLS__PRIVATE_KEY", "/k.pem")
    assert error_of(program) == f"{program.prefix}TLS__CERTIFICATE: must name a file"
