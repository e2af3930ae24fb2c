-- Holds of tasks that outlive the calls which began them, so that they outlive Redis, too.

-- The text of the hold, and what finds it by its task, as Redis has them. A row goes when its call
-- is settled; until then it says that the hold is to be there.
CREATE TABLE parked_holds (
    call_id uuid PRIMARY KEY,
    shard integer NOT NULL,
    platform_id bigint NOT NULL,
    account_id bigint NOT NULL,
    task text NOT NULL,
    hold text NOT NULL,
    record text NOT NULL,
    lease_ms bigint NOT NULL CHECK (lease_ms > 0),
    parked_at timestamptz NOT NULL DEFAULT now()
);
CREATE INDEX parked_holds_shard ON parked_holds (shard);
