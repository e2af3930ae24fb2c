-- Products of a platform as Stripe has them, in one mode: all of them, or with $3 that one, or with
-- $4 and $5 those of a plan or pack.
SELECT product_id, kind, slug, name, active, metadata, problem, to_ms(synced_at) AS synced_ms
FROM stripe_products
WHERE platform_id = $1
    AND livemode = $2
    AND ($3::text IS NULL OR product_id = $3)
    AND ($4::text IS NULL OR kind = $4)
    AND ($5::text IS NULL OR slug = $5)
ORDER BY kind, slug, product_id
