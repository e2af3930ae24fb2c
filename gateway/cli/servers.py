"""`tollkeeper dev`, `serve`, `migrate`: what runs, and what it runs on."""

from pathlib import Path
from typing import Annotated

import typer

from gateway.cli.options import Common, ConfigOption, JsonOption, command, example
from gateway.cli.output import print_json, say
from gateway.cli.run import run
from gateway.cli.session import CONFIG_DEFAULT, clear_failures, find_servers, read_config
from gateway.operations.amounts import parse_amount_or_zero
from gateway.operations.errors import UsageError

PORT_MAX = 65_535


def register(app: typer.Typer) -> None:
    """Add these commands to the command line."""
    command(app, "tollkeeper dev --port 8080")(dev)
    app.command(epilog=example("tollkeeper serve --config /etc/tollkeeper.toml"))(serve)
    command(app, "tollkeeper migrate --config /etc/tollkeeper.toml")(migrate)


def dev(
    common: Common,
    port: Annotated[
        int | None,
        typer.Option("--port", min=0, max=PORT_MAX, help="Of the proxy; 0 for any free one."),
    ] = None,
    control_port: Annotated[
        int | None,
        typer.Option("--control-port", min=0, max=PORT_MAX, help="Of the control plane."),
    ] = None,
    amount: Annotated[
        str,
        typer.Option("--credits", metavar="N", help="For account demo, at the first start."),
    ] = "1000",
    fake_stripe: Annotated[
        bool,
        typer.Option("--fake-stripe", help="Sell plans and packs with a Stripe that is not one."),
    ] = False,
) -> None:
    """Run everything on this machine, with a sample agent to call."""
    from gateway.supervisor import DevOptions, run_dev

    options = DevOptions(
        config=common.config or CONFIG_DEFAULT,
        data_dir=common.data_dir,
        port=port,
        control_port=control_port,
        demo_microcredits=_amount(amount),
        fake_stripe=fake_stripe,
        as_json=common.as_json,
    )
    raise typer.Exit(run_dev(options))


def serve(
    config: ConfigOption = None,
    as_json: JsonOption = False,
) -> None:
    """Run the gateway on real servers of Redis and Postgres."""
    from gateway.supervisor import ServeOptions, run_serve

    raise typer.Exit(run_serve(ServeOptions(config or CONFIG_DEFAULT, as_json=as_json)))


def migrate(common: Common) -> None:
    """Bring the database's tables to this version. Repeating it does no harm."""
    applied = run(_migrate(common.config, common.data_dir))
    if common.as_json:
        print_json({"applied": applied})
    elif applied:
        say(f"Applied {', '.join(applied)}.")
    else:
        say("The database has this version's tables already.")


async def _migrate(config: Path | None, data_dir: Path) -> list[str]:
    from gateway.ledger import migrate as bring_up_to_date

    async with (
        find_servers(read_config(config), data_dir, redis=False) as servers,
        clear_failures(servers),
    ):
        return await bring_up_to_date(servers.postgres_url)


def _amount(text: str) -> int:
    try:
        return parse_amount_or_zero(text)
    except UsageError as mistake:
        raise typer.BadParameter(str(mistake), param_hint="--credits") from None
