-- Of the calls that Redis knows (its outbox, its settled holds): what Postgres has of them.
SELECT
    replace(call_id::text, '-', '') AS call_id,
    account_id,
    charged_microcredits,
    uncollected_microcredits,
    to_ms(settled_at) AS settled_ms
FROM settlements
WHERE call_id = ANY ($1::uuid[])
