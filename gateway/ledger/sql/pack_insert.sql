-- Nothing when one of this slug is sold, or the config or Stripe describes it.
INSERT INTO packs AS old (platform_id, slug, spec, managed_by) VALUES ($1, $2, $3, $4)
ON CONFLICT (platform_id, slug) DO UPDATE SET spec = excluded.spec, active = true
WHERE NOT old.active AND old.managed_by = excluded.managed_by
RETURNING id
