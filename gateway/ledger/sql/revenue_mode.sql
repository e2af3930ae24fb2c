-- In which mode a platform takes money: that of its key, and live where it has none.
SELECT coalesce((SELECT livemode FROM stripe_settings WHERE platform_id = $1), true)
