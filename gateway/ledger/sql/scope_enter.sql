-- For whom this transaction works (row-level security), and who is behind it (audit log). Ends with
-- it.
SELECT
    set_config('tollkeeper.platform', $1, true),
    set_config('tollkeeper.account', $2, true),
    set_config('tollkeeper.actor', $3, true),
    set_config('tollkeeper.address', $4, true),
    set_config('tollkeeper.request', $5, true)
