-- Of payments that Stripe says were made, by their business keys: those of which the books don't.
SELECT payment.business_key
FROM unnest($3::text[]) AS payment (business_key)
WHERE NOT EXISTS (
    SELECT FROM billing_transactions AS booked
    WHERE booked.platform_id = $1
        AND booked.livemode = $2
        AND booked.business_key = payment.business_key
        AND booked.status IN ('succeeded', 'refunded')
)
