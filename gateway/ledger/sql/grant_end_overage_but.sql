-- A period has one lot of overage: all others of the account end now.
UPDATE grants SET expires_at = greatest(now(), effective_at + interval '1 ms')
WHERE account_id = $1
    AND source = 'overage'
    AND expires_at > now()
    AND business_key IS DISTINCT FROM $2
