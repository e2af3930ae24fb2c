-- Whether a platform's money is real: the mode of its key, and live where it has none.
SELECT coalesce((SELECT livemode FROM stripe_settings WHERE platform_id = $1), true)
