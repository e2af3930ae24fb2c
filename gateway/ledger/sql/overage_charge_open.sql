-- Parts of an account's overage that Stripe has not been asked for with success, oldest first; what
-- their lots are, and how old they are.
SELECT
    charges.id AS charge_id,
    charges.business_key,
    charges.from_microcredits,
    charges.to_microcredits,
    charges.currency,
    charges.amount_minor,
    charges.invoice_id,
    terms.plan_slug,
    to_ms(grants.effective_at) AS effective_ms,
    to_ms(grants.expires_at) AS expires_ms,
    to_ms(charges.created_at) AS created_ms,
    to_ms(now()) AS now_ms
FROM overage_charges AS charges
JOIN overage_terms AS terms ON terms.grant_id = charges.grant_id
JOIN grants ON grants.id = charges.grant_id
WHERE charges.account_id = $1 AND charges.livemode = $2 AND charges.billed_at IS NULL
ORDER BY charges.id
