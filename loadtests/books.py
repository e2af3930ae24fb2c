"""Prints what Postgres says about a load test, as JSON: the third witness beside clients and agent.

Reads the raw settlements, not the roll-ups. A process of its own, so that it works from locust too,
whose gevent and asyncio don't mix.

    python loadtests/books.py postgresql://...
"""

from __future__ import annotations

import asyncio
import json
import sys

import asyncpg

TOTALS = """
select a.name as account, r.name as route, s.ending, s.status,
       count(*) as calls,
       sum(s.charged_microcredits)::bigint as charged,
       sum(s.uncollected_microcredits)::bigint as uncollected
from settlements s
join accounts a on a.id = s.account_id
join routes r on r.id = s.route_id
group by 1, 2, 3, 4
order by 1, 2, 3, 4
"""
UNITS = "select units, count(*) as calls from settlements where units <> '' group by units"


async def read(url: str) -> dict[str, object]:
    """All settlements, summed by account, route, ending and status; and units by their name."""
    connection = await asyncpg.connect(url)
    try:
        rows = [dict(row) for row in await connection.fetch(TOTALS)]
        units: dict[str, int] = {}
        for row in await connection.fetch(UNITS):
            for pair in row["units"].split(";"):
                unit, _, count = pair.partition("=")
                units[unit] = units.get(unit, 0) + int(count) * row["calls"]
    finally:
        await connection.close()
    return {
        "calls": sum(row["calls"] for row in rows),
        "charged": sum(row["charged"] for row in rows),
        "uncollected": sum(row["uncollected"] for row in rows),
        "units": units,
        "rows": rows,
    }


if __name__ == "__main__":
    print(json.dumps(asyncio.run(read(sys.argv[1]))))
