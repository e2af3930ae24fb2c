-- Lots that got credits back or were added to in the last $1 ms, a page at a time, and all that was
-- ever given to them: does Redis know? Those with nothing left may be missing there.
SELECT DISTINCT
    grants.id AS grant_id,
    grants.account_id,
    grants.amount_microcredits + grants.credited_microcredits AS total_microcredits
FROM ledger_changes AS changes
JOIN ledger_entries AS entries ON entries.change_id = changes.id AND entries.microcredits > 0
JOIN grants ON grants.id = entries.grant_id
WHERE changes.kind IN ('adjust', 'late', 'refund')
    AND changes.created_at > now() - $1 * interval '1 ms'
    AND grants.id > $2
    AND grants.amount_microcredits + grants.credited_microcredits
        > grants.settled_microcredits + grants.expired_microcredits + grants.revoked_microcredits
ORDER BY grants.id
LIMIT $3
