-- A part is on an invoice, or waits for the next one, as this item of Stripe's; or was told to a
-- meter under this name.
UPDATE overage_charges SET item_id = $2, invoice_id = $3, billed_at = now() WHERE id = $1
