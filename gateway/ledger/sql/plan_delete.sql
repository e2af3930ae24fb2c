-- Gone only where no account has it, nor pays for it. One that gets it at the same moment keeps it
-- by its reference.
-- One of Stripe's goes with its products; new accounts' plan stays.
DELETE FROM plans
WHERE platform_id = $1
    AND slug = $2
    AND managed_by <> 'config'
    AND NOT EXISTS (SELECT FROM accounts WHERE accounts.plan_id = plans.id)
    AND NOT EXISTS (
        SELECT FROM subscriptions
        WHERE subscriptions.platform_id = plans.platform_id
            AND plans.slug IN (subscriptions.plan_slug, subscriptions.next_plan_slug)
            AND subscriptions.status NOT IN ('canceled', 'incomplete_expired')
    )
    AND NOT EXISTS (
        SELECT FROM platforms
        WHERE platforms.id = plans.platform_id AND platforms.signup_plan = plans.slug
    )
    AND NOT EXISTS (
        SELECT FROM stripe_products
        WHERE stripe_products.platform_id = plans.platform_id
            AND stripe_products.kind = 'plan'
            AND stripe_products.slug = plans.slug
            AND stripe_products.active
            AND plans.managed_by = 'stripe'
    )
RETURNING id
