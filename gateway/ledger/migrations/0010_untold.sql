-- Accounts of which something has changed that Redis decides by, until Redis was told.

-- Written in the change's own transaction, so that a process that dies behind it leaves word. Who
-- has told Redis deletes the row if it still is the one that was there before the account was read.
CREATE TABLE untold_accounts (
    account_id bigint PRIMARY KEY,
    platform_id bigint NOT NULL,
    change bigint GENERATED ALWAYS AS IDENTITY,
    changed_at timestamptz NOT NULL DEFAULT now()
);
ALTER TABLE untold_accounts ENABLE ROW LEVEL SECURITY;
ALTER TABLE untold_accounts FORCE ROW LEVEL SECURITY;
CREATE POLICY gateway ON untold_accounts TO CURRENT_USER USING (true) WITH CHECK (true);
CREATE POLICY tenant ON untold_accounts TO tollkeeper_api USING (
    platform_id = (SELECT tenant_platform())
    AND ((SELECT tenant_account()) IS NULL OR account_id = (SELECT tenant_account()))
);
GRANT SELECT, DELETE ON untold_accounts TO tollkeeper_api;

-- Argument: what has changed. Of a plan, all of its accounts, in one order, so that two changes
-- wait for each other instead of locking up.
CREATE FUNCTION note_untold() RETURNS trigger LANGUAGE plpgsql
    SECURITY DEFINER SET search_path = public, pg_temp AS $$
BEGIN
    INSERT INTO untold_accounts (account_id, platform_id)
    SELECT accounts.id, accounts.platform_id
    FROM accounts
    WHERE CASE TG_ARGV[0]
        WHEN 'account' THEN accounts.id = (to_jsonb(NEW) ->> 'id')::bigint
        WHEN 'key' THEN accounts.id = (to_jsonb(NEW) ->> 'account_id')::bigint
        ELSE accounts.plan_id = (to_jsonb(NEW) ->> 'id')::bigint
    END
    ORDER BY accounts.id
    ON CONFLICT (account_id) DO UPDATE SET change = DEFAULT, changed_at = now();
    RETURN NULL;
END $$;
REVOKE EXECUTE ON FUNCTION note_untold() FROM PUBLIC;
CREATE TRIGGER accounts_untold AFTER UPDATE OF status, plan_id, discount_basis_points ON accounts
    FOR EACH ROW EXECUTE FUNCTION note_untold('account');
CREATE TRIGGER api_keys_untold AFTER UPDATE OF status, expires_at, spec, guard_version ON api_keys
    FOR EACH ROW EXECUTE FUNCTION note_untold('key');
CREATE TRIGGER plans_untold AFTER UPDATE OF spec ON plans
    FOR EACH ROW EXECUTE FUNCTION note_untold('plan');
