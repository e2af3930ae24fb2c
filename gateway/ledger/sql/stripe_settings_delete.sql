-- What was bought stays as it is; without a key nothing more is asked or believed.
DELETE FROM stripe_settings WHERE platform_id = $1 AND managed_by = $2 RETURNING platform_id
