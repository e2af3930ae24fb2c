-- Reading at scale: indexes to search settlements by, and coarser roll-ups.

-- Three indexes more for each call, 1 to 3 µs of Postgres together with the roll-ups below
-- (docs/scale.md has the figures). Made first: while they are built nobody settles, so that the
-- roll-ups are filled from hours that stand still.
CREATE INDEX settlements_account ON settlements (account_id, call_id);
CREATE INDEX settlements_platform ON settlements (platform_id, call_id);
-- To follow calls as they are settled. Ids are of no use for that: a call may run for hours.
CREATE INDEX settlements_settled ON settlements (platform_id, settled_at, account_id);

-- A platform's own sums, by route. The hour that runs is one row for all writers: they take its
-- lock last, right before they commit.
CREATE TABLE usage_routes_hourly (
    platform_id bigint NOT NULL,
    hour timestamptz NOT NULL,
    route_id bigint NOT NULL,
    calls bigint NOT NULL,
    calls_completed bigint NOT NULL,
    held_microcredits bigint NOT NULL,
    charged_microcredits bigint NOT NULL,
    uncollected_microcredits bigint NOT NULL,
    PRIMARY KEY (platform_id, hour, route_id)
) WITH (fillfactor = 50, autovacuum_vacuum_scale_factor = 0.02);
CREATE TABLE usage_routes_daily (
    platform_id bigint NOT NULL,
    day timestamptz NOT NULL,
    route_id bigint NOT NULL,
    calls bigint NOT NULL,
    calls_completed bigint NOT NULL,
    held_microcredits bigint NOT NULL,
    charged_microcredits bigint NOT NULL,
    uncollected_microcredits bigint NOT NULL,
    PRIMARY KEY (platform_id, day, route_id)
) WITH (fillfactor = 50, autovacuum_vacuum_scale_factor = 0.02);
CREATE TABLE usage_accounts_daily (
    platform_id bigint NOT NULL,
    day timestamptz NOT NULL,
    account_id bigint NOT NULL,
    calls bigint NOT NULL,
    calls_completed bigint NOT NULL,
    held_microcredits bigint NOT NULL,
    charged_microcredits bigint NOT NULL,
    uncollected_microcredits bigint NOT NULL,
    PRIMARY KEY (platform_id, day, account_id)
) WITH (fillfactor = 70, autovacuum_vacuum_scale_factor = 0.02);
-- An account's days by route, and by key: is_key says whose id part_id is.
CREATE TABLE usage_parts_daily (
    platform_id bigint NOT NULL,
    account_id bigint NOT NULL,
    day timestamptz NOT NULL,
    is_key boolean NOT NULL,
    part_id bigint NOT NULL,
    calls bigint NOT NULL,
    calls_completed bigint NOT NULL,
    held_microcredits bigint NOT NULL,
    charged_microcredits bigint NOT NULL,
    uncollected_microcredits bigint NOT NULL,
    PRIMARY KEY (platform_id, account_id, day, is_key, part_id)
) WITH (fillfactor = 70, autovacuum_vacuum_scale_factor = 0.02);

INSERT INTO usage_routes_hourly
SELECT platform_id, hour, route_id,
    sum(calls)::bigint, sum(calls_completed)::bigint, sum(held_microcredits)::bigint,
    sum(charged_microcredits)::bigint, sum(uncollected_microcredits)::bigint
FROM usage_hourly
GROUP BY 1, 2, 3;
INSERT INTO usage_routes_daily
SELECT platform_id, date_trunc('day', hour, 'UTC'), route_id,
    sum(calls)::bigint, sum(calls_completed)::bigint, sum(held_microcredits)::bigint,
    sum(charged_microcredits)::bigint, sum(uncollected_microcredits)::bigint
FROM usage_routes_hourly
GROUP BY 1, 2, 3;
INSERT INTO usage_accounts_daily
SELECT platform_id, date_trunc('day', hour, 'UTC'), account_id,
    sum(calls)::bigint, sum(calls_completed)::bigint, sum(held_microcredits)::bigint,
    sum(charged_microcredits)::bigint, sum(uncollected_microcredits)::bigint
FROM usage_hourly
GROUP BY 1, 2, 3;

INSERT INTO usage_parts_daily
SELECT platform_id, account_id, date_trunc('day', hour, 'UTC'),
    grouping(key_id) = 0, CASE grouping(key_id) WHEN 0 THEN key_id ELSE route_id END,
    sum(calls)::bigint, sum(calls_completed)::bigint, sum(held_microcredits)::bigint,
    sum(charged_microcredits)::bigint, sum(uncollected_microcredits)::bigint
FROM usage_hourly
GROUP BY 1, 2, 3, GROUPING SETS (route_id, key_id);

-- So that the calls of a session come in their order.
DROP INDEX settlements_session;
CREATE INDEX settlements_session ON settlements (account_id, session, call_id)
    WHERE session <> '';

-- Pages of lists: each in its order, which is that of an index.
CREATE INDEX accounts_platform ON accounts (platform_id, id);
DROP INDEX grants_account;
CREATE INDEX grants_account ON grants (account_id, id);
DROP INDEX audit_log_platform;
CREATE INDEX audit_log_platform ON audit_log (platform_id, at, id);
CREATE INDEX audit_log_account ON audit_log (account_id, at, id);
CREATE INDEX audit_log_resource ON audit_log (platform_id, resource, resource_id, at, id);

-- As in 0007. What a platform sold by route is nothing for its accounts.
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
