-- What the last call that had an account's idempotency key was answered, as long as keys are kept.
SELECT
    replace(call_id::text, '-', '') AS call_id,
    encode(fingerprint, 'hex') AS fingerprint,
    answer
FROM idempotent_answers
WHERE account_id = $1
    AND digest = $2
    AND created_at > now() - $3 * interval '1 ms'
