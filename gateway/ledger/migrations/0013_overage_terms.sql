-- What a lot of overage costs: as the plan that gave it said then, for accounts change plans and
-- plans change prices. Written by the statement that gives the lot (sql/grant_insert.sql).
-- is_billed: nothing more can come of it.
CREATE TABLE overage_terms (
    grant_id bigint PRIMARY KEY REFERENCES grants,
    platform_id bigint NOT NULL REFERENCES platforms,
    account_id bigint NOT NULL REFERENCES accounts,
    plan_slug text NOT NULL,
    nanos_per_credit bigint NOT NULL CHECK (nanos_per_credit > 0),
    is_billed boolean NOT NULL DEFAULT false
);
CREATE INDEX overage_terms_open ON overage_terms (grant_id) WHERE NOT is_billed;

ALTER TABLE overage_terms ENABLE ROW LEVEL SECURITY;
ALTER TABLE overage_terms FORCE ROW LEVEL SECURITY;
CREATE POLICY gateway ON overage_terms TO CURRENT_USER USING (true) WITH CHECK (true);
CREATE POLICY tenant ON overage_terms TO tollkeeper_api USING (
    platform_id = (SELECT tenant_platform())
    AND ((SELECT tenant_account()) IS NULL OR account_id = (SELECT tenant_account()))
) WITH CHECK (
    platform_id = (SELECT tenant_platform())
    AND ((SELECT tenant_account()) IS NULL OR account_id = (SELECT tenant_account()))
);
GRANT SELECT, INSERT ON overage_terms TO tollkeeper_api;
