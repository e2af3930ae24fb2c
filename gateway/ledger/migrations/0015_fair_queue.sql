-- How many events of a platform wait is counted when one of them gets its job (ledger/queue.py).
CREATE INDEX stripe_events_waiting ON stripe_events (platform_id) WHERE status = 'waiting';
