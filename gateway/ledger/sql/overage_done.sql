-- Lots of which all is billed and nothing more can come: they are closed, so no call holds them.
-- And those that could not be billed for so long ($1 ms) that nobody expects it any more.
UPDATE overage_terms SET is_billed = true
FROM grants
WHERE grants.id = overage_terms.grant_id
    AND NOT overage_terms.is_billed
    AND grants.closed
    AND (
        grants.expires_at < now() - $1 * interval '1 ms'
        OR grants.settled_microcredits - grants.credited_microcredits <= coalesce((
            SELECT max(to_microcredits) FROM overage_charges
            WHERE overage_charges.grant_id = overage_terms.grant_id
        ), 0)
    )
    AND NOT EXISTS (
        SELECT FROM overage_charges
        WHERE overage_charges.grant_id = overage_terms.grant_id AND billed_at IS NULL
    )
