-- Lines that a payment does not have any more: a draft was changed.
DELETE FROM billing_lines WHERE transaction_id = $1 AND line_id <> ALL ($2::text[])
