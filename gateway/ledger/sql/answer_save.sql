-- What calls with an idempotency key were answered. A key has the answer of its last call; a
-- receipt never replaces the answer of the same call.
INSERT INTO idempotent_answers
    (platform_id, account_id, digest, fingerprint, call_id, receipt, answer)
SELECT * FROM unnest(
    $1::bigint[], $2::bigint[], $3::bytea[], $4::bytea[], $5::uuid[], $6::boolean[], $7::bytea[]
)
ON CONFLICT (account_id, digest) DO UPDATE SET
    platform_id = excluded.platform_id,
    fingerprint = excluded.fingerprint,
    call_id = excluded.call_id,
    receipt = excluded.receipt,
    answer = excluded.answer,
    created_at = excluded.created_at
WHERE idempotent_answers.call_id <> excluded.call_id OR NOT excluded.receipt
