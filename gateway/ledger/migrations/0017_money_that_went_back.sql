-- Each move of a payment's money: a refund, what a dispute drew, what came again (below 0). As
-- Stripe has them now, by its ids; what went back by a moment is their sum until then, never more
-- than the payment.
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

-- Of what went back before there was this table nobody wrote when. It counts where its payment
-- does, as it did until now, and has no id of Stripe's; the next look at Stripe puts its moves here
-- instead.
INSERT INTO billing_returns (
    transaction_id, stripe_id, platform_id, account_id, made_at, amount_minor
)
SELECT
    id, '', platform_id, account_id, coalesce(paid_at, created_at), refunded_minor + disputed_minor
FROM billing_transactions
WHERE refunded_minor + disputed_minor > 0;

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
