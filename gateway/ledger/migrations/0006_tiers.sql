-- What accounts have used of graduated tiers is summed when Redis is loaded with them.
CREATE INDEX settlements_tiers ON settlements (account_id, settled_at)
    INCLUDE (route_id, units) WHERE units LIKE '%.tiers=%';
