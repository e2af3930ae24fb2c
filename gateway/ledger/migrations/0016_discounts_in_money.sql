-- Coupons take off a part or an amount: what they take off of a period's price is kept as money.
ALTER TABLE subscriptions ADD COLUMN discount_minor bigint NOT NULL DEFAULT 0
    CHECK (discount_minor >= 0);
UPDATE subscriptions
SET discount_minor = round(unit_amount::numeric * quantity * discount_percent_basis_points / 10000)
WHERE discount_percent_basis_points > 0 AND unit_amount IS NOT NULL;
ALTER TABLE subscriptions DROP COLUMN discount_percent_basis_points;
