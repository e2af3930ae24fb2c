-- A part that is not billed yet, for whoever bills it now; no row: it is billed, or somebody is at
-- it.
SELECT id FROM overage_charges WHERE id = $1 AND billed_at IS NULL FOR NO KEY UPDATE SKIP LOCKED
