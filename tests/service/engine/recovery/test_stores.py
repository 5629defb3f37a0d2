"""Stores of logs: folders and Redis."""

import os
from collections.abc import Iterator
from pathlib import Path

import pytest
import redis

from safelight_service.engine.recovery.stores import FolderStore, LogStore, RedisStore
from support.redis_server import HINT, IS_INSTALLED, RedisServer, open_redis_server

TTL_S = 60


@pytest.fixture(scope="module")
def redis_server() -> Iterator[RedisServer]:
    if not IS_INSTALLED:
        pytest.skip(HINT)
    with open_redis_server() as server:
        server.start()
        yield server


@pytest.fixture(params=["folder", "redis"])
def store(request: pytest.FixtureRequest, tmp_path: Path) -> LogStore:
    if request.param == "folder":
        return FolderStore(tmp_path / "logs", TTL_S, 1000)
    server: RedisServer = request.getfixturevalue("redis_server")
    return RedisStore(server.url, TTL_S)


def test_a_log_grows_until_it_is_removed(store: LogStore) -> None:
    assert store.load(["a", "b"]) == [b"", b""]
    store.begin("a", b"12")
    store.append("a", b"3")
    assert store.load(["b", "a"]) == [b"", b"123"]
    store.remove(["a", "b"])
    assert store.load(["a"]) == [b""]


def test_a_new_log_replaces_an_earlier_one(store: LogStore) -> None:
    store.begin("c", b"long and old")
    store.begin("c", b"new")
    assert store.load(["c"]) == [b"new"]


def test_files_are_private(tmp_path: Path) -> None:
    store = FolderStore(tmp_path / "logs", TTL_S, 1000)
    store.begin("a", b"1")
    [file] = (tmp_path / "logs").iterdir()
    assert file.stat().st_mode & 0o777 == 0o600
    assert file.parent.stat().st_mode & 0o777 == 0o700


def test_old_files_expire(tmp_path: Path) -> None:
    store = FolderStore(tmp_path, TTL_S, 1000)
    store.begin("a", b"1")
    [file] = tmp_path.iterdir()
    os.utime(file, (0, file.stat().st_mtime - TTL_S - 1))
    assert store.load(["a"]) == [b""]
    store.begin("b", b"1")
    assert not file.exists()


def test_a_folder_holds_no_more_than_its_bound(tmp_path: Path) -> None:
    store = FolderStore(tmp_path, TTL_S, 10)
    for age_s, name in enumerate("cba"):
        store.begin(name, b"12345")
        file = tmp_path / f"{name}.log"
        os.utime(file, (0, file.stat().st_mtime - 30 + age_s))
    store.begin("d", b"12345")
    assert [bool(data) for data in store.load(["a", "b", "c", "d"])] == [True, True, False, True]


def test_values_expire_after_their_last_change(redis_server: RedisServer) -> None:
    store = RedisStore(redis_server.url, 1000)
    store.begin("a", b"1")
    RedisStore(redis_server.url, 2000).append("a", b"2")
    assert store.load(["a"]) == [b"12"]


def test_a_server_that_is_gone_is_an_error(tmp_path: Path) -> None:
    store = RedisStore(f"unix://{tmp_path / 'none.sock'}", TTL_S)
    with pytest.raises(redis.ConnectionError):
        store.load(["a"])
