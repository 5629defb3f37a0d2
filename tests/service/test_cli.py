"""The command `safelight-service`, as operators run it."""

import gc
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path

import pytest
import torch
from typer.testing import CliRunner

from safelight_service.auth.tokens import Tokens
from safelight_service.cli import app, kept_for_good
from safelight_service.grpc_server.probe import is_serving
from safelight_service.library_variables import choose_variables
from safelight_service.provenance.marker import Marker
from safelight_service.settings import ProvenanceSettings, load_settings
from safelight_service.version import __version__
from support.running_service import RunningService, service_environment
from support.warm_process import run_warm


def run_command(
    *arguments: str, settings: Mapping[str, str] | None = None
) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "safelight_service", *arguments],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
        env=service_environment(settings or {}),
    )


def run_server(
    *arguments: str, settings: Mapping[str, str] | None = None
) -> subprocess.CompletedProcess[str]:
    """Run a command that imports torch, in a process that has done so."""
    return run_warm(["safelight_service", *arguments], service_environment(settings or {}))


def test_what_is_imported_for_good_is_not_searched_for_garbage() -> None:
    frozen_count = gc.get_freeze_count()
    try:
        with kept_for_good():
            assert not gc.isenabled()
            kept: list[object] = []
        assert gc.isenabled()
        assert gc.get_freeze_count() > frozen_count
        assert not any(each is kept for each in gc.get_objects())
    finally:
        gc.unfreeze()


def test_garbage_is_collected_again_after_an_import_that_failed() -> None:
    frozen_count = gc.get_freeze_count()
    with pytest.raises(ImportError), kept_for_good():
        raise ImportError
    assert gc.isenabled()
    assert gc.get_freeze_count() == frozen_count


def test_memory_of_gpus_is_taken_in_segments_that_grow() -> None:
    assert choose_variables({})["PYTORCH_ALLOC_CONF"] == "expandable_segments:True"


@pytest.mark.parametrize("name", ["PYTORCH_ALLOC_CONF", "PYTORCH_CUDA_ALLOC_CONF"])
def test_variables_of_the_operator_stay(name: str) -> None:
    chosen = choose_variables({name: "max_split_size_mb:64", "DIFFUSERS_VERBOSITY": "info"})
    assert not chosen.keys() & {"PYTORCH_ALLOC_CONF", "PYTORCH_CUDA_ALLOC_CONF"}
    assert "DIFFUSERS_VERBOSITY" not in chosen
    assert chosen["TRANSFORMERS_VERBOSITY"] == "error"


def test_version_is_that_of_the_package() -> None:
    result = run_command("--version")
    assert result.stdout == f"safelight-service {__version__}\n"


def test_a_mistyped_setting_is_a_usage_error() -> None:
    result = run_command(settings={"SAFELIGHT_QUEUESIZE": "3"})
    assert result.returncode == 2
    assert "did you mean SAFELIGHT_QUEUE_SIZE?" in result.stderr


def test_a_bad_value_is_a_usage_error_that_names_the_setting() -> None:
    result = run_command("--listen", "nowhere")
    assert result.returncode == 2
    assert "listen: must be HOST:PORT with a port from 0 to 65535, not 'nowhere'" in result.stderr


def test_an_address_that_others_reach_is_refused_without_tokens() -> None:
    result = run_command("--listen", "0.0.0.0:0")
    assert result.returncode == 2
    assert "set tokens_file or tls.client_authorities" in result.stderr


def test_a_token_is_shown_once_beside_its_entry_for_the_tokens_file(tmp_path: Path) -> None:
    result = run_command("token", "billing")
    assert result.returncode == 0
    file = tmp_path / "tokens.toml"
    file.write_text(result.stdout)
    caller = Tokens(file, []).find(result.stderr.strip())
    assert caller is not None
    assert caller.name == "billing"
    assert len(result.stderr.strip()) == 43


def test_a_token_needs_a_name_that_can_be_written_anywhere() -> None:
    result = run_command("token", 'a"b')
    assert result.returncode == 2
    assert "name: String should match" in result.stderr


def test_a_development_certificate_comes_with_the_settings_that_use_it(tmp_path: Path) -> None:
    command = ["provenance", "dev-certificate", str(tmp_path / "new")]
    made = CliRunner().invoke(app, command)
    (tmp_path / "safelight.toml").write_text(made.stdout)
    settings = load_settings({}, tmp_path / "safelight.toml").provenance
    assert settings.private_key is not None
    assert settings.private_key.stat().st_mode & 0o777 == 0o600
    assert Marker(settings).identity != Marker(ProvenanceSettings()).identity
    again = CliRunner().invoke(app, command)
    assert (again.exit_code, again.stderr.count("private_key.pem: File exists")) == (1, 1)


def test_a_port_that_is_taken_is_an_error(service: RunningService) -> None:
    """Fault 40: a second service on the same port."""
    result = run_server("--listen", service.target)
    assert result.returncode == 1
    assert f"cannot listen on {service.target}: the port is taken" in result.stderr


def test_a_model_that_cannot_be_loaded_stops_the_start() -> None:
    models = '[{"name": "broken", "source": "/nonexistent/folder"}]'
    result = run_server("--listen", "127.0.0.1:0", settings={"SAFELIGHT_MODELS": models})
    assert result.returncode == 1
    assert "model 'broken' cannot be loaded" in result.stderr
    assert "ready" not in result.stdout


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU")
def test_a_device_that_is_not_there_is_a_usage_error_that_says_why() -> None:
    models = '[{"name": "a", "source": "shapes", "device": "cuda"}]'
    result = run_server("--listen", "127.0.0.1:0", settings={"SAFELIGHT_MODELS": models})
    assert result.returncode == 2
    assert "safelight-service: model 'a': device: cannot use \"cuda\", since " in result.stderr
    assert "Traceback" not in result.stderr


def test_a_running_service_answers_the_probe(service: RunningService) -> None:
    assert is_serving(service.target)
    assert not is_serving("127.0.0.1:1")
