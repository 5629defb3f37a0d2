"""The tokens file: its format, looking up callers, and its changes."""

import hmac
import re
from pathlib import Path

import pytest

from safelight_service.auth.tokens import Caller, Tokens, digest_token
from safelight_service.core.tenant import Tenant
from safelight_service.settings import ConfigurationError

SERVED = ["shapes", "sdxl"]
GOOD = f'[[tokens]]\nname = "billing"\nsha256 = "{digest_token("secret")}"\n'
OTHER = f'[[tokens]]\nname = "other"\nsha256 = "{digest_token("other secret")}"\n'


class Clock:
    """Clock that tests set."""

    now_s = 0.0

    def __call__(self) -> float:
        return self.now_s


@pytest.fixture
def file(tmp_path: Path) -> Path:
    return tmp_path / "tokens.toml"


def write(file: Path, text: str) -> Path:
    """Replace the file atomically, as a careful operator does."""
    new = file.with_suffix(".new")
    new.write_text(text)
    return new.replace(file)


def test_a_token_is_found_with_what_it_allows(file: Path) -> None:
    limits = 'models = ["shapes"]\nrequests_per_minute = 60\nconcurrent = 4\ncache_group = "web"\n'
    tokens = Tokens(write(file, OTHER + GOOD + limits), SERVED)
    assert tokens.find("secret") == Caller(
        name="billing",
        sha256=digest_token("secret"),
        models=("shapes",),
        requests_per_minute=60,
        concurrent=4,
        cache_group="web",
    )


def test_what_an_entry_leaves_out_is_not_limited(file: Path) -> None:
    caller = Tokens(write(file, GOOD), SERVED).find("secret")
    assert caller is not None
    assert caller.may_use("sdxl")
    assert caller.requests_per_minute is caller.concurrent is None


@pytest.mark.parametrize(
    ("limits", "weight"),
    [
        ("", 1.0),
        ("weight = 2.5", 2.5),
        ('service_class = "interactive"', 4.0),
        ('service_class = "batch"', 0.25),
        ('weight = 8\nservice_class = "batch"', 2.0),
    ],
)
def test_the_class_multiplies_the_weight(limits: str, weight: float, file: Path) -> None:
    caller = Tokens(write(file, GOOD + limits), SERVED).find("secret")
    assert caller is not None
    assert caller.tenant == Tenant("billing", weight)


@pytest.mark.parametrize("token", ["", "secre", "secret ", "Secret", digest_token("secret")])
def test_another_token_is_not_found(token: str, file: Path) -> None:
    assert Tokens(write(file, GOOD), SERVED).find(token) is None


@pytest.mark.parametrize("token", ["secret", "wrong"])
def test_every_entry_is_compared_in_constant_time(
    token: str, file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Fault 2: compares all entries by compare_digest, even after a match."""
    compared = []
    compare = hmac.compare_digest

    def compare_and_note(left: str, right: str) -> bool:
        compared.append(left)
        return compare(left, right)

    monkeypatch.setattr(hmac, "compare_digest", compare_and_note)
    Tokens(write(file, GOOD + OTHER), SERVED).find(token)
    assert compared == [digest_token("secret"), digest_token("other secret")]


def test_a_caller_does_not_show_its_digest(file: Path) -> None:
    assert digest_token("secret") not in repr(Tokens(write(file, GOOD), SERVED).find("secret"))


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", ": tokens: Field required"),
        ("tokens = 3", ":1: tokens: Input should be a valid tuple"),
        ("tokens = [3]", r":1: tokens\[0\]: Input should be"),
        ("tokens = [", ": Invalid value"),
        (GOOD + "[limits]", ":4: limits is not a setting"),
        (GOOD + "concurent = 3", r":4: .*concurent is .*mean tokens\[0\].concurrent\?"),
        (GOOD + GOOD, ":5: .*name: another entry has the same name"),
        (GOOD + GOOD.replace("billing", "b"), ":6: .*sha256: another entry has the same sha256"),
        ('[[tokens]]\nname = "billing"', r":1: tokens\[0\].sha256: Field required"),
        ('[[tokens]]\nname = "b"\nsha256 = "abc"', ":3: .*sha256: String should match"),
        (GOOD + "[[tokens]]", r":4: tokens\[1\].name: Field required"),
        ('[[tokens]]\nname = "a b"', r":2: tokens\[0\].name: String should match"),
        (GOOD + "concurrent = 0", r":4: tokens\[0\].concurrent: Input should be greater"),
        (GOOD + "weight = 0", r":4: tokens\[0\].weight: Input should be greater"),
        (GOOD + "weight = nan", r":4: tokens\[0\].weight: Input should be"),
        (GOOD + 'service_class = "vip"', ":4: .*service_class: Input should be 'interactive'"),
        (GOOD + 'cache_group = "a b"', ":4: .*cache_group: String should match"),
        (GOOD + "models = []", ":4: .*models: Tuple should have at least 1"),
        (GOOD + 'models = ["x"]', ":4: .*models: 'x' is not a served model: shapes, sdxl"),
    ],
)
def test_a_file_that_is_wrong_is_an_error_that_names_the_line(
    text: str, message: str, file: Path
) -> None:
    with pytest.raises(
        ConfigurationError, match=f"^tokens_file: {re.escape(str(file))}.*{message}"
    ):
        Tokens(write(file, text), SERVED)


def test_a_token_in_place_of_its_digest_is_not_told(file: Path) -> None:
    with pytest.raises(ConfigurationError) as raised:
        Tokens(write(file, '[[tokens]]\nname = "billing"\nsha256 = "canary"\n'), SERVED)
    assert "canary" not in str(raised.value)


def test_a_missing_file_is_an_error_that_names_the_setting(file: Path) -> None:
    with pytest.raises(
        ConfigurationError, match=r"^tokens_file: cannot read .*tokens\.toml: No such file"
    ):
        Tokens(file, SERVED)


def test_a_new_version_of_the_file_is_used_within_a_second(file: Path) -> None:
    clock = Clock()
    tokens = Tokens(write(file, GOOD), SERVED, clock)
    write(file, OTHER)
    clock.now_s = 0.9
    assert tokens.find("secret")
    clock.now_s = 1.0
    assert tokens.find("secret") is None
    assert tokens.find("other secret")


def test_each_token_has_an_account_for_each_model_that_it_may_use(file: Path) -> None:
    tokens = Tokens(write(file, OTHER + GOOD + 'models = ["shapes"]\n'), SERVED)
    accounts = {("shapes", "other"), ("sdxl", "other"), ("shapes", "billing")}
    assert set(tokens.list_accounts()) == accounts


def test_all_tokens_can_be_revoked(file: Path) -> None:
    clock = Clock()
    tokens = Tokens(write(file, GOOD), SERVED, clock)
    write(file, "tokens = []")
    clock.now_s = 1.0
    assert tokens.find("secret") is None


@pytest.mark.parametrize("text", ["", GOOD + "rate = 3", None])
def test_a_broken_version_leaves_the_old_one_in_force_and_is_logged_once(
    text: str | None, file: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    clock = Clock()
    tokens = Tokens(write(file, GOOD), SERVED, clock)
    if text is None:
        file.unlink()
    else:
        write(file, text)
    for clock.now_s in (1.0, 2.0, 3.0):
        assert tokens.find("secret")
    assert "".join(capfd.readouterr()).count("reload_failed") == 1
    write(file, OTHER)
    clock.now_s = 4.0
    assert tokens.find("other secret")
