-- What a reference stands for has changed to a key of the other mode.
UPDATE stripe_settings SET livemode = $2 WHERE platform_id = $1 AND livemode <> $2
