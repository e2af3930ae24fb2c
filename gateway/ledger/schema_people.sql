-- The rest of the schema that all migrations together make, after schema.sql: who people are, what
-- they may see, what they did. To read, never to run.

-- The API asks as this role, which no policy lets pass by. Who migrates owns the tables; processes
-- that serve calls connect as that owner, whom the policies "gateway" let through.
DO $$
DECLARE
    before CONSTANT text := current_setting('role');
BEGIN
    -- An administrator, or another database of this server, may have made it.
    IF to_regrole('tollkeeper_api') IS NULL THEN
        BEGIN
            CREATE ROLE tollkeeper_api NOLOGIN NOSUPERUSER NOBYPASSRLS;
        EXCEPTION WHEN duplicate_object OR unique_violation THEN
            NULL; -- at this moment
        END;
    END IF;
    BEGIN
        PERFORM set_config('role', 'tollkeeper_api', true);
        PERFORM set_config('role', before, true);
    EXCEPTION WHEN insufficient_privilege THEN
        GRANT tollkeeper_api TO CURRENT_USER;
    END;
EXCEPTION WHEN insufficient_privilege THEN
    RAISE insufficient_privilege USING MESSAGE = format(
        'the role %1$I may not make or grant the role tollkeeper_api: have an administrator run '
        'CREATE ROLE tollkeeper_api NOLOGIN (unless there is one) and '
        'GRANT tollkeeper_api TO %1$I', current_user);
END $$;

-- For whom a transaction of the API works; NULL: for nobody, or for no account in particular.
CREATE FUNCTION tenant_platform() RETURNS bigint LANGUAGE sql STABLE AS
    $$ SELECT nullif(current_setting('tollkeeper.platform', true), '')::bigint $$;
CREATE FUNCTION tenant_account() RETURNS bigint LANGUAGE sql STABLE AS
    $$ SELECT nullif(current_setting('tollkeeper.account', true), '')::bigint $$;

-- Grows with every change of what the proxy serves by, in the change's transaction. A worker that
-- has read it knows which changes its snapshot holds.
CREATE TABLE catalog_state (
    singleton boolean PRIMARY KEY DEFAULT true CHECK (singleton),
    version bigint NOT NULL
);

-- A key is a secret of people ("key"), a signed token with a budget carved out of another key
-- ("delegated"), or stands for an account that a platform's own issuer names ("issuer"). Its guards
-- (routes, addresses) are in its spec; guard_version grows when they change. "closed": delegated,
-- over, and what was left of its budget is back with its parent.
CREATE INDEX api_keys_platform ON api_keys (platform_id, id);
CREATE INDEX api_keys_shown ON api_keys (platform_id, prefix);
CREATE INDEX api_keys_parent ON api_keys (parent_key_id, id) WHERE parent_key_id IS NOT NULL;
-- Closed ones become many and are looked at by people only.
CREATE INDEX api_keys_open ON api_keys (account_id, parent_key_id)
    WHERE kind = 'delegated' AND NOT closed;
CREATE INDEX api_keys_ending ON api_keys (least(expires_at, revoked_at))
    WHERE kind = 'delegated' AND NOT closed;

-- Identity providers whose tokens name accounts of a platform. A token's audience names the
-- platform, so that no two platforms can claim one token.
CREATE TABLE issuers (
    id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    platform_id bigint NOT NULL REFERENCES platforms,
    issuer text NOT NULL,
    jwks_url text NOT NULL,
    account_claim text NOT NULL,
    algorithms text[] NOT NULL,
    active boolean NOT NULL DEFAULT true,
    created_at timestamptz NOT NULL DEFAULT now()
);
-- An issuer that was removed and is registered again is another one: its old keys stay revoked.
CREATE UNIQUE INDEX issuers_active ON issuers (platform_id, issuer) WHERE active;
ALTER TABLE api_keys ADD FOREIGN KEY (issuer_id) REFERENCES issuers;
CREATE UNIQUE INDEX api_keys_issuer ON api_keys (account_id, issuer_id)
    WHERE issuer_id IS NOT NULL;

-- Credentials of owners, sealed with the deployment's master key. The API can write them only.
CREATE TABLE secrets (
    id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    platform_id bigint NOT NULL REFERENCES platforms,
    name text NOT NULL,
    sealed bytea NOT NULL,
    created_at timestamptz NOT NULL DEFAULT now(),
    updated_at timestamptz NOT NULL DEFAULT now(),
    UNIQUE (platform_id, name)
);

-- What people and machines show the API. The secret itself is nowhere, as with API keys.
CREATE TABLE api_tokens (
    id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    platform_id bigint REFERENCES platforms,
    account_id bigint REFERENCES accounts,
    role text NOT NULL,
    name text NOT NULL,
    prefix text NOT NULL,
    last4 text NOT NULL,
    digest bytea NOT NULL UNIQUE,
    expires_at timestamptz,
    revoked_at timestamptz,
    created_at timestamptz NOT NULL DEFAULT now(),
    CHECK (CASE
        WHEN role = 'operator' THEN num_nonnulls(platform_id, account_id) = 0
        WHEN role IN ('owner', 'editor', 'viewer')
            THEN platform_id IS NOT NULL AND account_id IS NULL
        WHEN role IN ('admin', 'member') THEN num_nulls(platform_id, account_id) = 0
        ELSE false
    END)
);
CREATE INDEX api_tokens_platform ON api_tokens (platform_id, id);

-- One login: short-lived access tokens name it, a refresh token is good for one refresh. Showing an
-- old one again ends the session, for then two have it.
CREATE TABLE login_sessions (
    id uuid PRIMARY KEY,
    token_id bigint NOT NULL REFERENCES api_tokens,
    refresh_digest bytea NOT NULL UNIQUE,
    created_at timestamptz NOT NULL DEFAULT now(),
    expires_at timestamptz NOT NULL,
    revoked_at timestamptz
);
CREATE INDEX login_sessions_token ON login_sessions (token_id);
CREATE INDEX login_sessions_expires ON login_sessions (expires_at);

-- What the gateway signs its own tokens with. A retired key signs no more; its tokens stay good
-- until they expire.
CREATE TABLE signing_keys (
    kid text PRIMARY KEY,
    public_jwk jsonb NOT NULL,
    sealed_private bytea NOT NULL,
    created_at timestamptz NOT NULL DEFAULT now(),
    retired_at timestamptz
);

-- Creating requests that came with an Idempotency-Key. "answer" is NULL while the first one runs.
CREATE TABLE api_requests (
    actor text NOT NULL,
    digest bytea NOT NULL CHECK (length(digest) = 32),
    fingerprint bytea NOT NULL CHECK (length(fingerprint) = 32),
    request_id text NOT NULL,
    claimed_at timestamptz NOT NULL DEFAULT now(),
    status smallint,
    answer bytea,
    PRIMARY KEY (actor, digest),
    CHECK (num_nulls(status, answer) IN (0, 2))
);
CREATE INDEX api_requests_claimed ON api_requests (claimed_at);

-- Who changed what, from where. Written by triggers in the change's own transaction, where that
-- names an actor: what the gateway does by itself is in the books, not here.
CREATE TABLE audit_log (
    id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    platform_id bigint,
    account_id bigint,
    at timestamptz NOT NULL DEFAULT now(),
    actor text NOT NULL,
    address text NOT NULL,
    request_id text NOT NULL,
    action text NOT NULL CHECK (action IN ('create', 'change', 'delete')),
    resource text NOT NULL,
    resource_id text NOT NULL,
    before jsonb NOT NULL,
    after jsonb NOT NULL
);
CREATE INDEX audit_log_platform ON audit_log (platform_id, at, id);
CREATE INDEX audit_log_account ON audit_log (account_id, at, id);
CREATE INDEX audit_log_resource ON audit_log (platform_id, resource, resource_id, at, id);
CREATE INDEX audit_log_request ON audit_log (request_id);
CREATE TRIGGER audit_log_append_only BEFORE UPDATE OR DELETE ON audit_log
    FOR EACH ROW EXECUTE FUNCTION refuse_change();
CREATE TRIGGER audit_log_no_truncate BEFORE TRUNCATE ON audit_log
    FOR EACH STATEMENT EXECUTE FUNCTION refuse_change();

-- Arguments: what the log calls the resource, then columns that it never sees. As its owner, so
-- that nobody else can write entries. Of a change, only what is different is kept.
CREATE FUNCTION note_change() RETURNS trigger LANGUAGE plpgsql
    SECURITY DEFINER SET search_path = public, pg_temp AS $$
DECLARE
    hidden text[] := (TG_ARGV)[1:];
    new_row jsonb := to_jsonb(NEW);
    before jsonb := '{}';
    after jsonb := new_row - hidden;
BEGIN
    IF TG_OP = 'UPDATE' THEN
        SELECT coalesce(jsonb_object_agg(name, old_value), '{}'),
            coalesce(jsonb_object_agg(name, new_row -> name), '{}')
        INTO before, after
        FROM jsonb_each(to_jsonb(OLD)) AS old_row (name, old_value)
        WHERE old_value IS DISTINCT FROM new_row -> name AND name <> ALL (hidden);
        IF after = '{}' THEN
            -- A secret was replaced, and that is all there is to say of it.
            IF to_jsonb(OLD) = new_row THEN RETURN NULL; END IF;
        END IF;
    END IF;
    INSERT INTO audit_log (
        platform_id, account_id, actor, address, request_id,
        action, resource, resource_id, before, after
    ) VALUES (
        CASE TG_ARGV[0] WHEN 'platform' THEN (new_row ->> 'id')::bigint
            ELSE (new_row ->> 'platform_id')::bigint END,
        CASE TG_ARGV[0] WHEN 'account' THEN (new_row ->> 'id')::bigint
            ELSE (new_row ->> 'account_id')::bigint END,
        current_setting('tollkeeper.actor'),
        coalesce(current_setting('tollkeeper.address', true), ''),
        coalesce(current_setting('tollkeeper.request', true), ''),
        CASE TG_OP WHEN 'INSERT' THEN 'create' ELSE 'change' END,
        TG_ARGV[0], new_row ->> 'id', before, after
    );
    RETURN NULL;
END $$;
REVOKE EXECUTE ON FUNCTION note_change() FROM PUBLIC;

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

-- Settling calls updates other columns of grants than these, so that it never gets here.
CREATE TRIGGER grants_noted
    AFTER INSERT OR UPDATE OF revoked_at, expires_at, priority, note ON grants
    FOR EACH ROW WHEN (coalesce(current_setting('tollkeeper.actor', true), '') <> '')
    EXECUTE FUNCTION note_change('grant');
CREATE TRIGGER platforms_noted AFTER INSERT OR UPDATE ON platforms
    FOR EACH ROW WHEN (coalesce(current_setting('tollkeeper.actor', true), '') <> '')
    EXECUTE FUNCTION note_change('platform');
CREATE TRIGGER plans_noted AFTER INSERT OR UPDATE ON plans
    FOR EACH ROW WHEN (coalesce(current_setting('tollkeeper.actor', true), '') <> '')
    EXECUTE FUNCTION note_change('plan');
CREATE TRIGGER routes_noted AFTER INSERT OR UPDATE ON routes
    FOR EACH ROW WHEN (coalesce(current_setting('tollkeeper.actor', true), '') <> '')
    EXECUTE FUNCTION note_change('route');
CREATE TRIGGER price_versions_noted AFTER INSERT ON price_versions
    FOR EACH ROW WHEN (coalesce(current_setting('tollkeeper.actor', true), '') <> '')
    EXECUTE FUNCTION note_change('price_version');
CREATE TRIGGER accounts_noted AFTER INSERT OR UPDATE ON accounts
    FOR EACH ROW WHEN (coalesce(current_setting('tollkeeper.actor', true), '') <> '')
    EXECUTE FUNCTION note_change('account', 'low_credits');
CREATE TRIGGER api_keys_noted AFTER INSERT OR UPDATE ON api_keys
    FOR EACH ROW WHEN (coalesce(current_setting('tollkeeper.actor', true), '') <> '')
    EXECUTE FUNCTION note_change('key', 'digest', 'pepper_version', 'closed');
CREATE TRIGGER ledger_changes_noted AFTER INSERT ON ledger_changes
    FOR EACH ROW WHEN (coalesce(current_setting('tollkeeper.actor', true), '') <> '')
    EXECUTE FUNCTION note_change('ledger_change');
CREATE TRIGGER issuers_noted AFTER INSERT OR UPDATE ON issuers
    FOR EACH ROW WHEN (coalesce(current_setting('tollkeeper.actor', true), '') <> '')
    EXECUTE FUNCTION note_change('issuer');
CREATE TRIGGER secrets_noted AFTER INSERT OR UPDATE ON secrets
    FOR EACH ROW WHEN (coalesce(current_setting('tollkeeper.actor', true), '') <> '')
    EXECUTE FUNCTION note_change('secret', 'sealed', 'updated_at');
CREATE TRIGGER plans_removal_noted AFTER DELETE ON plans
    FOR EACH ROW WHEN (coalesce(current_setting('tollkeeper.actor', true), '') <> '')
    EXECUTE FUNCTION note_removal('plan');
CREATE TRIGGER secrets_removal_noted AFTER DELETE ON secrets
    FOR EACH ROW WHEN (coalesce(current_setting('tollkeeper.actor', true), '') <> '')
    EXECUTE FUNCTION note_removal('secret', 'sealed', 'updated_at');
CREATE TRIGGER api_tokens_noted AFTER INSERT OR UPDATE ON api_tokens
    FOR EACH ROW WHEN (coalesce(current_setting('tollkeeper.actor', true), '') <> '')
    EXECUTE FUNCTION note_change('token', 'digest');

-- Row-level security: forced, so that it binds the owner, too, who then has a policy of its own.
-- The sub-selects are evaluated once per query, not once per row.
DO $$
DECLARE
    -- Which column is the account's; NULL: rows are the platform's, and accounts may read them, but
    -- for what is nothing to them.
    tables CONSTANT jsonb := '{
        "platforms": null, "plans": null, "routes": null, "price_versions": null,
        "accounts": "id", "api_keys": "account_id", "grants": "account_id",
        "settlements": "account_id", "ledger_entries": "account_id",
        "ledger_changes": "account_id", "usage_hourly": "account_id",
        "late_settlements": "account_id", "idempotent_answers": "account_id",
        "parked_holds": "account_id", "account_events": "account_id",
        "issuers": null, "secrets": null, "api_tokens": "account_id", "audit_log": "account_id"
    }';
    name text;
    account_column text;
    rule text;
    of_platform CONSTANT text := ' AND (SELECT tenant_account()) IS NULL';
BEGIN
    FOR name, account_column IN SELECT * FROM jsonb_each_text(tables) LOOP
        rule := format('%I = (SELECT tenant_platform())',
            CASE name WHEN 'platforms' THEN 'id' ELSE 'platform_id' END);
        IF account_column IS NOT NULL THEN
            rule := rule || format(
                ' AND ((SELECT tenant_account()) IS NULL OR %I = (SELECT tenant_account()))',
                account_column);
        END IF;
        EXECUTE format('ALTER TABLE %I ENABLE ROW LEVEL SECURITY', name);
        EXECUTE format('ALTER TABLE %I FORCE ROW LEVEL SECURITY', name);
        EXECUTE format('CREATE POLICY gateway ON %I TO CURRENT_USER USING (true) WITH CHECK (true)',
            name);
        IF account_column IS NULL THEN
            IF name NOT IN ('issuers', 'secrets') THEN
                EXECUTE format(
                    'CREATE POLICY account ON %I FOR SELECT TO tollkeeper_api USING (%s)',
                    name, rule);
            END IF;
            rule := rule || of_platform;
        END IF;
        EXECUTE format('CREATE POLICY tenant ON %I TO tollkeeper_api USING (%s) WITH CHECK (%s)',
            name, rule, rule);
    END LOOP;
END $$;

GRANT USAGE ON SCHEMA public TO tollkeeper_api;
GRANT SELECT ON platforms, plans, routes, price_versions, accounts, api_keys, grants, settlements,
    ledger_entries, ledger_changes, usage_hourly, late_settlements, parked_holds, account_events,
    issuers, api_tokens, audit_log, catalog_state, settings, shards TO tollkeeper_api;
GRANT SELECT (id, platform_id, name, created_at, updated_at) ON secrets TO tollkeeper_api;
GRANT INSERT, UPDATE ON plans, routes, accounts, api_keys, grants, issuers, secrets, api_tokens
    TO tollkeeper_api;
GRANT INSERT ON price_versions, ledger_entries, ledger_changes, account_events TO tollkeeper_api;
GRANT UPDATE ON platforms, catalog_state TO tollkeeper_api;
GRANT DELETE ON plans, secrets TO tollkeeper_api;

-- The same. What a platform sold by route is nothing for its accounts.
DO $$
DECLARE
    tables CONSTANT jsonb := '{
        "usage_routes_hourly": "(SELECT tenant_account()) IS NULL",
        "usage_routes_daily": "(SELECT tenant_account()) IS NULL",
        "usage_accounts_daily":
            "((SELECT tenant_account()) IS NULL OR account_id = (SELECT tenant_account()))",
        "usage_parts_daily":
            "((SELECT tenant_account()) IS NULL OR account_id = (SELECT tenant_account()))"
    }';
    name text;
    account_rule text;
    rule text;
BEGIN
    FOR name, account_rule IN SELECT * FROM jsonb_each_text(tables) LOOP
        rule := 'platform_id = (SELECT tenant_platform()) AND ' || account_rule;
        EXECUTE format('ALTER TABLE %I ENABLE ROW LEVEL SECURITY', name);
        EXECUTE format('ALTER TABLE %I FORCE ROW LEVEL SECURITY', name);
        EXECUTE format('CREATE POLICY gateway ON %I TO CURRENT_USER USING (true) WITH CHECK (true)',
            name);
        EXECUTE format('CREATE POLICY tenant ON %I TO tollkeeper_api USING (%s) WITH CHECK (%s)',
            name, rule, rule);
    END LOOP;
END $$;
GRANT SELECT ON usage_routes_hourly, usage_routes_daily, usage_accounts_daily, usage_parts_daily
    TO tollkeeper_api;

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
CREATE TRIGGER accounts_untold
    AFTER UPDATE OF status, plan_id, discount_basis_points, payment_suspended ON accounts
    FOR EACH ROW EXECUTE FUNCTION note_untold('account');
CREATE TRIGGER api_keys_untold AFTER UPDATE OF status, expires_at, spec, guard_version ON api_keys
    FOR EACH ROW EXECUTE FUNCTION note_untold('key');
CREATE TRIGGER plans_untold AFTER UPDATE OF spec ON plans
    FOR EACH ROW EXECUTE FUNCTION note_untold('plan');
