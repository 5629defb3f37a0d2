"""Architecture: the allowed imports between packages."""

import ast
import functools
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

import safelight_service

PACKAGE = Path(safelight_service.__file__).parent
MODULES = sorted(PACKAGE.rglob("*.py"))


@functools.cache
def imported_names(module: Path) -> frozenset[str]:
    nodes = ast.walk(ast.parse(module.read_text()))
    return frozenset(name for node in nodes for name in imported_names_of(node))


def imported_names_of(node: ast.AST) -> Iterator[str]:
    if isinstance(node, ast.Import):
        yield from (alias.name for alias in node.names)
    elif isinstance(node, ast.ImportFrom):
        yield node.module or ""


def importers(*packages: str) -> set[str]:
    """Return the modules that import one of the packages, as paths below the service's package."""
    return {
        module.relative_to(PACKAGE).as_posix()
        for module in MODULES
        for name in imported_names(module)
        if any(name == package or name.startswith(f"{package}.") for package in packages)
    }


def test_torch_and_diffusers_are_imported_below_engine_only() -> None:
    users = importers("torch", "diffusers", "transformers")
    assert users
    assert all(user.startswith("engine/") for user in users)


def test_all_but_the_engine_and_its_composition_root_start_without_torch() -> None:
    """Indirect imports count, too: they take seconds, and most parts do not need them."""
    names = [
        ".".join(("safelight_service", *module.relative_to(PACKAGE).with_suffix("").parts))
        for module in MODULES
        if not module.relative_to(PACKAGE)
        .as_posix()
        .startswith(("engine/", "app.py", "__main__", "fleet/ray_"))
    ]
    assert len(names) > 40
    program = "import sys\n" + "".join(
        f"import {name.removesuffix('.__init__')}\n"
        f"assert not sys.modules.keys() & {{'torch', 'diffusers', 'transformers'}}, {name!r}\n"
        for name in names
    )
    subprocess.run([sys.executable, "-c", program], check=True, timeout=60)


def test_ray_is_imported_by_its_own_modules_only() -> None:
    users = importers("ray")
    assert users
    assert all(user.startswith("fleet/ray_") for user in users)


def test_the_engine_is_built_by_the_composition_root_only() -> None:
    users = importers("safelight_service.engine")
    assert {user for user in users if not user.startswith("engine/")} == {"app.py"}


def test_grpc_and_protobuf_are_imported_below_grpc_server_only() -> None:
    users = importers(
        "grpc", "google", "grpc_health", "grpc_reflection", "grpc_status", "safelight"
    )
    assert users
    assert all(user.startswith("grpc_server/") for user in users)


def test_the_service_uses_only_the_stubs_of_the_client_distribution() -> None:
    names = {
        name
        for module in MODULES
        for name in imported_names(module)
        if name.split(".")[0] == "safelight"
    }
    assert names == {"safelight.v1"}


OBSERVED = ("telemetry/", "grpc_server/interceptors/tracing.py")


def test_opentelemetry_is_imported_by_telemetry_and_the_tracing_of_calls_only() -> None:
    users = importers("opentelemetry", "prometheus_client")
    assert users
    assert all(user.startswith(OBSERVED) for user in users)


def test_telemetry_is_imported_at_need_only() -> None:
    """Telemetry that is off then costs nothing; only `signals.py` is imported."""
    free = {"safelight_service.telemetry.signals"}
    for module in MODULES:
        if module.relative_to(PACKAGE).as_posix().startswith(OBSERVED):
            continue
        statements = ast.parse(module.read_text()).body
        at_once = [each for each in statements if isinstance(each, ast.Import | ast.ImportFrom)]
        names = {name for each in at_once for name in imported_names_of(each)}
        names -= free
        assert not any("telemetry" in name or name.endswith(".tracing") for name in names)
    assert importers("opentelemetry", "prometheus_client").isdisjoint({"telemetry/signals.py"})


def test_the_service_never_forks() -> None:
    """Fault 50: gRPC does not survive a fork, so the service uses threads.

    `subprocess.run` without options that need a fork starts a program by vfork.
    """
    starters = importers("multiprocessing", "subprocess", "concurrent.futures.process")
    assert starters == {"provenance/signer_command.py"}
    command = (PACKAGE / "provenance/signer_command.py").read_text()
    assert command.count("subprocess.run(") == 1
    assert "preexec_fn" not in command
    assert not any("os.fork" in module.read_text() for module in MODULES)


def test_the_c2pa_library_is_imported_where_images_are_signed_only() -> None:
    """The extra `provenance` has it."""
    assert importers("c2pa") == {"provenance/signer.py"}
    signing = {
        f"provenance/{name}.py" for name in ("credentials", "dev_certificate", "signer_command")
    }
    assert importers("cryptography") == signing


def test_the_faults_in_the_docs_are_tested_where_they_say() -> None:
    rows = re.findall(r"(?m)^\| (\d+) \|(.*)$", Path("docs/reliability.md").read_text())
    assert [int(number) for number, _ in rows] == [*range(1, 51)]
    for _, row in rows:
        for file, names in re.findall(r"`([\w/]+\.py)`:((?:,? `test_\w+`)+)", row):
            path = Path(file if file.startswith("tests/") else f"tests/service/{file}")
            tests = re.findall(r"def (test_\w+)", path.read_text())
            assert set(re.findall(r"test_\w+", names)) <= set(tests)


@pytest.mark.parametrize(
    "module", MODULES, ids=lambda module: module.relative_to(PACKAGE).as_posix()
)
def test_every_module_says_in_one_line_what_it_is(module: Path) -> None:
    docstring = ast.get_docstring(ast.parse(module.read_text()))
    assert docstring
    assert docstring.splitlines()[0].endswith(".")
