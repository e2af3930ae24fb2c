-- Whether a platform's Stripe settings refer to a secret: it can't be deleted.
SELECT true
FROM stripe_settings
WHERE platform_id = $1 AND ($2 = secret_key OR $2 = ANY (webhook_secrets))
