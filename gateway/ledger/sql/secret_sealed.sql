-- Every platform's, for workers, which open them; and for sealing them anew.
SELECT id AS secret_id, platform_id, name, sealed FROM secrets ORDER BY id
