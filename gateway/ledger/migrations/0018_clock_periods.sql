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

-- What a schedule changes a subscription to: how long its price is for, and what one costs.
ALTER TABLE subscriptions
    ADD COLUMN next_months integer CHECK (next_months > 0),
    ADD COLUMN next_unit_amount bigint;
