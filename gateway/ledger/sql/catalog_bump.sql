-- The next version of what the proxy serves by. The row's lock lets changes of it commit one by
-- one, so that a snapshot with this version holds all that came before.
UPDATE catalog_state SET version = version + 1 RETURNING version
