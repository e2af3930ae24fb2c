-- What was rolled over into an account's period already; the account is locked.
SELECT coalesce(sum(amount_microcredits), 0)::bigint
FROM grants
WHERE account_id = $1 AND source = 'rollover' AND expires_at = from_ms($2)
