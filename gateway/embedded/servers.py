"""Redis and Postgres of our own, for as long as we run: nothing to install or to stop."""

from __future__ import annotations

import asyncio
import contextlib
from typing import TYPE_CHECKING, NamedTuple

from gateway.embedded.postgres import running_postgres
from gateway.embedded.redis import running_redis
from gateway.embedded.spawn import EmbeddedError, unprivileged_user

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from gateway.embedded.datadir import DataDir
    from gateway.embedded.keep import Server


class Servers(NamedTuple):
    """The embedded servers that run; None where one was not asked for."""

    redis: Server | None
    postgres: Server | None

    @property
    def redis_url(self) -> str | None:
        """The embedded Redis' address."""
        return self.redis.url if self.redis else None

    @property
    def postgres_url(self) -> str | None:
        """The embedded Postgres' address."""
        return self.postgres.url if self.postgres else None


@contextlib.asynccontextmanager
async def embedded_servers(
    data_dir: DataDir, *, redis: bool, postgres: bool
) -> AsyncIterator[Servers]:
    """Starts the servers that are asked for side by side, and stops them at the end.

    Raises: EmbeddedError when one can't run; then the other is stopped too.
    """
    secrets = data_dir.secrets()
    async with contextlib.AsyncExitStack() as stack:
        try:
            async with asyncio.TaskGroup() as group:
                if redis:
                    redis_context = running_redis(
                        data_dir.redis,
                        password=secrets.redis_password,
                        log=data_dir.logs / "redis.log",
                        user=unprivileged_user(data_dir.redis),
                    )
                    redis_start = group.create_task(stack.enter_async_context(redis_context))
                if postgres:
                    postgres_context = running_postgres(
                        data_dir.postgres,
                        password=secrets.postgres_password,
                        log=data_dir.logs / "postgres.log",
                        user=unprivileged_user(data_dir.postgres),
                    )
                    postgres_start = group.create_task(stack.enter_async_context(postgres_context))
        except* EmbeddedError as failures:
            raise failures.exceptions[0] from None
        yield Servers(
            redis_start.result() if redis else None, postgres_start.result() if postgres else None
        )
