-- Credits that come back, run out or are withdrawn, billing periods, and what a lost Redis is
-- rebuilt from.

-- The highest seq that a worker has seen of the shard's epoch: tells an older Redis from this one.
ALTER TABLE shards ADD COLUMN seq bigint NOT NULL DEFAULT 0 CHECK (seq >= 0);

-- A period runs from start to just before end; both are whole months of the plan after the anchor,
-- so that a period that began on the 31st ends on the 28th once and on the 31st again.
ALTER TABLE accounts
    ADD COLUMN period_anchor_at timestamptz,
    ADD COLUMN period_start_at timestamptz,
    ADD COLUMN period_end_at timestamptz,
    ADD COLUMN low_credits boolean NOT NULL DEFAULT false,
    ADD CONSTRAINT accounts_period CHECK (
        num_nulls(period_anchor_at, period_start_at, period_end_at) IN (0, 3)
        AND period_end_at > period_start_at
    );
CREATE INDEX accounts_period_end ON accounts (period_end_at) WHERE period_end_at IS NOT NULL;

ALTER TABLE api_keys ADD COLUMN spec jsonb NOT NULL DEFAULT '{}';

-- credited is a sum over ledger_entries like the three others. The business key is what a lot was
-- given for, once: "plan:<account>:<period start>". Hot updates of a lot stay off its indexes:
-- "closed" (past its end, and nothing left) is the only one of these columns in one, and set once.
ALTER TABLE grants
    ADD COLUMN credited_microcredits microcredits NOT NULL DEFAULT 0,
    ADD COLUMN revoked_at timestamptz,
    ADD COLUMN business_key text UNIQUE,
    ADD COLUMN rollovers integer NOT NULL DEFAULT 0 CHECK (rollovers >= 0),
    ADD COLUMN closed boolean NOT NULL DEFAULT false,
    ADD CONSTRAINT grants_total CHECK (
        amount_microcredits + credited_microcredits <= 9007199254740991
    ),
    DROP CONSTRAINT grants_source_check,
    ADD CONSTRAINT grants_source_check CHECK (
        source IN (
            'plan', 'pack', 'trial', 'coupon', 'manual', 'rollover', 'overage', 'refund'
        )
    );
CREATE INDEX grants_ending ON grants (expires_at) WHERE expires_at IS NOT NULL AND NOT closed;
CREATE INDEX grants_open ON grants (account_id) WHERE NOT closed;

-- Only calls of a session pay for this index.
ALTER TABLE settlements ADD COLUMN session text NOT NULL DEFAULT '';
CREATE INDEX settlements_session ON settlements (account_id, session) WHERE session <> '';

-- Everything that moved credits of a lot apart from its grant and from settling calls. The entries
-- of a change have its id and its created_at.
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
CREATE TRIGGER ledger_changes_append_only BEFORE UPDATE OR DELETE ON ledger_changes
    FOR EACH ROW EXECUTE FUNCTION refuse_change();
CREATE TRIGGER ledger_changes_no_truncate BEFORE TRUNCATE ON ledger_changes
    FOR EACH STATEMENT EXECUTE FUNCTION refuse_change();

-- A settled call's entries have its settled_at. change_id is NULL for those and for a grant's.
ALTER TABLE ledger_entries
    ADD COLUMN change_id uuid,
    DROP CONSTRAINT ledger_entries_kind_check,
    ADD CONSTRAINT ledger_entries_kind_check CHECK (
        kind IN ('settle', 'grant', 'expire', 'revoke', 'adjust', 'refund', 'late')
    );
CREATE INDEX ledger_entries_change ON ledger_entries (change_id) WHERE change_id IS NOT NULL;

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
    kind text NOT NULL CHECK (kind IN ('threshold', 'low_credits')),
    business_key text NOT NULL UNIQUE,
    detail jsonb NOT NULL,
    created_at timestamptz NOT NULL DEFAULT now(),
    delivered_at timestamptz
);
CREATE INDEX account_events_account ON account_events (account_id);
