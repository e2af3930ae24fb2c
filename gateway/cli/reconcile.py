"""`tollkeeper reconcile`: whether Redis and Postgres agree, and one account in full."""

from typing import TYPE_CHECKING, Annotated, Any

import typer

from gateway.cli.audit import COLUMNS, finding_document
from gateway.cli.options import Common, command
from gateway.cli.output import Column, print_json, print_table, progress, say
from gateway.cli.run import FAILED, run
from gateway.cli.session import open_desk
from gateway.operations.moments import format_moment
from policies.units import format_credits

if TYPE_CHECKING:
    from gateway.operations.audit import AuditReport
    from gateway.operations.reconcile_explain import Explained, ExplainedLot

LOT_COLUMNS = (
    Column("GRANT", "id", figures=True),
    Column("SOURCE", "source"),
    Column("GRANTED", "granted", figures=True),
    Column("CREDITED", "credited", figures=True),
    Column("IN", "place"),
    Column("AVAILABLE", "available", figures=True),
    Column("HELD", "held", figures=True),
    Column("SETTLED", "settled", figures=True),
    Column("WITHDRAWN", "withdrawn", figures=True),
    Column("TRAVELS", "travelling", figures=True),
)
CALL_COLUMNS = (
    Column("CALL", "id"),
    Column("STAGE", "stage"),
    Column("HELD", "held", figures=True),
    Column("DUE", "due", figures=True),
    Column("FROM GRANTS", "grants"),
    Column("LEASE ENDS", "lease_ends"),
)
TRAVELLING_COLUMNS = (
    Column("WHAT", "what"),
    Column("ID", "id"),
    Column("WHERE TO", "towards"),
    Column("AMOUNT", "amount", figures=True),
    Column("SINCE", "since"),
)


def register(app: typer.Typer) -> None:
    """Add this command to the command line."""
    command(app, "tollkeeper reconcile --explain alice")(reconcile)


def reconcile(
    common: Common,
    explain: Annotated[
        str,
        typer.Option("--explain", metavar="ACCOUNT", help="Show all there is of this account."),
    ] = "",
) -> None:
    """Compare Redis with Postgres, and change nothing.

    A node does this by itself, slowly and for ever; this does it once, now. With --explain: every
    grant of an account in both places, its running calls, what travels, and in a sentence what is
    wrong, if anything. Exit code 1 when something disagrees.
    """
    if explain:
        _explain(common, explain)
        return

    async def work() -> "AuditReport":
        from gateway.operations.audit import AuditReport, chosen_of, compare_accounts

        async with open_desk(common.config, common.data_dir) as desk:
            accounts = {row.account_id: row for row in await desk.ledger.audit_accounts()}
            with progress("Comparing accounts", shown=not common.as_json) as report:
                found = await compare_accounts(
                    desk.ledger, desk.counters, accounts, progress=report
                )
        return AuditReport(accounts, chosen_of(found.values(), None))

    report = run(work())
    rows = [finding_document(finding, report.accounts) for finding in report.findings]
    if common.as_json:
        print_json({"drift": bool(rows), "accounts": len(report.accounts), "findings": rows})
    elif rows:
        print_table(COLUMNS, rows)
        say(f"\n{len(rows)} disagreements in {len(report.accounts)} accounts.")
    else:
        say(f"No drift: Redis and Postgres agree on {len(report.accounts)} accounts.")
    if rows:
        raise typer.Exit(FAILED)


def _explain(common: Common, account: str) -> None:
    async def work() -> "Explained":
        from gateway.operations.reconcile_explain import explain_account

        async with open_desk(common.config, common.data_dir) as desk:
            return await explain_account(desk.ledger, desk.counters, desk.platform_id, account)

    explained = run(work())
    if common.as_json:
        print_json(_document(explained))
    else:
        _print(explained)
    if explained.findings:
        raise typer.Exit(FAILED)


def _print(explained: "Explained") -> None:
    name = explained.account.name
    say(
        f"{name}: account {explained.account.account_id}, shard {explained.shard}, in Redis "
        f"{explained.state}\n"
    )
    rows = [row for lot in explained.lots for row in _lot_rows(lot)]
    print_table(LOT_COLUMNS, rows) if rows else say("It has no grants.")
    for title, columns, some in (
        ("Running calls", CALL_COLUMNS, _calls(explained)),
        ("On the way", TRAVELLING_COLUMNS, _travelling(explained)),
    ):
        if some:
            say(f"\n{title}:")
            print_table(columns, some)
    say(f"\n{explained.sentence}")


def _lot_rows(lot: "ExplainedLot") -> list[dict[str, Any]]:
    """A lot as two lines, one for each place."""
    document = _lot(lot)
    lines: list[dict[str, Any]] = []
    for place in ("redis", "postgres"):
        there = document[place] or dict.fromkeys(("available", "held", "settled", "withdrawn"))
        head = document if not lines else dict.fromkeys(("id", "source", "granted", "credited"))
        lines.append(
            {
                **{name: head[name] for name in ("id", "source", "granted", "credited")},
                "place": place.capitalize(),
                **{name: there[name] for name in ("available", "settled", "withdrawn")},
                "held": there.get("held"),
                "travelling": document["travelling"] if place == "redis" else None,
            }
        )
    return lines


def _document(explained: "Explained") -> dict[str, Any]:
    return {
        "account": explained.account.name,
        "shard": explained.shard,
        "redis": explained.state,
        "grants": [_lot(lot) for lot in explained.lots],
        "calls": _calls(explained),
        "travelling": _travelling(explained),
        "findings": [finding_document(finding, {}) for finding in explained.findings],
        "sentence": explained.sentence,
    }


def _lot(lot: "ExplainedLot") -> dict[str, Any]:
    redis, postgres = lot.redis, lot.postgres
    return {
        "id": lot.grant_id,
        "source": postgres.source if postgres else None,
        "granted": format_credits(postgres.amount_microcredits) if postgres else None,
        "credited": format_credits(postgres.credited_microcredits) if postgres else None,
        "redis": redis
        and {
            "available": format_credits(redis.available),
            "held": format_credits(redis.held),
            "settled": format_credits(redis.settled),
            "withdrawn": format_credits(redis.withdrawn),
        },
        "postgres": postgres
        and {
            "available": format_credits(
                postgres.given - postgres.settled_microcredits - postgres.withdrawn
            ),
            "settled": format_credits(postgres.settled_microcredits),
            "withdrawn": format_credits(postgres.withdrawn),
            "expired": format_credits(postgres.expired_microcredits),
            "revoked": format_credits(postgres.revoked_microcredits),
        },
        "travelling": redis
        and format_credits(redis.travelling_settled + redis.travelling_withdrawn),
    }


def _calls(explained: "Explained") -> list[dict[str, Any]]:
    return [
        {
            "id": call.call_id,
            "stage": call.stage,
            "held": format_credits(call.held_microcredits),
            "due": format_credits(call.due_microcredits),
            "grants": call.allocation,
            "admitted": format_moment(call.admitted_ms),
            "lease_ends": format_moment(call.deadline_ms) or None,
        }
        for call in explained.calls
    ]


def _travelling(explained: "Explained") -> list[dict[str, Any]]:
    settlements = [
        ("settlement", row.call_id, "Postgres", row.charged_microcredits, row.settled_ms)
        for row in explained.settlements
    ]
    changes = [
        (change.kind, change.change_id, "Postgres", _taken(change.postings), change.at_ms)
        for change in explained.changes
    ]
    late = [
        ("late settlement", row.call_id, "Redis", row.owed_microcredits, row.ended_ms)
        for row in explained.waiting
    ]
    return [
        {
            "what": what,
            "id": number,
            "towards": towards,
            "amount": format_credits(amount),
            "since": format_moment(since_ms),
        }
        for what, number, towards, amount, since_ms in (*settlements, *changes, *late)
    ]


def _taken(postings: tuple[tuple[int, int], ...]) -> int:
    return sum(microcredits for _, microcredits in postings)
