-- For want of payment, or not any more.
UPDATE accounts SET payment_suspended = $2 WHERE id = $1 AND payment_suspended <> $2
