-- What an account gets off every price, in ten-thousandths. NULL: what its plan says.
ALTER TABLE accounts
    ADD COLUMN discount_basis_points integer CHECK (discount_basis_points BETWEEN 0 AND 10000);
