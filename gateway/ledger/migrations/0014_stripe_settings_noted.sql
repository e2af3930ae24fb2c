-- The audit log calls what has changed by its id. Of these settings a platform has one, so they are
-- called as it is.
ALTER TABLE stripe_settings
    ADD COLUMN id bigint NOT NULL GENERATED ALWAYS AS (platform_id) STORED;
