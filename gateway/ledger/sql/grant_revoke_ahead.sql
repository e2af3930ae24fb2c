-- What was given ahead for a period that will not come, because another plan began: as if revoked
-- before it began (grant_revoke.sql), so that nothing of it is rolled over. What it has left is
-- withdrawn in Redis then. Ahead is what comes after the account's period, also if that is over by
-- now, or was when this transaction began; lots begin at whole milliseconds. What was paid for
-- (later months of a yearly price) stays. A debt that it paid is owed again: the next lot pays it.
-- Its name is free again: an account that comes back to the period before (account_return.sql) is
-- given the next one after all.
WITH revoked AS (
    UPDATE grants SET
        revoked_at = now(),
        effective_at = least(effective_at, now() - interval '1 ms'),
        expires_at = now(),
        closed = false,
        business_key = NULL
    WHERE account_id = $1
        AND source IN ('plan', 'overage')
        AND to_ms(effective_at) >= (
            SELECT to_ms(accounts.period_end_at) FROM accounts WHERE accounts.id = $1
        )
        AND business_key IS NOT NULL
        AND NOT starts_with(business_key, 'stripe:')
    RETURNING id
), unpaid AS MATERIALIZED (
    SELECT platform_id, account_id, grant_id, sum(microcredits)::bigint AS microcredits
    FROM debt_entries
    WHERE account_id = $1 AND kind = 'paid' AND grant_id IN (SELECT revoked.id FROM revoked)
    GROUP BY platform_id, account_id, grant_id
), entered AS (
    INSERT INTO debt_entries (platform_id, account_id, kind, microcredits, grant_id)
    SELECT platform_id, account_id, 'owed', microcredits, grant_id FROM unpaid
)
UPDATE account_debts SET owed_microcredits = owed_microcredits + (
    SELECT sum(unpaid.microcredits) FROM unpaid
)
WHERE account_id = $1 AND EXISTS (SELECT FROM unpaid)
