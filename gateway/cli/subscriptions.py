"""`tollkeeper subscriptions`: buying plans and packs at Stripe's pages, changing, ending."""

from collections.abc import Mapping
from typing import TYPE_CHECKING, Annotated, Any

import typer

from gateway.cli.callers import OWN, account_base, ask
from gateway.cli.options import Common, command, new_app
from gateway.cli.output import print_fields, print_json, say, short_moment
from gateway.cli.standing import OwnAccountArgument, say_debt

if TYPE_CHECKING:
    from gateway.cli.api import ApiClient

app = new_app(
    "What accounts pay for: subscribe, buy, show, change, undo-change, cancel, resume, portal."
)

PlanArgument = Annotated[str, typer.Argument(metavar="PLAN", help='As in "plans list".')]
PackArgument = Annotated[str, typer.Argument(metavar="PACK", help="As in the platform's offers.")]
AccountOption = Annotated[
    str, typer.Option("--account", metavar="ACCOUNT", help="The account's name; else your own.")
]
IntervalOption = Annotated[str, typer.Option("--interval", help="month or year.")]
QuantityOption = Annotated[int, typer.Option("--quantity", min=1, help="How many.")]
CurrencyOption = Annotated[
    str, typer.Option("--currency", help='Where there are prices in several, as in "eur".')
]
SuccessOption = Annotated[
    str, typer.Option("--success-url", metavar="URL", help="Where the payer goes afterwards.")
]
CancelOption = Annotated[
    str, typer.Option("--cancel-url", metavar="URL", help="Where the payer goes without paying.")
]
EmailOption = Annotated[str, typer.Option("--email", help="The payer's, for Stripe.")]


@command(app, "tollkeeper subscriptions subscribe pro --account alice --interval year")
def subscribe(
    common: Common,
    plan: PlanArgument,
    account: AccountOption = "",
    interval: IntervalOption = "month",
    quantity: QuantityOption = 1,
    currency: CurrencyOption = "",
    success_url: SuccessOption = "",
    cancel_url: CancelOption = "",
    email: EmailOption = "",
) -> None:
    """Print a page of Stripe's where somebody can pay for a plan. Once it is paid, it is there."""
    body = {"plan": plan, "interval": interval, "quantity": quantity}
    body |= _told(currency, success_url, cancel_url, email)

    async def work(client: "ApiClient") -> Any:
        base = await account_base(client, account)
        return await client.post("/v1/subscribe" if base == OWN else f"{base}/subscribe", body)

    _print_page(common, ask(common, work))


@command(app, "tollkeeper subscriptions buy small --account alice --quantity 2")
def buy(
    common: Common,
    pack: PackArgument,
    account: AccountOption = "",
    quantity: QuantityOption = 1,
    currency: CurrencyOption = "",
    success_url: SuccessOption = "",
    cancel_url: CancelOption = "",
    email: EmailOption = "",
) -> None:
    """Print a page of Stripe's where somebody can pay for a pack."""
    body = {"pack": pack, "quantity": quantity}
    body |= _told(currency, success_url, cancel_url, email)
    _print_page(common, _post(common, account, "packs", body))


@command(app, "tollkeeper subscriptions portal alice")
def portal(
    common: Common,
    account: OwnAccountArgument = "",
    return_url: Annotated[
        str, typer.Option("--return-url", metavar="URL", help="Where the portal leads back to.")
    ] = "",
) -> None:
    """Print a link into Stripe's portal: cards and invoices. It is good for a short time."""
    opened = _post(common, account, "portal", {"return_url": return_url or None})
    if common.as_json:
        print_json({"portal": opened})
    else:
        say(opened["url"])


@command(app, "tollkeeper subscriptions show alice")
def show(common: Common, account: OwnAccountArgument = "") -> None:
    """Show what an account is subscribed to, what is left of it, and what comes next."""

    async def work(client: "ApiClient") -> Any:
        return await client.get(f"{await account_base(client, account)}/subscription")

    _print_subscription(common, ask(common, work))


@command(app, "tollkeeper subscriptions change max --account alice")
def change(
    common: Common,
    plan: Annotated[
        str, typer.Argument(metavar="PLAN", help="Another one; left out, it stays.")
    ] = "",
    account: AccountOption = "",
    interval: Annotated[
        str, typer.Option("--interval", help="month or year; left out, it stays.")
    ] = "",
    quantity: Annotated[
        int | None, typer.Option("--quantity", min=1, help="Left out, it stays.")
    ] = None,
) -> None:
    """Change plan, interval or quantity: at once if that is dearer, else with the next period."""
    body = {"plan": plan or None, "interval": interval or None, "quantity": quantity}
    _print_change(common, _post(common, account, "subscription/change", body), CHANGED)


@command(app, "tollkeeper subscriptions undo-change alice")
def undo_change(common: Common, account: OwnAccountArgument = "") -> None:
    """Drop a change that is scheduled, or not paid yet."""
    _print_change(common, _post(common, account, "subscription/change/undo"), UNDONE)


@command(app, "tollkeeper subscriptions cancel alice")
def cancel(common: Common, account: OwnAccountArgument = "") -> None:
    """End a subscription with the period that is paid for."""
    done = _post(common, account, "subscription/cancel")
    if common.as_json:
        print_json({"cancelled": done})
    else:
        say(f"It ends at {short_moment(done['effective_until'])}; until then nothing changes.")


@command(app, "tollkeeper subscriptions resume alice")
def resume(common: Common, account: OwnAccountArgument = "") -> None:
    """Let a subscription go on that was cancelled and has not ended."""
    _print_subscription(common, _post(common, account, "subscription/resume"))


def _post(
    common: Common, account: str, path: str, body: Mapping[str, Any] | None = None
) -> dict[str, Any]:
    """Ask for something of an account's; the answer."""

    async def work(client: "ApiClient") -> Any:
        return await client.post(f"{await account_base(client, account)}/{path}", body)

    return ask(common, work)


def _told(currency: str, success_url: str, cancel_url: str, email: str) -> dict[str, Any]:
    told = {
        "currency": currency,
        "success_url": success_url,
        "cancel_url": cancel_url,
        "email": email,
    }
    return {name: value for name, value in told.items() if value}


def _print_page(common: Common, page: Mapping[str, Any]) -> None:
    if common.as_json:
        print_json({"checkout": page})
        return
    say(page["url"])
    say(f"It can be paid there until {short_moment(page['expires_at'])}.")


def _print_change(common: Common, done: Mapping[str, Any], words: Mapping[str, str]) -> None:
    if common.as_json:
        print_json({"change": done})
        return
    at = short_moment(done["effective_at"])
    say(words[done["result"]].format(at=at, url=done["payment_url"]))
    _print(done["subscription"])


def _print_subscription(common: Common, found: Mapping[str, Any]) -> None:
    if common.as_json:
        print_json({"subscription": found})
    else:
        _print(found)


def _print(found: Mapping[str, Any]) -> None:
    """What it is; the rest of what somebody wants to know in a line each."""
    say(f"Plan: {found['plan'] or 'none'} ({found['status']}).")
    other = found["other_credits_left"]
    also = f", and {other} of other grants" if other != "0" else ""
    say(f"{found['credits_left']} of {found['credits_total']} credits left{also}.")
    say_debt(found)
    shown = {
        name: short_moment(value) if name.endswith(("_at", "trial_end")) else value
        for name, value in found.items()
        if name not in SAID and value is not None
    }
    print_fields(shown)


# By what came of it.
CHANGED = {
    "done": "It is changed.",
    "needs_payment": "It changes when this is paid: {url}",
    "scheduled": "It changes at {at}.",
    "unchanged": "It is so already, and nothing was to change.",
}
UNDONE = CHANGED | {
    "done": "The change is dropped: the subscription goes on as it is.",
    "unchanged": "There was no change to drop: the subscription goes on as it is.",
}
SAID = frozenset(
    ("plan", "status", "credits_left", "credits_total", "other_credits_left", "debt_credits")
)
