-- What calls with an idempotency key were answered, for a day: outlives the loss of Redis.

-- No foreign key: it would lock the account's row for each answer. A key of an account has the
-- answer of the last call that claimed it.
CREATE TABLE idempotent_answers (
    platform_id bigint NOT NULL,
    account_id bigint NOT NULL,
    digest bytea NOT NULL CHECK (length(digest) = 16),
    fingerprint bytea NOT NULL CHECK (length(fingerprint) = 32),
    call_id uuid NOT NULL,
    receipt boolean NOT NULL,
    answer bytea NOT NULL,
    created_at timestamptz NOT NULL DEFAULT now(),
    PRIMARY KEY (account_id, digest)
);
CREATE INDEX idempotent_answers_created ON idempotent_answers (created_at);
