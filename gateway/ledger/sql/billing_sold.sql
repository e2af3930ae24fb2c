-- What these products of Stripe's are here: a plan or a pack with its spec. problem: nothing is
-- given by it until somebody mends it.
SELECT
    stripe_products.product_id,
    stripe_products.kind,
    stripe_products.slug,
    stripe_products.problem,
    coalesce(plans.spec, packs.spec) AS spec
FROM stripe_products
LEFT JOIN plans
    ON stripe_products.kind = 'plan'
    AND plans.platform_id = stripe_products.platform_id
    AND plans.slug = stripe_products.slug
LEFT JOIN packs
    ON stripe_products.kind = 'pack'
    AND packs.platform_id = stripe_products.platform_id
    AND packs.slug = stripe_products.slug
WHERE stripe_products.platform_id = $1
    AND stripe_products.livemode = $2
    AND stripe_products.product_id = ANY ($3::text[])
