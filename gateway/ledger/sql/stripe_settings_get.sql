-- Whose Stripe is asked, and how. Of every platform that has one, or with $1 only of that.
SELECT
    stripe_settings.platform_id,
    platforms.slug,
    stripe_settings.livemode,
    stripe_settings.secret_key,
    stripe_settings.webhook_secrets,
    stripe_settings.stripe_account,
    stripe_settings.options,
    stripe_settings.managed_by,
    to_ms(stripe_settings.created_at) AS created_ms,
    to_ms(stripe_settings.updated_at) AS updated_ms
FROM stripe_settings
JOIN platforms ON platforms.id = stripe_settings.platform_id
WHERE $1::bigint IS NULL OR stripe_settings.platform_id = $1
ORDER BY stripe_settings.platform_id
