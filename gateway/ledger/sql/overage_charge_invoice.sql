-- Which invoice a part is to be on.
UPDATE overage_charges SET invoice_id = $2 WHERE id = $1
