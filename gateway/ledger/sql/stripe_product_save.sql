-- As Stripe has it now. Whether it has a problem is decided together with the others of its plan.
INSERT INTO stripe_products (
    platform_id, livemode, product_id, kind, slug, name, active, metadata, problem
) VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9)
ON CONFLICT (platform_id, livemode, product_id) DO UPDATE SET
    kind = excluded.kind,
    slug = excluded.slug,
    name = excluded.name,
    active = excluded.active,
    metadata = excluded.metadata,
    problem = excluded.problem,
    synced_at = now()
