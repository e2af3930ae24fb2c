-- A step that is not done yet, for whoever does it now; no row: it is done, or somebody is at it,
-- or at another one of its payment: each counts on what those before it have taken.
SELECT
    clawbacks.account_id, clawbacks.platform_id, accounts.name AS account_name,
    clawbacks.transaction_id, clawbacks.amount_microcredits, clawbacks.parts
FROM clawbacks
JOIN accounts ON accounts.id = clawbacks.account_id
WHERE clawbacks.id = $1
    AND NOT clawbacks.is_done
    AND pg_try_advisory_xact_lock(
        hashtextextended('tollkeeper clawback ' || clawbacks.transaction_id, 0)
    )
FOR NO KEY UPDATE OF clawbacks SKIP LOCKED
