-- An account's own discount in basis points, NULL: its plan's; one row if the account exists.
UPDATE accounts SET discount_basis_points = $2 WHERE id = $1 RETURNING id
