-- How a call was settled, and what has happened to it since.
SELECT
    replace(call_id::text, '-', '') AS call_id,
    platform_id,
    account_id,
    ending,
    flags,
    charged_microcredits,
    to_ms(settled_at) AS settled_ms,
    EXISTS (
        SELECT FROM ledger_changes
        WHERE ledger_changes.call_id = settlements.call_id AND ledger_changes.kind = 'late'
    ) AS adjusted,
    EXISTS (
        SELECT FROM ledger_changes
        WHERE ledger_changes.call_id = settlements.call_id AND ledger_changes.kind = 'refund'
    ) AS refunded
FROM settlements
WHERE call_id = $1
