"""Settings: a wrong one stops the service at start, by name."""

import json
import pwd
from pathlib import Path

import pytest

from safelight_service.settings import (
    ConfigurationError,
    load_settings,
)


@pytest.fixture(autouse=True)
def no_settings(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("SAFELIGHT_CONFIG", raising=False)


def write(folder: Path, text: str) -> Path:
    path = folder / "safelight.toml"
    path.write_text(text)
    return path


def test_without_any_setting_the_embedded_model_is_served_on_loopback() -> None:
    settings = load_settings()
    assert settings.listen == "127.0.0.1:50051"
    assert [model.name for model in settings.models] == ["shapes"]


def test_models_are_read_from_the_environment_as_json(monkeypatch: pytest.MonkeyPatch) -> None:
    models = '[{"name": "a", "source": "a", "limits": {"max_side_px": 512}}]'
    monkeypatch.setenv("SAFELIGHT_MODELS", models)
    assert load_settings().models[0].limits.max_side_px == 512


@pytest.mark.parametrize("name", ["SAFELIGHT_TARGET", "SAFELIGHT_TOKEN"])
def test_the_client_s_variables_are_left_to_it(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(name, "x")
    load_settings()


MODEL = '[[models]]\nname = "a"\nsource = "a"\n'

ON_HUB = '[[models]]\nname = "a"\nsource = "owner/a"\n'


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("queue_sizes = 3", "queue_sizes"),
        ("queue_size = -1", "queue_size"),
        ('listen = "localhost"', "HOST:PORT"),
        ('listen = "localhost:70000"', "HOST:PORT"),
        ('log_format = "xml"', "log_format"),
        ("[cache]\nmemory_mib = -1", ":2: cache.memory_mib"),
        ("[cache]\nredis_url = 'localhost:6379'", ":2: cache.redis_url: must begin with redis://"),
        ("models = []", ":1: models: must list at least one"),
        (MODEL + 'dtipe = "float32"', r":4: models\[0\].dtipe is .* mean models\[0\].dtype\?"),
        (MODEL + 'device = "gpu"', "device"),
        (MODEL + MODEL, ":1: models: names must be unique.*a"),
        ('default_model = "b"\n' + MODEL, ":1: default_model: must be one of a, not 'b'"),
        (MODEL + "[models.limits]\nmin_side_px = 64\nmax_side_px = 32", ":4: .*min_side_px"),
        ('[[models]]\nname = "a b"\nsource = "x"', "name"),
        (
            MODEL + "components = {vae = true}",
            r":4: models\[0\].components.vae: must be false, .*or",
        ),
        (MODEL + "components = {vae = 1}", r":4: models\[0\].components.vae: must be false, .*or"),
        (MODEL + "components = {vae = ''}", r":4: models\[0\].components.vae: must be false, .*or"),
        (
            MODEL + "components = {vae = 'owner/vae@main'}",
            ":1: .*components.vae of model 'a': 'owner/vae@main' is not a folder, .*append @ and",
        ),
        ("[provenance]\nrequired = true", ":2: provenance.required: needs a certificate"),
        ("[provenance]\ncertificate = 'c'", "provenance.signer_command: set either private_key or"),
        ("[provenance]\nprivate_key = 'c'", "provenance.signer_command: .* need a certificate"),
        ("[provenance]\ntimestamp_url = 'a'", ":2: provenance.timestamp_url"),
        (ON_HUB, ":1: .*must be pinned: set revision"),
        (ON_HUB + 'revision = "main"', ":1: .*must be pinned: set revision"),
    ],
)
def test_a_value_that_is_not_allowed_is_an_error_that_names_it(
    text: str, message: str, tmp_path: Path
) -> None:
    with pytest.raises(ConfigurationError, match=message):
        load_settings({}, write(tmp_path, text))


@pytest.mark.parametrize("host", ["127.0.0.1", "127.8.9.10", "[::1]", "localhost"])
def test_anybody_on_this_machine_may_be_served(host: str) -> None:
    assert load_settings({"listen": f"{host}:1"}).tokens_file is None


PAIR = {"certificate": "c.pem", "private_key": "k.pem"}


@pytest.mark.parametrize("host", ["0.0.0.0", "[::]", "192.0.2.1", "example.org", "127.1"])
@pytest.mark.parametrize("settings", [{}, {"tls": PAIR}])
def test_anybody_elsewhere_is_not_served_by_accident(
    host: str, settings: dict[str, object]
) -> None:
    with pytest.raises(ValueError, match=r"listen: .*set tokens_file or .*allow_anonymous = true"):
        load_settings({"listen": f"{host}:1", **settings})


@pytest.mark.parametrize(
    "settings",
    [
        {"tokens_file": "tokens.toml"},
        {"tls": {**PAIR, "client_authorities": "a.pem"}},
        {"allow_anonymous": True},
    ],
)
def test_callers_elsewhere_are_served_once_it_is_said_which(settings: dict[str, object]) -> None:
    load_settings({"listen": "0.0.0.0:1", **settings})


@pytest.mark.parametrize(
    "pin", [f'revision = "{"0123456789" * 4}"', "allow_unpinned = true"], ids=["commit", "waived"]
)
def test_a_hub_id_is_taken_with_a_commit_or_when_that_is_waived(pin: str, tmp_path: Path) -> None:
    [model] = load_settings({}, write(tmp_path, ON_HUB + pin)).models
    assert model.is_on_hub


def test_a_folder_comes_before_a_hub_id_of_its_name(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "owner" / "a").mkdir(parents=True)
    monkeypatch.chdir(tmp_path)
    [model] = load_settings({}, write(tmp_path, ON_HUB)).models
    assert not model.is_on_hub


def test_sources_in_a_file_start_at_its_folder(tmp_path: Path) -> None:
    for folder in ("plain", "owner/here"):
        (tmp_path / folder).mkdir(parents=True)
    sources = ("shapes", "plain", "owner/here", "./owner/here", "/else/where", "owner/elsewhere")
    text = "".join(
        f'[[models]]\nname = "{index}"\nsource = "{source}"\nallow_unpinned = true\n'
        for index, source in enumerate(sources)
    )
    assert [model.source for model in load_settings({}, write(tmp_path, text)).models] == [
        "shapes",
        str(tmp_path / "plain"),
        str(tmp_path / "owner/here"),
        str(tmp_path / "owner/here"),
        "/else/where",
        "owner/elsewhere",
    ]


def test_components_are_left_out_or_read_from_folders_and_the_hub(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HOME", "/home/somebody")
    (tmp_path / "owner/here").mkdir(parents=True)
    pinned = f"owner/vae@{'0123456789' * 4}"
    sources = {
        "safety_checker": False,
        "vae": pinned,
        "unet": "plain/vae/folder",
        "text_encoder": "owner/here",
        "tokenizer": "~/clip",
        "scheduler": "shapes",
    }
    lines = "".join(f"{name} = {json.dumps(source)}\n" for name, source in sources.items())
    config = write(tmp_path, f"{MODEL}[models.components]\n{lines}")
    [model] = load_settings({}, config).models
    assert model.components == {
        "safety_checker": False,
        "vae": pinned,
        "unet": str(tmp_path / "plain/vae/folder"),
        "text_encoder": str(tmp_path / "owner/here"),
        "tokenizer": "/home/somebody/clip",
        "scheduler": str(tmp_path / "shapes"),
    }
    assert model.component_hub_id("vae") == tuple(pinned.split("@"))
    assert not any(map(model.component_hub_id, ("safety_checker", "unet", "text_encoder")))


def test_components_are_read_from_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    components = {"safety_checker": False, "vae": "owner/vae"}
    models = [{"name": "a", "source": "a", "allow_unpinned": True, "components": components}]
    monkeypatch.setenv("SAFELIGHT_MODELS", json.dumps(models))
    [model] = load_settings().models
    assert model.components == components
    assert model.component_hub_id("vae") == ("owner/vae", "")


def test_a_tilde_in_a_source_is_the_home_folder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    config = write(tmp_path, '[[models]]\nname = "a"\nsource = "~/models/a"\n')
    assert load_settings({}, config).models[0].source == str(tmp_path / "models" / "a")


def test_other_paths_in_a_file_start_at_its_folder(tmp_path: Path) -> None:
    text = 'tokens_file = "tokens.toml"\ncompile_cache = ""\n[cache]\nfolder = "results"\n'
    settings = load_settings({}, write(tmp_path, text))
    assert settings.tokens_file == tmp_path / "tokens.toml"
    assert settings.cache.folder == tmp_path / "results"
    assert settings.compile_cache is None


def test_an_empty_tokens_file_does_not_turn_tokens_off(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SAFELIGHT_TOKENS_FILE", "")
    with pytest.raises(ConfigurationError, match=r"^SAFELIGHT_TOKENS_FILE: must name a file"):
        load_settings()


def test_without_a_home_folder_nothing_is_kept_there(monkeypatch: pytest.MonkeyPatch) -> None:
    def find_nobody(user_id: int) -> None:
        raise KeyError(user_id)

    monkeypatch.delenv("HOME", raising=False)
    monkeypatch.setattr(pwd, "getpwuid", find_nobody)
    settings = load_settings()
    assert settings.batching.profiles_file is None
    assert settings.compile_cache is None
    monkeypatch.setenv("SAFELIGHT_COMPILE_CACHE", "~/inductor")
    with pytest.raises(ConfigurationError, match=r"^SAFELIGHT_COMPILE_CACHE: cannot expand ~"):
        load_settings()


def test_the_embedded_model_brings_its_limits_under_any_name(tmp_path: Path) -> None:
    config = write(tmp_path, '[[models]]\nname = "toys"\nsource = "shapes"\n')
    model = load_settings({}, config).models[0]
    assert (model.limits.max_side_px, model.defaults.num_inference_steps) == (512, 20)


def test_an_error_does_not_reveal_the_password_of_redis(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="redis_url") as raised:
        load_settings({}, write(tmp_path, "[cache]\nredis_url = 'http://:hunter2@host'"))
    assert "hunter2" not in str(raised.value)


def test_variables_of_the_gateway_are_left_to_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SAFELIGHT_GATEWAY_TARGET", "127.0.0.1:1")
    load_settings()
