-- Secrets can be deleted, issuers registered again, old refresh tokens told from guesses.

GRANT DELETE ON plans, secrets TO tollkeeper_api;

ALTER TABLE audit_log DROP CONSTRAINT audit_log_action_check;
ALTER TABLE audit_log ADD CONSTRAINT audit_log_action_check
    CHECK (action IN ('create', 'change', 'delete'));

-- As note_change, of a row that goes.
CREATE FUNCTION note_removal() RETURNS trigger LANGUAGE plpgsql
    SECURITY DEFINER SET search_path = public, pg_temp AS $$
DECLARE
    old_row jsonb := to_jsonb(OLD);
BEGIN
    INSERT INTO audit_log (
        platform_id, account_id, actor, address, request_id,
        action, resource, resource_id, before, after
    ) VALUES (
        (old_row ->> 'platform_id')::bigint,
        (old_row ->> 'account_id')::bigint,
        current_setting('tollkeeper.actor'),
        coalesce(current_setting('tollkeeper.address', true), ''),
        coalesce(current_setting('tollkeeper.request', true), ''),
        'delete', TG_ARGV[0], old_row ->> 'id', old_row - (TG_ARGV)[1:], '{}'
    );
    RETURN NULL;
END $$;
REVOKE EXECUTE ON FUNCTION note_removal() FROM PUBLIC;
CREATE TRIGGER plans_removal_noted AFTER DELETE ON plans
    FOR EACH ROW WHEN (coalesce(current_setting('tollkeeper.actor', true), '') <> '')
    EXECUTE FUNCTION note_removal('plan');
CREATE TRIGGER secrets_removal_noted AFTER DELETE ON secrets
    FOR EACH ROW WHEN (coalesce(current_setting('tollkeeper.actor', true), '') <> '')
    EXECUTE FUNCTION note_removal('secret', 'sealed', 'updated_at');

-- An issuer that was removed and is registered again is another one: its old keys stay revoked.
ALTER TABLE issuers DROP CONSTRAINT issuers_platform_id_issuer_key;
CREATE UNIQUE INDEX issuers_active ON issuers (platform_id, issuer) WHERE active;

-- A refresh token names its session, so that every old one is known, not only the last.
ALTER TABLE login_sessions DROP COLUMN last_digest;
