"""What commands work on: the config, Postgres, Redis, and the platform, wherever these are.

Servers with a URL in the config are used as they are. Embedded ones belong to a data folder: while
`tollkeeper dev` runs on it, its servers are used; otherwise they are started for the time of the
command. Everything heavy is imported only when a command needs it, so that `--help` stays fast.
"""

from __future__ import annotations

from contextlib import AsyncExitStack, asynccontextmanager, nullcontext
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

from gateway.cli.output import progress
from gateway.operations.errors import OperationError, UsageError

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from gateway.config import Config
    from gateway.control.credentials import Credentials
    from gateway.counters import Counters
    from gateway.embedded.servers import Servers as EmbeddedServers
    from gateway.ledger import Ledger
    from gateway.operations.keys import KeyMaker

EMBEDDED = "embedded"
CONFIG_DEFAULT = Path("config.toml")
# Commands are no calls: they may wait for a Redis that saves or loads.
COUNTERS_DEADLINE_MS = 5_000
# An audit reads whole tables.
QUERY_TIMEOUT_S = 600.0
# Of commands without Redis: nothing ever connects to it.
NO_REDIS_URL = "redis://127.0.0.1:0"


@dataclass(frozen=True, slots=True)
class Servers:
    """Where the servers of this command are; `redis_url` means nothing to one that needs none."""

    postgres_url: str
    redis_url: str


@dataclass(frozen=True, slots=True)
class Books:
    """What a command that only reads or writes Postgres works on."""

    config: Config
    ledger: Ledger
    platform_id: int


@dataclass(frozen=True, slots=True)
class Desk(Books):
    """What a command that also tells Redis works on."""

    counters: Counters
    postgres_url: str


def read_config(path: Path | None) -> Config:
    """The config of a file, or of `config.toml` in this folder.

    Raises: UsageError with every mistake in it, one per line.
    """
    from gateway.config import ConfigError, load_config

    chosen = path or CONFIG_DEFAULT
    if not chosen.is_file():
        hint = (
            "give the config's path" if path else "give one with --config, or change to its folder"
        )
        raise UsageError(f"there is no file {chosen}: {hint}")
    try:
        return load_config(chosen)
    except ConfigError as error:
        lines = [f"{problem.where}: {problem.message}" for problem in error.problems]
        raise UsageError("\n  ".join([f"{chosen} has mistakes:", *lines])) from None


def _read_applied_config(path: Path | None, data_dir: Path) -> Config:
    """The config as a `tollkeeper dev` that runs on this data folder applies it.

    With the fake Stripe beside it, if it has one, so that no command takes that away from it.

    Raises: UsageError, as `read_config`.
    """
    from gateway.embedded.datadir import read_running

    config = read_config(path)
    running = read_running(data_dir)
    if running is None or not running.fake_stripe_url or running.platform != config.platform.slug:
        return config
    from gateway.embedded.fake import fake_table

    table = fake_table(data_dir, running.fake_stripe_url, config.stripe)
    return replace(config, stripe=table)


@asynccontextmanager
async def open_books(config_path: Path | None, data_dir: Path) -> AsyncIterator[Books]:
    """Postgres and the config's platform."""
    config = _read_applied_config(config_path, data_dir)
    async with (
        find_servers(config, data_dir, redis=False) as servers,
        clear_failures(servers),
        open_ledger(servers) as ledger,
    ):
        yield Books(config, ledger, await _platform_id(ledger, config))


@asynccontextmanager
async def open_desk(
    config_path: Path | None, data_dir: Path, *, new_platform: bool = False, redis: bool = True
) -> AsyncIterator[Desk]:
    """Postgres, Redis and the config's platform; its id is 0 when it is new and may be.

    With `redis=False` its counters are none: whatever they are asked is `CountersUnavailable`.
    """
    config = _read_applied_config(config_path, data_dir)
    async with (
        find_servers(config, data_dir, redis=redis) as servers,
        clear_failures(servers),
        open_ledger(servers) as ledger,
    ):
        platform_id = 0 if new_platform else await _platform_id(ledger, config)
        from gateway.counters import Counters

        shards = int(await ledger.find_setting("shards") or config.gateway.shards)
        url = servers.redis_url if redis else NO_REDIS_URL
        counters = Counters(url, shards=shards, deadline_ms=COUNTERS_DEADLINE_MS)
        async with counters if redis else nullcontext():
            yield Desk(config, ledger, platform_id, counters, servers.postgres_url)


@asynccontextmanager
async def open_ledger(servers: Servers) -> AsyncIterator[Ledger]:
    """Postgres, for a command.

    Raises: UsageError when it was not migrated to this version.
    """
    from gateway.ledger import Ledger

    async with Ledger(servers.postgres_url, command_timeout_s=QUERY_TIMEOUT_S) as ledger:
        if await ledger.missing_migrations():
            raise UsageError(
                'the database does not have this version\'s tables: run "tollkeeper migrate"'
            )
        yield ledger


@asynccontextmanager
async def clear_failures(servers: Servers) -> AsyncIterator[None]:
    """What servers fail at, in one line that names the server but not its password."""
    from gateway.counters import CountersMisconfigured, CountersUnavailable
    from gateway.ledger import LedgerRejected, LedgerUnavailable, MigrationError

    try:
        yield
    except (CountersUnavailable, CountersMisconfigured) as error:
        raise OperationError(str(error)) from None
    except LedgerUnavailable as error:
        where = _address(servers.postgres_url)
        raise OperationError(f"Postgres at {where} can't be used: {error}") from None
    except LedgerRejected as error:
        raise UsageError(f"Postgres refuses this: {error}") from None
    except MigrationError as error:
        raise UsageError(str(error)) from None


@asynccontextmanager
async def find_servers(config: Config, data_dir: Path, *, redis: bool) -> AsyncIterator[Servers]:
    """The servers' addresses, for as long as the context lasts.

    Raises: UsageError when they are embedded and there is no data folder yet, or it is in use.
    """
    gateway = config.gateway
    start_redis = redis and gateway.redis_url == EMBEDDED
    start_postgres = gateway.postgres_url == EMBEDDED
    if not (start_redis or start_postgres):
        yield Servers(gateway.postgres_url, gateway.redis_url)
        return
    from gateway.embedded.datadir import read_running

    running = read_running(data_dir)
    if running is not None:
        yield Servers(running.postgres_url, running.redis_url)
        return
    if not (data_dir / "secrets.json").is_file():
        raise UsageError(
            f'there is no data in {data_dir} yet: start "tollkeeper dev" once, '
            "give another --data-dir, or a config with the URLs of Redis and Postgres"
        )
    async with _started(data_dir, redis=start_redis, postgres=start_postgres) as started:
        yield Servers(
            started.postgres_url or gateway.postgres_url, started.redis_url or gateway.redis_url
        )


@asynccontextmanager
async def _started(
    data_dir: Path, *, redis: bool, postgres: bool
) -> AsyncIterator[EmbeddedServers]:
    from gateway.embedded.datadir import open_data_dir
    from gateway.embedded.servers import embedded_servers
    from gateway.embedded.spawn import EmbeddedError

    async with AsyncExitStack() as stack:
        try:
            with progress("Starting Redis and Postgres", shown=True):
                folder = stack.enter_context(open_data_dir(data_dir))
                servers = await stack.enter_async_context(
                    embedded_servers(folder, redis=redis, postgres=postgres)
                )
        except EmbeddedError as error:
            raise UsageError(str(error)) from None
        yield servers


def read_credentials(
    config: Config, data_dir: Path, *, admin_token: str, needs_pepper: bool = False
) -> Credentials:
    """What the API of this deployment must know, with an admin token of the caller's choosing.

    Whoever runs a command need not know every secret: what needs one that is not here says so.

    Raises: UsageError when the pepper is needed and not here.
    """
    from gateway.control.credentials import Credentials

    try:
        maker = read_key_maker(config, data_dir)
        env, pepper = maker.env, maker.pepper
    except UsageError:
        if needs_pepper:
            raise
        env, pepper = _env(config), b""
    return Credentials(pepper, admin_token, _master_key(config, data_dir), env)


def _master_key(config: Config, data_dir: Path) -> str | None:
    from gateway.config import ConfigError, resolve_secret
    from gateway.embedded.datadir import read_secrets

    try:
        if config.gateway.master_key is not None:
            return resolve_secret(config.gateway.master_key)
        return read_secrets(data_dir).master_key if config.gateway.key_pepper is None else None
    except (ConfigError, OSError):
        return None


def read_key_maker(config: Config, data_dir: Path) -> KeyMaker:
    """How keys are made here: with the config's pepper, else the data folder's own.

    Raises: UsageError when there is neither.
    """
    from gateway.config import ConfigError, resolve_secret
    from gateway.embedded.datadir import read_secrets
    from gateway.operations.keys import KeyMaker

    gateway, env = config.gateway, _env(config)
    try:
        if gateway.key_pepper is not None:
            return KeyMaker(env, resolve_secret(gateway.key_pepper).encode())
        return KeyMaker(env, bytes.fromhex(read_secrets(data_dir).pepper))
    except ConfigError as error:
        raise UsageError(f"gateway.key_pepper: {error}") from None
    except OSError:
        raise UsageError(
            "keys need a pepper, and the config has none: set gateway.key_pepper, "
            'as in "env:TOLLKEEPER_PEPPER"'
        ) from None


def _env(config: Config) -> str:
    """Which keys are made for."""
    gateway = config.gateway
    return "dev" if EMBEDDED in (gateway.redis_url, gateway.postgres_url) else "live"


async def _platform_id(ledger: Ledger, config: Config) -> int:
    platform = await ledger.find_platform(config.platform.slug)
    if platform is None:
        raise UsageError(
            f'the platform "{config.platform.slug}" is not in the database yet: '
            'run "tollkeeper apply"'
        )
    return platform.platform_id


def _address(url: str) -> str:
    """The host and port, or the socket, of a URL."""
    parts = urlsplit(url)
    if parts.hostname is None:
        return parts.path
    return f"{parts.hostname}:{parts.port}" if parts.port else parts.hostname
