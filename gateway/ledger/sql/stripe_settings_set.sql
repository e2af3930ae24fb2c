-- Who describes it last manages it. Nothing is written, and no row answered, where all is as it
-- was.
INSERT INTO stripe_settings AS old (
    platform_id, livemode, secret_key, webhook_secrets, stripe_account, options, managed_by
) VALUES ($1, $2, $3, $4, $5, $6, $7)
ON CONFLICT (platform_id) DO UPDATE SET
    livemode = excluded.livemode,
    secret_key = excluded.secret_key,
    webhook_secrets = excluded.webhook_secrets,
    stripe_account = excluded.stripe_account,
    options = excluded.options,
    managed_by = excluded.managed_by,
    updated_at = now()
WHERE (
        old.livemode, old.secret_key, old.webhook_secrets, old.stripe_account, old.options,
        old.managed_by
    ) IS DISTINCT FROM (
        excluded.livemode, excluded.secret_key, excluded.webhook_secrets, excluded.stripe_account,
        excluded.options, excluded.managed_by
    )
RETURNING platform_id
