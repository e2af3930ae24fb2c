-- A period has one lot of overage: that of the period which is cut short ends with it.
UPDATE grants SET expires_at = greatest(from_ms($2), effective_at + interval '1 ms')
WHERE account_id = $1 AND source = 'overage' AND expires_at > from_ms($2)
