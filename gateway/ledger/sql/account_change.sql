-- What people decide of an account; NULL leaves as it is. Of the discount $4 says whether it
-- changes, for its NULL is what the plan says.
UPDATE accounts SET
    name = coalesce($2, name),
    status = coalesce($3, status),
    discount_basis_points = CASE WHEN $4 THEN $5 ELSE discount_basis_points END
WHERE id = $1
RETURNING id
