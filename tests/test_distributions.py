"""Distributions: four with one version and licence, typed, and buildable from sdists."""

import re
import shutil
import subprocess
import sys
import tarfile
from importlib.metadata import version
from pathlib import Path
from zipfile import ZipFile

import pytest
import safelight

import safelight_gateway.version
import safelight_service.version
from support.distributions import FOLDERS, ROOT, read_metadata

VERSION_FILE = "clients/python/safelight/_version.py"
OTHER = "7.8.9"


@pytest.fixture(scope="module")
def bumped(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The files of this repository that builds read, with another version in its one place."""
    root = tmp_path_factory.mktemp("bumped")
    for folder in FOLDERS:
        (root / folder).mkdir(parents=True)
        for name in ("pyproject.toml", "README.md", "LICENSE", "hatch_build.py"):
            if (ROOT / folder / name).exists():
                shutil.copy(ROOT / folder / name, root / folder)
    text = (ROOT / VERSION_FILE).read_text()
    (root / VERSION_FILE).parent.mkdir()
    (root / VERSION_FILE).write_text(text.replace(f'"{safelight.__version__}"', f'"{OTHER}"'))
    return root


@pytest.mark.parametrize("folder", FOLDERS)
def test_one_line_sets_the_version_of_all_and_their_pins(folder: str, bumped: Path) -> None:
    metadata = read_metadata(folder, bumped)
    assert metadata.version == OTHER
    siblings = [name for name in metadata.core.dependencies if name.startswith("safelight")]
    pinned = [f"safelight-settings=={OTHER}", f"safelight=={OTHER}"]
    assert siblings == ([] if folder in ("settings", "clients/python") else pinned)


def test_modules_and_metadata_say_this_version() -> None:
    versions = {read_metadata(folder).version for folder in FOLDERS}
    modules = (safelight, safelight_gateway.version, safelight_service.version)
    installed = {version(read_metadata(folder).core.raw_name) for folder in FOLDERS}
    shown = {module.__version__ for module in modules}
    assert versions == shown == installed == {safelight.__version__}


def test_both_build_hooks_are_one() -> None:
    service, gateway = (
        ROOT / folder / "hatch_build.py" for folder in ("service", "clients/gateway")
    )
    assert service.read_text() == gateway.read_text()


@pytest.mark.parametrize("folder", FOLDERS)
def test_each_has_the_licence_and_its_types(folder: str) -> None:
    metadata = read_metadata(folder)
    assert metadata.core.license_files == ["LICENSE"]
    assert not (ROOT / folder / "LICENSE").is_symlink()  # an archive would keep the link only
    assert (ROOT / folder / "LICENSE").read_text() == (ROOT / "LICENSE").read_text()
    assert "Typing :: Typed" in metadata.core.classifiers
    assert (ROOT / folder / metadata.name.replace("-", "_") / "py.typed").is_file()


@pytest.mark.parametrize("folder", FOLDERS)
def test_pins_satisfy_what_each_declares(folder: str) -> None:
    pins = dict(re.findall(r"^([\w-]+)==(\S+)", (ROOT / "requirements.txt").read_text(), re.M))
    for requirement in read_metadata(folder).core.dependencies_complex.values():
        if requirement.name in pins:
            assert requirement.specifier.contains(pins[requirement.name], prereleases=True), (
                requirement
            )


# The service's takes seconds, for its model, and shares its build hook with the gateway's.
@pytest.mark.parametrize("folder", [folder for folder in FOLDERS if folder != "service"])
def test_an_sdist_alone_builds_the_same_wheel(folder: str, tmp_path: Path) -> None:
    def build(source: Path, target: str) -> Path:
        subprocess.run(
            [
                sys.executable,
                "-m",
                "hatchling",
                "build",
                "-t",
                target,
                "-d",
                str(tmp_path / target),
            ],
            cwd=source,
            check=True,
            capture_output=True,
        )
        [built] = (tmp_path / target).iterdir()
        return built

    direct = build(ROOT / folder, "wheel").read_bytes()
    with tarfile.open(build(ROOT / folder, "sdist")) as archive:
        archive.extractall(tmp_path, filter="data")
    [unpacked] = tmp_path.glob("safelight*")
    (tmp_path / "wheel").rename(tmp_path / "direct")
    wheel = build(unpacked, "wheel")
    assert wheel.read_bytes() == direct
    with ZipFile(wheel) as names:
        licence = [name for name in names.namelist() if name.endswith("licenses/LICENSE")]
    assert len(licence) == 1
