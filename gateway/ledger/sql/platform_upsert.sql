-- Also the lock of `apply`: two of them for one platform run one after the other.
INSERT INTO platforms (slug, name, upgrade_url) VALUES ($1, $2, $3)
ON CONFLICT (slug) DO UPDATE SET name = excluded.name, upgrade_url = excluded.upgrade_url
RETURNING id
