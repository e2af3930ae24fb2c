-- What was given ahead for a period that will not come, because another plan began: as if revoked
-- before it began (grant_revoke.sql), so that nothing of it is rolled over. What it has left is
-- withdrawn in Redis then.
UPDATE grants SET
    revoked_at = now(),
    effective_at = now() - interval '1 ms',
    expires_at = now(),
    closed = false
WHERE account_id = $1
    AND source IN ('plan', 'overage')
    AND effective_at > now()
    AND business_key IS NOT NULL
