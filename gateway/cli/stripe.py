"""`tollkeeper stripe`: which Stripe the platform has, and the catalogue there."""

from collections.abc import Mapping
from typing import TYPE_CHECKING, Annotated, Any

import typer

from gateway.cli import stripe_events
from gateway.cli.callers import ask
from gateway.cli.options import Common, command, new_app
from gateway.cli.output import Column, print_fields, print_json, print_rows, say
from gateway.cli.packs import price_text
from gateway.cli.typed import read_document
from gateway.operations.errors import UsageError

if TYPE_CHECKING:
    from gateway.cli.api import ApiClient

PATH = "/v1/stripe"

app = new_app(
    "A platform's Stripe: show, set, unset, products, sync, plan-push, events, reconcile."
)
stripe_events.register(app)

KeyOption = Annotated[
    str, typer.Option("--key", metavar="SECRET", help="What its secret key was kept as.")
]
WebhookOption = Annotated[
    list[str] | None,
    typer.Option(
        "--webhook-secret",
        metavar="SECRET",
        help="What the secret of its webhook endpoint was kept as; again for another one.",
    ),
]
OptionsOption = Annotated[
    str,
    typer.Option(
        "--file", metavar="FILE", help='Choices as in [stripe], of JSON or TOML; "-" is stdin.'
    ),
]
PRODUCTS = (
    Column("PRODUCT", "id"),
    Column("SELLS", "sells"),
    Column("ACTIVE", "active"),
    Column("PRICES", "prices"),
    Column("PROBLEM", "problem"),
)


@command(app, "tollkeeper stripe show")
def show(common: Common) -> None:
    """Show which Stripe the platform has, and whether it can be used. Keys are never shown."""

    async def work(client: "ApiClient") -> Any:
        return await client.get(PATH)

    found = ask(common, work)
    if common.as_json:
        print_json({"stripe": found})
        return
    print_fields(found)


@command(app, "tollkeeper stripe set --key stripe-key --webhook-secret stripe-webhook", name="set")
def set_(
    common: Common, key: KeyOption, webhook_secret: WebhookOption = None, file: OptionsOption = ""
) -> None:
    """Let the platform have a Stripe from now on.

    Its keys are kept before, by "tollkeeper secrets set": they are named here, never shown.
    Everything else is by default, or as the file says, which has the other keys of the config's
    [stripe].
    """

    async def work(client: "ApiClient") -> Any:
        options = _options(file) if file else {}
        secrets = [_reference(name) for name in webhook_secret or []]
        body = {**options, "secret_key": _reference(key), "webhook_secrets": secrets}
        return await client.put(PATH, body)

    made = ask(common, work)
    if common.as_json:
        print_json({"stripe": made})
        return
    say(f"Stripe is set, in {made['mode']} mode.")
    say(f"Its webhook endpoint is {made['webhook_path']}, at the address of this API.")
    if not made["webhook_secrets"]:
        say("Without a webhook secret no event is believed: changes are found by looking only.")


@command(app, "tollkeeper stripe unset")
def unset(common: Common) -> None:
    """Take the platform's Stripe away. What was bought stays."""

    async def work(client: "ApiClient") -> None:
        await client.delete(PATH)

    ask(common, work)
    if common.as_json:
        print_json({"stripe": None})
    else:
        say("The platform has no Stripe any more.")


@command(app, "tollkeeper stripe products")
def products(common: Common) -> None:
    """List products that are tagged as the platform's, and what is wrong with them."""

    async def work(client: "ApiClient") -> Any:
        return await client.all(f"{PATH}/products")

    print_rows(
        "products",
        PRODUCTS,
        ask(common, work),
        as_json=common.as_json,
        empty="Stripe has no product of this platform.",
        shown=_product,
    )


@command(app, "tollkeeper stripe sync")
def sync(common: Common) -> None:
    """Look at all of the catalogue now, rather than in ten minutes."""

    async def work(client: "ApiClient") -> Any:
        return await client.post(f"{PATH}/sync")

    report = ask(common, work)
    if common.as_json:
        print_json({"sync": report})
        return
    say(f"{report['products']} products are known, in {report['mode']} mode.")
    for what in ("plans", "packs"):
        if report[f"{what}_changed"]:
            say(f"Changed {what}: {', '.join(report[f'{what}_changed'])}.")
    for one in report["parked"]:
        say(f"Parked is {one['product']}: {one['problem']}.")


@command(app, "tollkeeper stripe plan-push --dry-run", name="plan-push")
def plan_push(
    common: Common,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Only show what would be done.")
    ] = False,
) -> None:
    """Make and update products and prices of the platform's own plans and packs.

    What is not tagged as the platform's is never touched. A price can't change: another one is
    made, and the old one archived.
    """

    async def work(client: "ApiClient") -> Any:
        return await client.post(f"{PATH}/plan-push", {"dry_run": dry_run})

    report = ask(common, work)
    if common.as_json:
        print_json({"push": report})
        return
    for one in report["left_out"]:
        say(f"The plan {one['plan']} can't be pushed: {one['problem']}.")
    if not report["steps"]:
        say("Nothing to do: Stripe has all of it.")
        return
    say(f"{'Would be done' if dry_run else 'Done'}, in {report['mode']} mode:")
    for step in report["steps"]:
        say(f"  {_step(step)}")


def _options(file: str) -> dict[str, Any]:
    """What the file says. Raises: UsageError for what is told by options alone."""
    options = read_document(file, "stripe")
    for name, option in (("secret_key", "--key"), ("webhook_secrets", "--webhook-secret")):
        if name in options:
            raise UsageError(
                f"{file}: {name} is told by {option}, as the name of a secret that "
                '"tollkeeper secrets set" keeps: leave it out of the file'
            )
    return options


def _reference(name: str) -> str:
    return f"secret:{name.removeprefix('secret:')}"


def _product(row: Mapping[str, Any]) -> dict[str, Any]:
    sold = [price for price in row["prices"] if price["active"] and not price["problem"]]
    wrong = [price["problem"] for price in row["prices"] if price["active"] and price["problem"]]
    problems = [row["problem"], row["differs"], *wrong]
    return {
        "id": row["id"],
        "sells": f"{row['kind']} {row['slug']}".strip(),
        "active": "yes" if row["active"] else "no",
        "prices": ", ".join(map(price_text, sold)),
        "problem": "; ".join(problem for problem in problems if problem),
    }


def _step(step: Mapping[str, Any]) -> str:
    which = f" {step['id']}" if step["id"] else ""
    changes = ", ".join(f"{name} = {text!r}" for name, text in step["changes"].items())
    done = f"{step['action']} {step['object']}{which} of the {step['kind']} {step['slug']}"
    return f"{done}: {changes}" if changes else done
