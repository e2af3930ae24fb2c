-- Who works on a customer's objects does so alone, from fetching them at Stripe to writing what
-- follows from them, so that nobody writes what was true before. By platform, mode and customer.
SELECT pg_advisory_xact_lock(
    hashtextextended(format('tollkeeper customer %s %s %s', $1::bigint, $2::boolean, $3::text), 0)
)
