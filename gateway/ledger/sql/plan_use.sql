-- What keeps a plan from being deleted (plan_delete.sql), for people.
SELECT
    EXISTS (SELECT FROM accounts WHERE accounts.plan_id = plans.id) AS has_accounts,
    EXISTS (
        SELECT FROM subscriptions
        WHERE subscriptions.platform_id = plans.platform_id
            AND plans.slug IN (subscriptions.plan_slug, subscriptions.next_plan_slug)
            AND subscriptions.status NOT IN ('canceled', 'incomplete_expired')
    ) AS has_subscriptions,
    EXISTS (
        SELECT FROM platforms
        WHERE platforms.id = plans.platform_id AND platforms.signup_plan = plans.slug
    ) AS is_signup,
    ARRAY(
        SELECT stripe_products.product_id
        FROM stripe_products
        WHERE stripe_products.platform_id = plans.platform_id
            AND stripe_products.kind = 'plan'
            AND stripe_products.slug = plans.slug
            AND stripe_products.active
            AND plans.managed_by = 'stripe'
        ORDER BY stripe_products.product_id
    ) AS product_ids
FROM plans
WHERE platform_id = $1 AND slug = $2
