-- Lots of earlier payments for a subscription that end at a moment ($4) and have not begun: as if
-- revoked before they began, for a change has set those months anew. What they have left is
-- withdrawn in Redis then. A debt that they paid is owed again (as in grant_revoke_ahead.sql).
WITH revoked AS (
    UPDATE grants SET
        revoked_at = now(),
        effective_at = now() - interval '1 ms',
        expires_at = now(),
        closed = false
    FROM paid_lots
    JOIN billing_transactions AS payments ON payments.id = paid_lots.transaction_id
    WHERE grants.id = paid_lots.grant_id
        AND payments.platform_id = $1
        AND payments.livemode = $2
        AND payments.account_id = $3
        AND payments.subscription_id = $5
        AND payments.id <> $6
        AND payments.created_at <= (SELECT created_at FROM billing_transactions WHERE id = $6)
        AND grants.source = 'plan'
        AND grants.expires_at = from_ms($4)
        AND grants.effective_at > now()
    RETURNING grants.id
), unpaid AS MATERIALIZED (
    SELECT platform_id, account_id, grant_id, sum(microcredits)::bigint AS microcredits
    FROM debt_entries
    WHERE account_id = $3 AND kind = 'paid' AND grant_id IN (SELECT revoked.id FROM revoked)
    GROUP BY platform_id, account_id, grant_id
), entered AS (
    INSERT INTO debt_entries (platform_id, account_id, kind, microcredits, grant_id)
    SELECT platform_id, account_id, 'owed', microcredits, grant_id FROM unpaid
)
UPDATE account_debts SET owed_microcredits = owed_microcredits + (
    SELECT sum(unpaid.microcredits) FROM unpaid
)
WHERE account_id = $3 AND EXISTS (SELECT FROM unpaid)
