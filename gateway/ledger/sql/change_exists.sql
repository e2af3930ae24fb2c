-- Whether a call was corrected or refunded; each happens once.
SELECT EXISTS (
    SELECT FROM ledger_changes WHERE call_id = $1 AND kind = $2 AND kind IN ('late', 'refund')
)
