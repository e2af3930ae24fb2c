-- Whether a period of a subscription's plan was paid for, and not by a trial.
SELECT EXISTS (
    SELECT FROM billing_transactions
    JOIN billing_lines ON billing_lines.transaction_id = billing_transactions.id
    JOIN subscriptions
        ON subscriptions.platform_id = billing_transactions.platform_id
        AND subscriptions.livemode = billing_transactions.livemode
        AND subscriptions.stripe_id = billing_transactions.subscription_id
    WHERE billing_transactions.account_id = $1
        AND billing_transactions.livemode = $2
        AND billing_transactions.subscription_id = $3
        AND billing_transactions.status = 'succeeded'
        AND billing_lines.kind = 'plan'
        AND billing_lines.period_start_at <= from_ms($4)
        AND billing_lines.period_end_at >= from_ms($5)
        AND (
            subscriptions.trial_end_at IS NULL
            OR billing_lines.amount_minor > 0
            OR billing_lines.period_start_at >= subscriptions.trial_end_at
        )
)
