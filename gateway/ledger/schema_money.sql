-- The third part of the schema that all migrations together make, after schema_people.sql: money.
-- To read, never to run.

-- Credits that are sold once: bought in any number, valid for some days or for ever.
CREATE TABLE packs (
    id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    platform_id bigint NOT NULL REFERENCES platforms,
    slug text NOT NULL,
    spec jsonb NOT NULL,
    active boolean NOT NULL DEFAULT true,
    managed_by text NOT NULL DEFAULT 'config' CHECK (managed_by IN ('config', 'api', 'stripe')),
    created_at timestamptz NOT NULL DEFAULT now(),
    UNIQUE (platform_id, slug)
);

-- A platform's own Stripe. Keys are references ("env:", "file:" of the config, "secret:" of what is
-- sealed), never the keys themselves. The mode is the key's; of the other mode nothing is believed.
CREATE TABLE stripe_settings (
    platform_id bigint PRIMARY KEY REFERENCES platforms,
    livemode boolean NOT NULL,
    secret_key text NOT NULL,
    webhook_secrets text[] NOT NULL,
    stripe_account text,
    options jsonb NOT NULL DEFAULT '{}',
    managed_by text NOT NULL DEFAULT 'config' CHECK (managed_by IN ('config', 'api')),
    created_at timestamptz NOT NULL DEFAULT now(),
    updated_at timestamptz NOT NULL DEFAULT now(),
    id bigint NOT NULL GENERATED ALWAYS AS (platform_id) STORED -- what the audit log calls them by
);

-- What is sold, as Stripe has it. A product with a problem is parked: what was known of its plan or
-- pack stays as it was, and nothing is sold or granted by it until somebody mends it.
CREATE TABLE stripe_products (
    platform_id bigint NOT NULL REFERENCES platforms,
    livemode boolean NOT NULL,
    product_id text NOT NULL,
    kind text NOT NULL CHECK (kind IN ('plan', 'pack', 'unknown')),
    slug text NOT NULL,
    name text NOT NULL,
    active boolean NOT NULL,
    metadata jsonb NOT NULL,
    problem text,
    synced_at timestamptz NOT NULL DEFAULT now(),
    PRIMARY KEY (platform_id, livemode, product_id)
);
CREATE TABLE stripe_prices (
    platform_id bigint NOT NULL REFERENCES platforms,
    livemode boolean NOT NULL,
    price_id text NOT NULL,
    product_id text NOT NULL,
    active boolean NOT NULL,
    currency text NOT NULL,
    unit_amount bigint,
    months integer CHECK (months > 0), -- of a recurring price; NULL: paid once
    problem text,
    synced_at timestamptz NOT NULL DEFAULT now(),
    PRIMARY KEY (platform_id, livemode, price_id)
);
CREATE INDEX stripe_prices_product ON stripe_prices (platform_id, livemode, product_id);

CREATE TABLE stripe_customers (
    platform_id bigint NOT NULL REFERENCES platforms,
    livemode boolean NOT NULL,
    customer_id text NOT NULL,
    account_id bigint NOT NULL REFERENCES accounts,
    created_at timestamptz NOT NULL DEFAULT now(),
    deleted_at timestamptz,
    PRIMARY KEY (platform_id, livemode, customer_id)
);
CREATE UNIQUE INDEX stripe_customers_account ON stripe_customers (account_id, livemode)
    WHERE deleted_at IS NULL;

-- As Stripe has them; written under the customer's lock from the object as it is then, so that the
-- order of events does not matter. plan_slug: the plan it pays for now. next_*: what a schedule
-- changes it to. dunning_*: policies/dunning.py. serves: it is the one that its account goes by.
CREATE TABLE subscriptions (
    id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    platform_id bigint NOT NULL REFERENCES platforms,
    account_id bigint NOT NULL REFERENCES accounts,
    livemode boolean NOT NULL,
    stripe_id text NOT NULL,
    customer_id text NOT NULL,
    status text NOT NULL,
    plan_slug text,
    product_id text,
    price_id text,
    item_id text,
    quantity integer NOT NULL DEFAULT 1 CHECK (quantity >= 0),
    currency text,
    unit_amount bigint,
    months integer CHECK (months > 0),
    period_start_at timestamptz,
    period_end_at timestamptz,
    trial_end_at timestamptz,
    cancel_at timestamptz,
    canceled_at timestamptz,
    started_at timestamptz NOT NULL,
    ended_at timestamptz,
    collection_paused boolean NOT NULL DEFAULT false,
    schedule_id text,
    next_plan_slug text,
    next_price_id text,
    next_quantity integer,
    next_at timestamptz,
    serves boolean NOT NULL DEFAULT false,
    superseded_by text,
    unpaid_since timestamptz,
    unpaid_invoice_id text,
    failures integer NOT NULL DEFAULT 0 CHECK (failures >= 0),
    dunning_stage text NOT NULL DEFAULT 'none' CHECK (
        dunning_stage IN ('none', 'failed', 'notified', 'downgraded', 'suspended')
    ),
    synced_at timestamptz NOT NULL DEFAULT now(),
    discount_minor bigint NOT NULL DEFAULT 0 CHECK (discount_minor >= 0),
    next_months integer CHECK (next_months > 0),
    next_unit_amount bigint,
    UNIQUE (platform_id, livemode, stripe_id)
);
CREATE UNIQUE INDEX subscriptions_serving ON subscriptions (account_id, livemode) WHERE serves;
CREATE INDEX subscriptions_account ON subscriptions (account_id, id);
CREATE INDEX subscriptions_unpaid ON subscriptions (unpaid_since) WHERE unpaid_since IS NOT NULL;

-- One row for each payment that somebody owes, makes or made: an invoice ("invoice:in_…") or a
-- Checkout session ("checkout:cs_…"). Amounts are minor units of the currency; tax is within
-- amount.
CREATE TABLE billing_transactions (
    id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    platform_id bigint NOT NULL REFERENCES platforms,
    account_id bigint NOT NULL REFERENCES accounts,
    livemode boolean NOT NULL,
    business_key text NOT NULL,
    kind text NOT NULL CHECK (
        kind IN ('subscription', 'renewal', 'change', 'pack', 'overage', 'other')
    ),
    status text NOT NULL CHECK (
        status IN ('pending', 'processing', 'succeeded', 'failed', 'refunded', 'cancelled')
    ),
    currency text NOT NULL,
    amount_minor bigint NOT NULL,
    tax_minor bigint NOT NULL DEFAULT 0,
    refunded_minor bigint NOT NULL DEFAULT 0 CHECK (refunded_minor >= 0),
    disputed_minor bigint NOT NULL DEFAULT 0 CHECK (disputed_minor >= 0),
    invoice_id text,
    checkout_session_id text,
    payment_intent_id text,
    charge_id text,
    subscription_id text,
    failure text,
    created_at timestamptz NOT NULL,
    paid_at timestamptz,
    updated_at timestamptz NOT NULL DEFAULT now(),
    UNIQUE (platform_id, livemode, business_key)
);
CREATE INDEX billing_transactions_account ON billing_transactions (account_id, id);
CREATE INDEX billing_transactions_page ON billing_transactions (platform_id, id);
CREATE INDEX billing_transactions_paid ON billing_transactions (platform_id, paid_at)
    WHERE paid_at IS NOT NULL;
CREATE INDEX billing_transactions_charge ON billing_transactions (platform_id, charge_id)
    WHERE charge_id IS NOT NULL;
CREATE INDEX billing_transactions_intent ON billing_transactions (platform_id, payment_intent_id)
    WHERE payment_intent_id IS NOT NULL;

-- What a payment was for. amount_minor: after discounts, without tax; below 0 for what was given
-- back. The period is that of the service; both ends NULL: it has none.
CREATE TABLE billing_lines (
    transaction_id bigint NOT NULL REFERENCES billing_transactions,
    line_id text NOT NULL,
    platform_id bigint NOT NULL REFERENCES platforms,
    account_id bigint NOT NULL REFERENCES accounts,
    kind text NOT NULL CHECK (kind IN ('plan', 'pack', 'overage', 'other')),
    slug text NOT NULL DEFAULT '',
    product_id text,
    price_id text,
    quantity integer NOT NULL DEFAULT 1,
    amount_minor bigint NOT NULL,
    proration boolean NOT NULL DEFAULT false,
    period_start_at timestamptz,
    period_end_at timestamptz,
    PRIMARY KEY (transaction_id, line_id)
);

-- Which lots a payment gave: what a refund takes back of.
CREATE TABLE paid_lots (
    grant_id bigint PRIMARY KEY REFERENCES grants,
    transaction_id bigint NOT NULL REFERENCES billing_transactions,
    platform_id bigint NOT NULL REFERENCES platforms,
    account_id bigint NOT NULL REFERENCES accounts,
    microcredits microcredits NOT NULL
);
CREATE INDEX paid_lots_transaction ON paid_lots (transaction_id);

-- Credits that were spent although their payment was given back. The next grant pays them first, in
-- the statement that gives it.
CREATE TABLE account_debts (
    account_id bigint PRIMARY KEY REFERENCES accounts,
    platform_id bigint NOT NULL REFERENCES platforms,
    owed_microcredits microcredits NOT NULL
);
CREATE TABLE debt_entries (
    id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    platform_id bigint NOT NULL REFERENCES platforms,
    account_id bigint NOT NULL REFERENCES accounts,
    kind text NOT NULL CHECK (kind IN ('owed', 'paid', 'forgiven')),
    microcredits bigint NOT NULL CHECK (microcredits > 0),
    grant_id bigint,
    clawback_id uuid,
    created_at timestamptz NOT NULL DEFAULT now()
);
CREATE INDEX debt_entries_account ON debt_entries (account_id, id);
CREATE TRIGGER debt_entries_append_only BEFORE UPDATE OR DELETE ON debt_entries
    FOR EACH ROW EXECUTE FUNCTION refuse_change();
CREATE TRIGGER debt_entries_no_truncate BEFORE TRUNCATE ON debt_entries
    FOR EACH STATEMENT EXECUTE FUNCTION refuse_change();

-- One step of taking back (amount above 0) or giving back again (below 0, a dispute that was won).
-- Written before Redis is asked, with the ids of the changes it will be asked for, so that whoever
-- repeats it takes nothing twice. The sum over a payment is what was to be taken of it by now.
CREATE TABLE clawbacks (
    id uuid PRIMARY KEY,
    platform_id bigint NOT NULL REFERENCES platforms,
    account_id bigint NOT NULL REFERENCES accounts,
    transaction_id bigint NOT NULL REFERENCES billing_transactions,
    cause text NOT NULL CHECK (cause IN ('refund', 'dispute')),
    amount_microcredits bigint NOT NULL CHECK (amount_microcredits <> 0),
    parts jsonb NOT NULL,
    taken_microcredits microcredits NOT NULL DEFAULT 0,
    owed_microcredits microcredits NOT NULL DEFAULT 0,
    is_done boolean NOT NULL DEFAULT false,
    created_at timestamptz NOT NULL DEFAULT now()
);
CREATE INDEX clawbacks_transaction ON clawbacks (transaction_id);
CREATE INDEX clawbacks_open ON clawbacks (created_at) WHERE NOT is_done;

-- How much of a period's overage was put on invoices, part by part. The business key is Stripe's
-- idempotency key; a part without an item is asked for again.
CREATE TABLE overage_charges (
    id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    platform_id bigint NOT NULL REFERENCES platforms,
    account_id bigint NOT NULL REFERENCES accounts,
    grant_id bigint NOT NULL REFERENCES grants,
    livemode boolean NOT NULL,
    business_key text NOT NULL UNIQUE,
    from_microcredits microcredits NOT NULL,
    to_microcredits microcredits NOT NULL CHECK (to_microcredits > from_microcredits),
    currency text NOT NULL,
    amount_minor bigint NOT NULL CHECK (amount_minor >= 0),
    invoice_id text,
    item_id text,
    created_at timestamptz NOT NULL DEFAULT now(),
    billed_at timestamptz,
    UNIQUE (grant_id, from_microcredits)
);
CREATE INDEX overage_charges_open ON overage_charges (created_at) WHERE billed_at IS NULL;

-- Events as they came, each once. What is to be done with them is in the queue
-- (migrations/0012_queue.sql); parked: tried as often as is sensible, and waits for a person.
CREATE TABLE stripe_events (
    platform_id bigint NOT NULL REFERENCES platforms,
    livemode boolean NOT NULL,
    event_id text NOT NULL,
    type text NOT NULL,
    object_id text,
    shape text NOT NULL CHECK (shape IN ('snapshot', 'thin')),
    source text NOT NULL CHECK (source IN ('webhook', 'reconcile')),
    payload jsonb NOT NULL,
    status text NOT NULL DEFAULT 'waiting' CHECK (
        status IN ('waiting', 'done', 'ignored', 'parked')
    ),
    attempts integer NOT NULL DEFAULT 0,
    problem text,
    created_at timestamptz NOT NULL,
    received_at timestamptz NOT NULL DEFAULT now(),
    done_at timestamptz,
    PRIMARY KEY (platform_id, livemode, event_id)
);
CREATE INDEX stripe_events_received ON stripe_events (platform_id, received_at, event_id);
-- How many events of a platform wait is counted when one of them gets its job (ledger/queue.py).
CREATE INDEX stripe_events_waiting ON stripe_events (platform_id) WHERE status = 'waiting';
CREATE INDEX stripe_events_open ON stripe_events (received_at)
    WHERE status IN ('waiting', 'parked');

-- How far a reconciler has looked, so that the next one need not begin with the last 30 days.
CREATE TABLE stripe_cursors (
    platform_id bigint NOT NULL REFERENCES platforms,
    livemode boolean NOT NULL,
    name text NOT NULL,
    at timestamptz NOT NULL,
    PRIMARY KEY (platform_id, livemode, name)
);

CREATE TRIGGER packs_noted AFTER INSERT OR UPDATE ON packs
    FOR EACH ROW WHEN (coalesce(current_setting('tollkeeper.actor', true), '') <> '')
    EXECUTE FUNCTION note_change('pack');
CREATE TRIGGER packs_removal_noted AFTER DELETE ON packs
    FOR EACH ROW WHEN (coalesce(current_setting('tollkeeper.actor', true), '') <> '')
    EXECUTE FUNCTION note_removal('pack');
CREATE TRIGGER stripe_settings_noted AFTER INSERT OR UPDATE ON stripe_settings
    FOR EACH ROW WHEN (coalesce(current_setting('tollkeeper.actor', true), '') <> '')
    EXECUTE FUNCTION note_change('stripe_settings', 'updated_at');
CREATE TRIGGER stripe_settings_removal_noted AFTER DELETE ON stripe_settings
    FOR EACH ROW WHEN (coalesce(current_setting('tollkeeper.actor', true), '') <> '')
    EXECUTE FUNCTION note_removal('stripe_settings', 'updated_at');

DO $$
DECLARE
    -- As in 0007: which column is the account's; NULL: rows are the platform's alone. Of packs,
    -- products and prices accounts may read what is sold.
    tables CONSTANT jsonb := '{
        "packs": null, "stripe_settings": null, "stripe_products": null, "stripe_prices": null,
        "stripe_events": null, "stripe_cursors": null,
        "stripe_customers": "account_id", "subscriptions": "account_id",
        "billing_transactions": "account_id", "billing_lines": "account_id",
        "paid_lots": "account_id", "account_debts": "account_id", "debt_entries": "account_id",
        "clawbacks": "account_id", "overage_charges": "account_id"
    }';
    name text;
    account_column text;
    rule text;
    of_platform CONSTANT text := ' AND (SELECT tenant_account()) IS NULL';
BEGIN
    FOR name, account_column IN SELECT * FROM jsonb_each_text(tables) LOOP
        rule := 'platform_id = (SELECT tenant_platform())';
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
            IF name IN ('packs', 'stripe_products', 'stripe_prices') THEN
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

GRANT SELECT ON packs, stripe_settings, stripe_products, stripe_prices, stripe_events,
    stripe_cursors, stripe_customers, subscriptions, billing_transactions, billing_lines, paid_lots,
    account_debts, debt_entries, clawbacks, overage_charges TO tollkeeper_api;
GRANT INSERT, UPDATE, DELETE ON packs, stripe_settings TO tollkeeper_api;
-- A grant pays what its account owes in the statement that gives it.
GRANT UPDATE ON account_debts TO tollkeeper_api;
GRANT INSERT ON debt_entries TO tollkeeper_api;

-- What a lot of overage costs: as the plan that gave it said then, for accounts change plans and
-- plans change prices. Written by the statement that gives the lot (sql/grant_insert.sql).
-- is_billed: nothing more can come of it.
CREATE TABLE overage_terms (
    grant_id bigint PRIMARY KEY REFERENCES grants,
    platform_id bigint NOT NULL REFERENCES platforms,
    account_id bigint NOT NULL REFERENCES accounts,
    plan_slug text NOT NULL,
    nanos_per_credit bigint NOT NULL CHECK (nanos_per_credit > 0),
    is_billed boolean NOT NULL DEFAULT false
);
CREATE INDEX overage_terms_open ON overage_terms (grant_id) WHERE NOT is_billed;

ALTER TABLE overage_terms ENABLE ROW LEVEL SECURITY;
ALTER TABLE overage_terms FORCE ROW LEVEL SECURITY;
CREATE POLICY gateway ON overage_terms TO CURRENT_USER USING (true) WITH CHECK (true);
CREATE POLICY tenant ON overage_terms TO tollkeeper_api USING (
    platform_id = (SELECT tenant_platform())
    AND ((SELECT tenant_account()) IS NULL OR account_id = (SELECT tenant_account()))
) WITH CHECK (
    platform_id = (SELECT tenant_platform())
    AND ((SELECT tenant_account()) IS NULL OR account_id = (SELECT tenant_account()))
);
GRANT SELECT, INSERT ON overage_terms TO tollkeeper_api;

-- Each move of a payment's money: a refund, what a dispute drew, what came again (below 0). As
-- Stripe has them now, by its ids; what went back by a moment is their sum until then, never more
-- than the payment. '': all that had gone back before they were written, counted at the payment.
CREATE TABLE billing_returns (
    transaction_id bigint NOT NULL REFERENCES billing_transactions,
    stripe_id text NOT NULL,
    platform_id bigint NOT NULL REFERENCES platforms,
    account_id bigint NOT NULL REFERENCES accounts,
    made_at timestamptz NOT NULL,
    amount_minor bigint NOT NULL,
    PRIMARY KEY (transaction_id, stripe_id)
);
CREATE INDEX billing_returns_made ON billing_returns (platform_id, made_at);

ALTER TABLE billing_returns ENABLE ROW LEVEL SECURITY;
ALTER TABLE billing_returns FORCE ROW LEVEL SECURITY;
CREATE POLICY gateway ON billing_returns TO CURRENT_USER USING (true) WITH CHECK (true);
CREATE POLICY tenant ON billing_returns TO tollkeeper_api USING (
    platform_id = (SELECT tenant_platform())
    AND ((SELECT tenant_account()) IS NULL OR account_id = (SELECT tenant_account()))
) WITH CHECK (
    platform_id = (SELECT tenant_platform())
    AND ((SELECT tenant_account()) IS NULL OR account_id = (SELECT tenant_account()))
);
GRANT SELECT ON billing_returns TO tollkeeper_api;

-- The last period that an account had of a plan by the clock, written when it leaves that plan. Who
-- falls back to the signup plan within that period goes on in it, and is given nothing again.
CREATE TABLE clock_periods (
    plan_id bigint NOT NULL REFERENCES plans ON DELETE CASCADE,
    account_id bigint NOT NULL REFERENCES accounts,
    platform_id bigint NOT NULL REFERENCES platforms,
    anchor_at timestamptz NOT NULL,
    start_at timestamptz NOT NULL,
    end_at timestamptz NOT NULL,
    PRIMARY KEY (plan_id, account_id)
);

ALTER TABLE clock_periods ENABLE ROW LEVEL SECURITY;
ALTER TABLE clock_periods FORCE ROW LEVEL SECURITY;
CREATE POLICY gateway ON clock_periods TO CURRENT_USER USING (true) WITH CHECK (true);
CREATE POLICY tenant ON clock_periods TO tollkeeper_api USING (
    platform_id = (SELECT tenant_platform())
    AND ((SELECT tenant_account()) IS NULL OR account_id = (SELECT tenant_account()))
) WITH CHECK (
    platform_id = (SELECT tenant_platform())
    AND ((SELECT tenant_account()) IS NULL OR account_id = (SELECT tenant_account()))
);
GRANT SELECT, INSERT, UPDATE ON clock_periods TO tollkeeper_api;
