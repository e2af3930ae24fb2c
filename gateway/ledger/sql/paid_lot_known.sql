-- Whether a payment has given this already.
SELECT EXISTS (SELECT FROM grants WHERE business_key = $1)
