"""`tollkeeper audit`: whether the invariants hold."""

from typing import TYPE_CHECKING, Annotated, Any

import typer

from gateway.cli.options import Common, command
from gateway.cli.output import Column, print_json, print_table, progress, say
from gateway.cli.run import FAILED, run
from gateway.cli.session import open_desk
from policies.units import format_credits

if TYPE_CHECKING:
    from collections.abc import Mapping

    from gateway.ledger.desk import AuditAccountRow
    from gateway.operations.audit import AuditReport
    from gateway.operations.findings import Finding

COLUMNS = (
    Column("RULE", "invariant"),
    Column("PLATFORM", "platform"),
    Column("ACCOUNT", "account"),
    Column("WHERE", "subject"),
    Column("EXPECTED", "expected", figures=True),
    Column("FOUND", "found", figures=True),
    Column("WHAT IT MEANS", "meaning"),
)


def register(app: typer.Typer) -> None:
    """Add this command to the command line."""
    command(app, "tollkeeper audit --json")(audit)


def audit(
    common: Common,
    account: Annotated[
        str, typer.Argument(metavar="ACCOUNT", help="Only this account of the platform.")
    ] = "",
) -> None:
    """Check that every credit is accounted for.

    Compares Redis with Postgres while calls run, and changes nothing.

    I1: every grant's credits are accounted for. I2: every call is settled once. I3: nothing is
    oversold. I4: every hold ends. Exit code 1 when something disagrees.
    """

    async def work() -> "AuditReport":
        from gateway.operations.accounts import find_account
        from gateway.operations.audit import audit as check

        async with open_desk(common.config, common.data_dir) as desk:
            chosen = None
            if account:
                found = await find_account(desk.ledger, desk.platform_id, account)
                chosen = found.account_id
            with progress("Auditing accounts", shown=not common.as_json) as report:
                return await check(desk.ledger, desk.counters, account_id=chosen, progress=report)

    report = run(work())
    rows = [finding_document(finding, report.accounts) for finding in report.findings]
    if common.as_json:
        print_json({"clean": not rows, "accounts": len(report.accounts), "findings": rows})
    elif rows:
        print_table(COLUMNS, rows)
        say(f"\n{len(rows)} disagreements in {len(report.accounts)} accounts.")
    else:
        say(f"Clean: {len(report.accounts)} accounts, nothing disagrees.")
    if rows:
        raise typer.Exit(FAILED)


def finding_document(
    finding: "Finding", accounts: "Mapping[int, AuditAccountRow]"
) -> dict[str, Any]:
    """A disagreement, for programs and as a row of COLUMNS."""
    account = accounts.get(finding.account_id)
    return {
        "invariant": finding.invariant,
        "check": finding.check,
        "platform": account.platform_slug if account else None,
        "account": account.name if account else None,
        "subject": finding.subject,
        "expected": _value(finding, finding.expected),
        "found": _value(finding, finding.found),
        "meaning": finding.meaning,
    }


def _value(finding: "Finding", value: int | str) -> int | str:
    """Amounts as credits, the rest as it is."""
    return format_credits(value) if finding.is_amount and isinstance(value, int) else value
