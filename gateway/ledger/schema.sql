-- The schema that all migrations together make: the books. What people do to the gateway is in
-- schema_people.sql. A test holds the two equal to the migrations. To read, never to run.

-- Times cross the driver as integer milliseconds; both functions are plain SQL so that the planner
-- inlines them.
CREATE FUNCTION from_ms(ms bigint) RETURNS timestamptz LANGUAGE sql STABLE AS
    $$ SELECT 'epoch'::timestamptz + ms * interval '1 ms' $$;
CREATE FUNCTION to_ms(moment timestamptz) RETURNS bigint LANGUAGE sql STABLE AS
    $$ SELECT floor(extract(epoch FROM moment) * 1000)::bigint $$;

-- JSON and Lua readers are exact only below 2^53 (policies/units.py).
CREATE DOMAIN microcredits AS bigint CHECK (VALUE BETWEEN 0 AND 9007199254740991);

CREATE TABLE settings (
    name text PRIMARY KEY,
    value text NOT NULL
);

-- seq: the highest that a worker has seen of the shard's epoch; tells an older Redis from this one.
CREATE TABLE shards (
    shard integer PRIMARY KEY CHECK (shard >= 0),
    epoch bigint NOT NULL CHECK (epoch > 0),
    seq bigint NOT NULL DEFAULT 0 CHECK (seq >= 0)
);

CREATE TABLE platforms (
    id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    slug text NOT NULL UNIQUE,
    name text NOT NULL,
    upgrade_url text,
    created_at timestamptz NOT NULL DEFAULT now(),
    -- What a new account gets: a plan to be on, and credits to try things with, for some days.
    signup_plan text,
    trial_microcredits microcredits NOT NULL DEFAULT 0,
    trial_days integer NOT NULL DEFAULT 3 CHECK (trial_days > 0)
);

CREATE TABLE plans (
    id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    platform_id bigint NOT NULL REFERENCES platforms,
    slug text NOT NULL,
    spec jsonb NOT NULL,
    created_at timestamptz NOT NULL DEFAULT now(),
    managed_by text NOT NULL DEFAULT 'config' CHECK (managed_by IN ('config', 'api', 'stripe')),
    UNIQUE (platform_id, slug)
);

-- A period runs from start to just before end; both are whole months of the plan after the anchor,
-- so that a period that began on the 31st ends on the 28th once and on the 31st again.
CREATE TABLE accounts (
    id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    platform_id bigint NOT NULL REFERENCES platforms,
    name text NOT NULL,
    plan_id bigint REFERENCES plans,
    status text NOT NULL DEFAULT 'active' CHECK (status IN ('active', 'suspended')),
    created_at timestamptz NOT NULL DEFAULT now(),
    period_anchor_at timestamptz,
    period_start_at timestamptz,
    period_end_at timestamptz,
    low_credits boolean NOT NULL DEFAULT false,
    -- Off every price, in ten-thousandths. NULL: what its plan says.
    discount_basis_points integer CHECK (discount_basis_points BETWEEN 0 AND 10000),
    -- Who renews it: the clock, by its plan's period; or a subscription, whose paid invoices do.
    renewed_by text NOT NULL DEFAULT 'clock' CHECK (renewed_by IN ('clock', 'subscription')),
    payment_suspended boolean NOT NULL DEFAULT false,
    CONSTRAINT accounts_period CHECK (
        num_nulls(period_anchor_at, period_start_at, period_end_at) IN (0, 3)
        AND period_end_at > period_start_at
    ),
    UNIQUE (platform_id, name)
);
CREATE INDEX accounts_plan ON accounts (plan_id);
CREATE INDEX accounts_platform ON accounts (platform_id, id);
CREATE INDEX accounts_period_end ON accounts (period_end_at) WHERE period_end_at IS NOT NULL;

-- The secret itself is nowhere: only its keyed digest, and what people need to recognise a key.
CREATE TABLE api_keys (
    id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    platform_id bigint NOT NULL REFERENCES platforms,
    account_id bigint NOT NULL REFERENCES accounts,
    name text NOT NULL,
    prefix text NOT NULL,
    last4 text NOT NULL,
    pepper_version integer NOT NULL,
    digest bytea NOT NULL UNIQUE,
    status text NOT NULL DEFAULT 'active' CHECK (status IN ('active', 'revoked')),
    expires_at timestamptz,
    created_at timestamptz NOT NULL DEFAULT now(),
    revoked_at timestamptz,
    spec jsonb NOT NULL DEFAULT '{}',
    kind text NOT NULL DEFAULT 'key' CHECK (kind IN ('key', 'delegated', 'issuer')),
    parent_key_id bigint REFERENCES api_keys,
    budget_microcredits microcredits,
    issuer_id bigint,
    metadata jsonb NOT NULL DEFAULT '{}',
    guard_version integer NOT NULL DEFAULT 0 CHECK (guard_version >= 0),
    closed boolean NOT NULL DEFAULT false,
    CONSTRAINT api_keys_delegated CHECK (
        (kind = 'delegated') = (parent_key_id IS NOT NULL)
        AND (kind = 'delegated') = (budget_microcredits IS NOT NULL)
        AND (kind <> 'delegated' OR expires_at IS NOT NULL)
        AND (kind = 'issuer') = (issuer_id IS NOT NULL)
    )
);
CREATE INDEX api_keys_account ON api_keys (account_id, id);

CREATE TABLE routes (
    id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    platform_id bigint NOT NULL REFERENCES platforms,
    name text NOT NULL,
    spec jsonb NOT NULL,
    price_version_id bigint,
    active boolean NOT NULL DEFAULT true,
    created_at timestamptz NOT NULL DEFAULT now(),
    managed_by text NOT NULL DEFAULT 'config' CHECK (managed_by IN ('config', 'api')),
    UNIQUE (platform_id, name)
);

-- Immutable: a settlement names the version that priced it, for ever.
CREATE TABLE price_versions (
    id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    route_id bigint NOT NULL REFERENCES routes,
    spec jsonb NOT NULL,
    created_at timestamptz NOT NULL DEFAULT now(),
    platform_id bigint NOT NULL REFERENCES platforms
);
CREATE INDEX price_versions_route ON price_versions (route_id);
ALTER TABLE routes ADD FOREIGN KEY (price_version_id) REFERENCES price_versions;

-- settled, expired, revoked and credited are sums over ledger_entries, kept by the transaction that
-- writes the entries. Updated once per batch: room in the page keeps those updates off the indexes;
-- "closed" (past its end, and nothing left) is set once, and is the only one of these columns in
-- one. The business key is what a lot was given for, once: "plan:<account>:<period start>".
CREATE TABLE grants (
    id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    platform_id bigint NOT NULL REFERENCES platforms,
    account_id bigint NOT NULL REFERENCES accounts,
    source text NOT NULL
        CHECK (source IN (
            'plan', 'pack', 'trial', 'coupon', 'manual', 'rollover', 'overage', 'refund'
        )),
    amount_microcredits microcredits NOT NULL,
    effective_at timestamptz NOT NULL,
    expires_at timestamptz CHECK (expires_at > effective_at),
    priority integer NOT NULL,
    settled_microcredits microcredits NOT NULL DEFAULT 0,
    expired_microcredits microcredits NOT NULL DEFAULT 0,
    revoked_microcredits microcredits NOT NULL DEFAULT 0,
    note text NOT NULL DEFAULT '',
    created_at timestamptz NOT NULL DEFAULT now(),
    credited_microcredits microcredits NOT NULL DEFAULT 0,
    revoked_at timestamptz,
    business_key text UNIQUE,
    rollovers integer NOT NULL DEFAULT 0 CHECK (rollovers >= 0),
    closed boolean NOT NULL DEFAULT false,
    CONSTRAINT grants_total CHECK (
        amount_microcredits + credited_microcredits <= 9007199254740991
    )
) WITH (fillfactor = 70, autovacuum_vacuum_scale_factor = 0.02);
CREATE INDEX grants_account ON grants (account_id, id);
CREATE INDEX grants_ending ON grants (expires_at) WHERE expires_at IS NOT NULL AND NOT closed;
CREATE INDEX grants_open ON grants (account_id) WHERE NOT closed;

-- No foreign keys, and no index that no page of calls needs: each costs every call (but the partial
-- ones). The order of the columns is the driver's (writer).
CREATE TABLE settlements (
    call_id uuid NOT NULL PRIMARY KEY,
    platform_id bigint NOT NULL,
    account_id bigint NOT NULL,
    key_id bigint NOT NULL,
    route_id bigint NOT NULL,
    price_version bigint NOT NULL,
    admitted_at timestamptz NOT NULL,
    settled_at timestamptz NOT NULL,
    ending text NOT NULL,
    status smallint NOT NULL,
    units text NOT NULL,
    flags text NOT NULL,
    held_microcredits microcredits NOT NULL,
    charged_microcredits microcredits NOT NULL,
    uncollected_microcredits microcredits NOT NULL,
    session text NOT NULL DEFAULT ''
) PARTITION BY RANGE (call_id);
CREATE TABLE settlements_default PARTITION OF settlements DEFAULT;
CREATE INDEX settlements_account ON settlements (account_id, call_id);
CREATE INDEX settlements_platform ON settlements (platform_id, call_id);
-- To follow calls as they are settled. Ids are of no use for that: a call may run for hours.
CREATE INDEX settlements_settled ON settlements (platform_id, settled_at, account_id);
CREATE INDEX settlements_session ON settlements (account_id, session, call_id)
    WHERE session <> '';
-- What moved accounts through graduated tiers.
CREATE INDEX settlements_tiers ON settlements (account_id, settled_at)
    INCLUDE (route_id, units) WHERE units LIKE '%.tiers=%';

-- Everything that moved credits of a lot apart from its grant and from settling calls.
CREATE TABLE ledger_changes (
    id uuid PRIMARY KEY,
    platform_id bigint NOT NULL,
    account_id bigint NOT NULL,
    kind text NOT NULL CHECK (kind IN ('expire', 'revoke', 'adjust', 'late', 'refund')),
    call_id uuid,
    note text NOT NULL DEFAULT '',
    created_at timestamptz NOT NULL
);
-- A call is refunded once, and corrected once.
CREATE UNIQUE INDEX ledger_changes_call ON ledger_changes (call_id, kind)
    WHERE kind IN ('late', 'refund');
CREATE INDEX ledger_changes_expired ON ledger_changes (created_at) WHERE kind = 'expire';
CREATE INDEX ledger_changes_credited ON ledger_changes (created_at)
    WHERE kind IN ('adjust', 'late', 'refund');

-- Signed as the grant sees it: what adds to it is positive, a settled call negative. Entries have
-- the time of what made them: a call's settled_at, a change's created_at.
CREATE TABLE ledger_entries (
    id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    platform_id bigint NOT NULL,
    account_id bigint NOT NULL,
    grant_id bigint NOT NULL,
    call_id uuid,
    kind text NOT NULL CHECK (
        kind IN ('settle', 'grant', 'expire', 'revoke', 'adjust', 'refund', 'late')
    ),
    microcredits bigint NOT NULL
        CHECK (microcredits BETWEEN -9007199254740991 AND 9007199254740991),
    created_at timestamptz NOT NULL,
    change_id uuid
);
-- The audit asks for what was settled since a moment; rows come nearly in order, so a block range
-- index is enough.
CREATE INDEX ledger_entries_created ON ledger_entries USING brin (created_at)
    WITH (pages_per_range = 32, autosummarize = on);
CREATE INDEX ledger_entries_change ON ledger_entries (change_id) WHERE change_id IS NOT NULL;

-- Kept by the transaction that inserts the settlements. The key's order serves "one account over a
-- time".
CREATE TABLE usage_hourly (
    platform_id bigint NOT NULL,
    account_id bigint NOT NULL,
    hour timestamptz NOT NULL,
    route_id bigint NOT NULL,
    key_id bigint NOT NULL,
    calls bigint NOT NULL,
    calls_completed bigint NOT NULL,
    held_microcredits bigint NOT NULL,
    charged_microcredits bigint NOT NULL,
    uncollected_microcredits bigint NOT NULL,
    PRIMARY KEY (platform_id, account_id, hour, route_id, key_id)
) WITH (fillfactor = 70, autovacuum_vacuum_scale_factor = 0.02);

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

-- How calls ended that Redis could not be told of. A row goes when Redis has charged its call.
CREATE TABLE late_settlements (
    call_id uuid PRIMARY KEY,
    shard integer NOT NULL,
    platform_id bigint NOT NULL,
    account_id bigint NOT NULL,
    key_id bigint NOT NULL,
    route_id bigint NOT NULL,
    price_version bigint NOT NULL,
    session text NOT NULL,
    admitted_at timestamptz NOT NULL,
    ended_at timestamptz NOT NULL,
    ending text NOT NULL,
    status smallint NOT NULL,
    units text NOT NULL,
    flags text NOT NULL,
    held_microcredits microcredits NOT NULL,
    owed_microcredits microcredits NOT NULL
);
CREATE INDEX late_settlements_shard ON late_settlements (shard, account_id);

-- What somebody should be told of, once: the business key names the crossing.
CREATE TABLE account_events (
    id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    platform_id bigint NOT NULL REFERENCES platforms,
    account_id bigint NOT NULL REFERENCES accounts,
    kind text NOT NULL CHECK (kind IN (
        'threshold', 'low_credits', 'trial_will_end', 'payment_failed', 'payment_overdue',
        'plan_downgraded', 'account_suspended', 'payment_recovered', 'subscription_superseded',
        'subscription_ended', 'dispute_opened', 'dispute_closed', 'credits_taken_back'
    )),
    business_key text NOT NULL UNIQUE,
    detail jsonb NOT NULL,
    created_at timestamptz NOT NULL DEFAULT now(),
    delivered_at timestamptz
);
CREATE INDEX account_events_account ON account_events (account_id);

-- Append-only, whoever asks. Row triggers on UPDATE and DELETE cost an INSERT nothing and reach
-- every partition.
CREATE FUNCTION refuse_change() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    RAISE EXCEPTION '% is append-only: % refused', TG_TABLE_NAME, TG_OP
        USING ERRCODE = 'restrict_violation';
END $$;
CREATE TRIGGER settlements_append_only BEFORE UPDATE OR DELETE ON settlements
    FOR EACH ROW EXECUTE FUNCTION refuse_change();
CREATE TRIGGER settlements_no_truncate BEFORE TRUNCATE ON settlements
    FOR EACH STATEMENT EXECUTE FUNCTION refuse_change();
CREATE TRIGGER ledger_entries_append_only BEFORE UPDATE OR DELETE ON ledger_entries
    FOR EACH ROW EXECUTE FUNCTION refuse_change();
CREATE TRIGGER ledger_entries_no_truncate BEFORE TRUNCATE ON ledger_entries
    FOR EACH STATEMENT EXECUTE FUNCTION refuse_change();
CREATE TRIGGER ledger_changes_append_only BEFORE UPDATE OR DELETE ON ledger_changes
    FOR EACH ROW EXECUTE FUNCTION refuse_change();
CREATE TRIGGER ledger_changes_no_truncate BEFORE TRUNCATE ON ledger_changes
    FOR EACH STATEMENT EXECUTE FUNCTION refuse_change();
CREATE TRIGGER price_versions_immutable BEFORE UPDATE OR DELETE ON price_versions
    FOR EACH ROW EXECUTE FUNCTION refuse_change();

-- What calls with an idempotency key were answered, for a day: outlives a loss of Redis. No foreign
-- key: it would lock the account's row for each answer. A key has the answer of its last call.
CREATE TABLE idempotent_answers (
    platform_id bigint NOT NULL,
    account_id bigint NOT NULL,
    digest bytea NOT NULL CHECK (length(digest) = 16),
    fingerprint bytea NOT NULL CHECK (length(fingerprint) = 32),
    call_id uuid NOT NULL,
    receipt boolean NOT NULL,
    answer bytea NOT NULL,
    created_at timestamptz NOT NULL DEFAULT now(),
    PRIMARY KEY (account_id, digest)
);
CREATE INDEX idempotent_answers_created ON idempotent_answers (created_at);

-- Holds of tasks that outlive the calls which began them: the text of the hold, and what finds it
-- by its task, as Redis has them. A row goes when its call is settled; until then it says that the
-- hold is to be there.
CREATE TABLE parked_holds (
    call_id uuid PRIMARY KEY,
    shard integer NOT NULL,
    platform_id bigint NOT NULL,
    account_id bigint NOT NULL,
    task text NOT NULL,
    hold text NOT NULL,
    record text NOT NULL,
    lease_ms bigint NOT NULL CHECK (lease_ms > 0),
    parked_at timestamptz NOT NULL DEFAULT now()
);
CREATE INDEX parked_holds_shard ON parked_holds (shard);

-- A UUIDv7 begins with 48 bits of milliseconds, so a month is a range of ids.
CREATE FUNCTION first_call_id(month timestamp) RETURNS uuid LANGUAGE sql STABLE AS
    $$ SELECT rpad(lpad(to_hex(to_ms(month AT TIME ZONE 'UTC')), 12, '0'), 32, '0')::uuid $$;

-- Makes the partitions of this month and of months_ahead more; answers the names of those it made.
-- A month whose rows already went to the default partition keeps them there (a warning says so):
-- rows are never moved behind the writer's back.
CREATE FUNCTION ensure_settlement_partitions(months_ahead integer) RETURNS SETOF text
LANGUAGE plpgsql AS $$
DECLARE
    first_month timestamp := date_trunc('month', now() AT TIME ZONE 'UTC');
    last_month timestamp := first_month + make_interval(months => months_ahead);
    month timestamp;
    partition_name text;
BEGIN
    PERFORM pg_advisory_xact_lock(hashtext('settlements partitions'));
    FOR month IN SELECT generate_series(first_month, last_month, '1 month') LOOP
        partition_name := 'settlements_' || to_char(month, 'YYYY_MM');
        CONTINUE WHEN to_regclass(partition_name) IS NOT NULL;
        BEGIN
            EXECUTE format(
                'CREATE TABLE %I PARTITION OF settlements FOR VALUES FROM (%L) TO (%L)',
                partition_name,
                first_call_id(month), first_call_id(month + interval '1 month'));
            RETURN NEXT partition_name;
        EXCEPTION WHEN check_violation THEN
            RAISE WARNING 'calls of % are in settlements_default and stay there', partition_name;
        END;
    END LOOP;
END $$;
