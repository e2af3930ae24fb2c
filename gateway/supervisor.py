"""`tollkeeper dev` and `tollkeeper serve`: starts everything in order, and stops it in reverse.

Start: servers (dev) → schema, config, demo account → control plane → jobs → workers → "ready".
Stop, on SIGTERM or Ctrl-C, also in the middle of a start: workers finish their calls and write what
they settled, then jobs, control plane, sample agent, Redis and Postgres. Each step is a context, so
what was started is what is stopped.

Every mistake that a person can make ends in one line on stderr and exit code 2.
"""

from __future__ import annotations

import asyncio
import contextlib
import dataclasses
import gc
import os
import signal
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import uvloop

from gateway.addresses import Address, held_addresses, url_of
from gateway.announce import DEMO_ACCOUNT, Ready, Voice
from gateway.config import EMBEDDED, ConfigError, load_config, parse_listen, resolve_secret
from gateway.control.credentials import Credentials
from gateway.embedded.agent import (
    SAMPLE_AGENT_HOST,
    SAMPLE_AGENT_PORT,
    route_to_sample_agent,
    sample_agent,
)
from gateway.embedded.datadir import DataDir, Running, Secrets, open_data_dir
from gateway.embedded.fake import FakeStripe, fake_stripe, fake_table
from gateway.embedded.servers import Servers, embedded_servers
from gateway.embedded.spawn import EmbeddedError, stop_leftover
from gateway.embedded.unheard import unheard_upstreams
from gateway.logs import set_up_logs
from gateway.mistakes import StartError
from gateway.operations.errors import OperationError
from gateway.ports import listen_text
from gateway.worker_pool import WorkerFailedError, WorkerPool
from policies.units import MICROCREDITS_PER_CREDIT

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Coroutine, Iterator, Sequence
    from contextlib import AbstractAsyncContextManager
    from socket import socket

    from gateway.config import Config
    from gateway.node import RunningNode
    from policies.catalog import Route

STOPPED, WRONG = 0, 2
DEMO_MICROCREDITS = 1_000 * MICROCREDITS_PER_CREDIT
ADMIN_TOKEN_VARIABLE = "TOLLKEEPER_ADMIN_TOKEN"  # noqa: S105 - the name of a variable
# How long workers of a killed run may take to notice, before they are killed too.
LEFTOVER_WORKER_DEADLINE_S = 2.0


@dataclass(frozen=True, slots=True)
class DevOptions:
    """What `tollkeeper dev` was asked for. Ports: None means the config's, 0 any free one."""

    config: Path = Path("config.toml")
    data_dir: Path = Path(".tollkeeper")
    port: int | None = None
    control_port: int | None = None
    demo_microcredits: int = DEMO_MICROCREDITS  # of the demo account, when it is made
    fake_stripe: bool = False
    as_json: bool = False


@dataclass(frozen=True, slots=True)
class ServeOptions:
    """What `tollkeeper serve` was asked for."""

    config: Path
    as_json: bool = False


def run_dev(options: DevOptions) -> int:
    """Runs until stopped; the process' exit code."""
    return _run(Voice(as_json=options.as_json), lambda voice: _dev(options, voice))


def run_serve(options: ServeOptions) -> int:
    """Runs until stopped; the process' exit code."""
    return _run(Voice(as_json=options.as_json), lambda voice: _serve(options, voice))


async def _dev(options: DevOptions, voice: Voice) -> None:
    config = _with_ports(_read_config(options.config), options)
    with open_data_dir(options.data_dir) as folder:
        await _end_leftovers(folder)
        async with contextlib.AsyncExitStack() as stack:
            held = await stack.enter_async_context(
                held_addresses(config, [_agent_address(config.routes)])
            )
            config, (agent_socket,) = held.config, held.others
            pool = _pool(config)
            stack.push_async_callback(pool.stop)  # should the start fail before they have work
            await pool.spawn()
            log = folder.logs / "sample-agent.log"
            agent = await stack.enter_async_context(sample_agent(agent_socket, log=log))
            servers, _ = await asyncio.gather(
                stack.enter_async_context(_own_servers(config, folder, voice)),
                asyncio.to_thread(_load_code),
            )
            own = folder.secrets()
            credentials = _own_credentials(config, own)
            config = _with_servers(config, servers)
            stripe = None
            if options.fake_stripe:
                stripe = await stack.enter_async_context(_fake_stripe(config, folder))
                table = fake_table(folder.path, stripe.url, config.stripe)
                config = dataclasses.replace(config, stripe=table)
            voice.step("Applying the config ...")
            node = await stack.enter_async_context(_node(config, pool, credentials, held.control))
            await _demo(node, folder, credentials.pepper, options.demo_microcredits)
            await agent.ready()
            await stack.enter_async_context(_working(pool, config, credentials))
            stack.enter_context(_announced(folder, config, pool, stripe))
            ready = _ready(config, folder, pool, servers, agent.url)
            if stripe is not None:
                await _stock(node)
                ready = dataclasses.replace(ready, fake_stripe_url=stripe.url)
            _keep_code()
            sold = next((plan.slug for plan in config.plans if plan.prices), None)
            unheard = {} if options.as_json else await unheard_upstreams(config.routes)
            voice.ready(
                ready, config.routes, str(options.data_dir), plan_sold=sold, unheard=unheard
            )
            await asyncio.Event().wait()


async def _serve(options: ServeOptions, voice: Voice) -> None:
    config = _read_config(options.config)
    gateway = config.gateway
    problems = [
        f"gateway.{name}: serve needs the URL of a real server; `tollkeeper dev` brings its own"
        for name in ("redis_url", "postgres_url")
        if getattr(gateway, name) == EMBEDDED
    ]
    pepper = _secret(gateway.key_pepper)
    if pepper is None:
        problems.append('gateway.key_pepper: serve needs one, such as "env:TOLLKEEPER_PEPPER"')
    if pepper is None or problems:
        raise StartError(*problems)
    async with contextlib.AsyncExitStack() as stack:
        held = await stack.enter_async_context(held_addresses(config))
        config = held.config
        gateway = config.gateway
        pool = _pool(config)
        stack.push_async_callback(pool.stop)
        await pool.spawn()
        voice.step("Applying the config ...")
        admin_token = os.environ.get(ADMIN_TOKEN_VARIABLE) or None
        master_key = _secret(gateway.master_key)
        credentials = Credentials(pepper.encode(), admin_token, master_key, "live")
        await stack.enter_async_context(_node(config, pool, credentials, held.control))
        await stack.enter_async_context(_working(pool, config, credentials))
        _keep_code()
        voice.serving(url_of(gateway.proxy_listen), url_of(gateway.control_listen), pool.pids)
        await asyncio.Event().wait()


def _load_code() -> None:
    """Loads what is needed only when the servers are up, which take as long on the other core."""
    import gateway.demo  # noqa: PLC0415 - not when this module is
    import gateway.node  # noqa: F401, PLC0415 - not when this module is


def _keep_code() -> None:
    """What is loaded by now stays: looking for garbage in it would stop everything for 0.1 s."""
    gc.freeze()


def _node(
    config: Config, pool: WorkerPool, credentials: Credentials, control: socket
) -> AbstractAsyncContextManager[RunningNode]:
    from gateway.node import running_node  # noqa: PLC0415 - loaded while servers started

    return running_node(config, pool, credentials, control)


def _stock(node: RunningNode) -> Coroutine[None, None, None]:
    from gateway.demo import stock_the_fake  # noqa: PLC0415 - loaded while servers started

    return stock_the_fake(node)


def _demo(
    node: RunningNode, folder: DataDir, pepper: bytes, microcredits: int
) -> Coroutine[None, None, None]:
    from gateway.demo import ensure_demo  # noqa: PLC0415 - loaded while servers started

    return ensure_demo(node, folder, pepper, microcredits)


def _fake_stripe(config: Config, folder: DataDir) -> AbstractAsyncContextManager[FakeStripe]:
    control_url = url_of(config.gateway.control_listen)
    return fake_stripe(
        folder.path,
        webhook_url=f"{control_url}/webhooks/stripe/{config.platform.slug}",
        log=folder.logs / "fake-stripe.log",
    )


def _run(voice: Voice, main: Callable[[Voice], Coroutine[None, None, None]]) -> int:
    set_up_logs()
    try:
        uvloop.run(_until_told(main(voice)))
    except Exception as error:
        problems = _mistakes(error)
        if problems is None:
            raise
        voice.mistakes(problems)
        return WRONG
    return STOPPED


async def _until_told(main: Coroutine[None, None, None]) -> None:
    """Runs until it is told to stop, which ends it wherever it is; contexts then stop in order.

    Told again, it goes on stopping: every step of that has its own deadline.
    """
    work = asyncio.ensure_future(main)
    told = False

    def stop() -> None:
        nonlocal told
        if not told:
            told = True
            work.cancel()

    for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
        if signal.getsignal(number) is not signal.SIG_IGN:  # `nohup` means it
            asyncio.get_running_loop().add_signal_handler(number, stop)
    try:
        await work
    except asyncio.CancelledError:
        if not told:
            raise


def _mistakes(error: BaseException) -> list[str] | None:
    """The lines for a person, if a person can mend it; None for what is our own fault."""
    if isinstance(error, BaseExceptionGroup):
        found = [_mistakes(one) for one in error.exceptions]
        if any(problems is None for problems in found):
            return None
        return [line for problems in found for line in problems or ()]
    if isinstance(error, ConfigError | StartError):
        return [str(problem) for problem in error.problems]
    if isinstance(error, EmbeddedError | WorkerFailedError | OperationError):
        return [str(error)]
    if isinstance(error, OSError) and error.filename:  # no space left, read only, not ours
        return [f"{error.filename}: {error.strerror}"]
    return None


def _read_config(path: Path) -> Config:
    """The config, with every secret that it refers to in its place.

    Raises: ConfigError or StartError with all mistakes.
    """
    if not path.is_file():
        raise StartError(f"there is no file {path}: give the config's path with --config")
    config = load_config(path)
    problems = []
    for route in config.routes:
        for name, value in route.headers:
            try:
                resolve_secret(value)
            except ConfigError as error:
                where = f"routes[{route.name}].headers.{name}"
                problems += [f"{where}: {problem}" for problem in error.problems]
    if problems:
        raise StartError(*problems)
    return config


def _with_ports(config: Config, options: DevOptions) -> Config:
    gateway = dataclasses.replace(
        config.gateway,
        proxy_listen=_with_port(config.gateway.proxy_listen, options.port),
        control_listen=_with_port(config.gateway.control_listen, options.control_port),
    )
    if gateway.proxy_listen == gateway.control_listen and parse_listen(gateway.proxy_listen)[1]:
        raise StartError(f"proxy and control plane can't both listen on {gateway.proxy_listen}")
    return dataclasses.replace(config, gateway=gateway)


def _with_port(listen: str, port: int | None) -> str:
    host, configured = parse_listen(listen)
    return listen_text(host, configured if port is None else port)


def _with_servers(config: Config, servers: Servers) -> Config:
    gateway = dataclasses.replace(
        config.gateway,
        redis_url=servers.redis_url or config.gateway.redis_url,
        postgres_url=servers.postgres_url or config.gateway.postgres_url,
    )
    return dataclasses.replace(config, gateway=gateway)


def _secret(reference: str | None) -> str | None:
    return None if reference is None else resolve_secret(reference)


def _own_credentials(config: Config, own: Secrets) -> Credentials:
    """Those of the data folder, where the config has none."""
    pepper = _secret(config.gateway.key_pepper)
    return Credentials(
        pepper.encode() if pepper is not None else bytes.fromhex(own.pepper),
        own.admin_token,
        _secret(config.gateway.master_key) or own.master_key,
        "dev",
    )


async def _end_leftovers(folder: DataDir) -> None:
    """Ends workers that outlive a killed run: they hold the port, and their servers are gone.

    What they had not written yet is in the Redis outbox.
    """
    left = folder.left_running()
    for pid in left.worker_pids if left else ():
        await stop_leftover(pid, "gateway.worker", signal.SIGTERM, LEFTOVER_WORKER_DEADLINE_S)


def _agent_address(routes: Sequence[Route]) -> Address:
    """The sample agent's usual one if a route counts on it, else any."""
    route = route_to_sample_agent(routes)
    if route is None:
        return Address(SAMPLE_AGENT_HOST, 0)
    purpose = f'the sample agent, which route "{route}" forwards to: '
    advice = ": stop it, or give the route the upstream of an agent of yours"
    return Address(SAMPLE_AGENT_HOST, SAMPLE_AGENT_PORT, purpose, advice)


@contextlib.asynccontextmanager
async def _own_servers(config: Config, folder: DataDir, voice: Voice) -> AsyncIterator[Servers]:
    """Redis and Postgres of our own, where the config names none."""
    redis, postgres = (
        url == EMBEDDED for url in (config.gateway.redis_url, config.gateway.postgres_url)
    )
    names = [name for name, own in (("Redis", redis), ("Postgres", postgres)) if own]
    if names:
        voice.step(f"Starting {' and '.join(names)} ...")
    async with embedded_servers(folder, redis=redis, postgres=postgres) as servers:
        yield servers


def _pool(config: Config) -> WorkerPool:
    return WorkerPool(
        config.gateway.workers, shutdown_deadline_s=config.gateway.shutdown_deadline_s
    )


@contextlib.asynccontextmanager
async def _working(
    pool: WorkerPool, config: Config, credentials: Credentials
) -> AsyncIterator[None]:
    """The workers take calls, and are replaced when they die; at the end they finish theirs."""
    settings = {
        "gateway": dataclasses.asdict(config.gateway),
        "pepper": credentials.pepper.hex(),
        "master_key": credentials.master_key,
    }
    try:
        await pool.run(settings)
        keeper = asyncio.create_task(pool.keep())
        try:
            yield
        finally:
            keeper.cancel()
            await asyncio.wait([keeper])
    finally:
        await pool.stop()


@contextlib.contextmanager
def _announced(
    folder: DataDir, config: Config, pool: WorkerPool, stripe: FakeStripe | None
) -> Iterator[None]:
    """Tells commands typed meanwhile, and the next start if we are killed, what runs here."""
    gateway = config.gateway

    def running() -> Running:
        return Running(
            pid=os.getpid(),
            redis_url=gateway.redis_url,
            postgres_url=gateway.postgres_url,
            proxy_url=url_of(gateway.proxy_listen),
            control_url=url_of(gateway.control_listen),
            worker_pids=tuple(worker.pid for worker in pool.workers if worker.pid),
            platform=config.platform.slug,
            fake_stripe_url=stripe.url if stripe else "",
        )

    with folder.announced(running()):
        pool.on_change(lambda: folder.announce(running()))
        try:
            yield
        finally:
            pool.on_change(None)


def _ready(
    config: Config, folder: DataDir, pool: WorkerPool, servers: Servers, sample_agent_url: str
) -> Ready:
    gateway, secrets = config.gateway, folder.secrets()
    return Ready(
        proxy_url=url_of(gateway.proxy_listen),
        control_url=url_of(gateway.control_listen),
        platform=config.platform.slug,
        account=DEMO_ACCOUNT,
        api_key=secrets.api_key,
        admin_token=secrets.admin_token,
        worker_pids=pool.pids,
        redis_url=gateway.redis_url,
        redis_pid=servers.redis.pid if servers.redis else None,
        postgres_url=gateway.postgres_url,
        postgres_pid=servers.postgres.pid if servers.postgres else None,
        sample_agent_url=sample_agent_url,
    )
