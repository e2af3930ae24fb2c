-- The writer's one statement: settlements, ledger entries, grants.settled and the roll-ups of a
-- batch, all or nothing.
--
-- Exactly once: everything after `inserted` is computed from rows that this very statement
-- inserted. A batch sent twice (its COMMIT was cut off, two writers have it, the sweeper came by)
-- changes nothing the second time.
--
-- No deadlock: locks are taken in one order by every writer. Settlements by call id, then grants by
-- id (`locked`), then roll-ups by key, one table after the other; each `>= 0` makes a step wait for
-- the one before. Last come the rows that all writers share: the sums by route.
--
-- Input: one array element per settlement and posting. A settlement without a posting has grant 0,
-- one with several is there several times and inserted once. Otherwise call ids are distinct (the
-- caller sees to it). Arrays come as text because the driver spends 0.3 µs on each element of a
-- binary array, far more than parsing text costs here. `IS TRUE` keeps IN a hashed look-up: as a
-- join it could become quadratic under a plan made for a small batch.
WITH batch AS MATERIALIZED (
    SELECT * FROM unnest(
        $1::text::uuid[], $2::text::bigint[], $3::text::bigint[], $4::text::bigint[],
        $5::text::bigint[], $6::text::bigint[], $7::text::bigint[], $8::text::bigint[],
        $9::text::text[], $10::text::smallint[], $11::text::text[], $12::text::text[],
        $13::text::text[], $14::text::bigint[], $15::text::bigint[], $16::text::bigint[],
        $17::text::bigint[], $18::text::bigint[]
    ) AS batch (
        call_id, platform_id, account_id, key_id,
        route_id, price_version, admitted_ms, settled_ms,
        ending, status, units, flags,
        session, held, charged, uncollected,
        grant_id, posted
    )
), inserted AS (
    INSERT INTO settlements
    SELECT
        call_id, platform_id, account_id, key_id, route_id,
        price_version, from_ms(admitted_ms), from_ms(settled_ms), ending, status,
        units, flags, held, charged, uncollected, session
    FROM batch
    ORDER BY call_id
    ON CONFLICT (call_id) DO NOTHING
    RETURNING call_id, platform_id, account_id, key_id, route_id, settled_at, ending,
        held_microcredits, charged_microcredits, uncollected_microcredits
), fresh AS MATERIALIZED (
    SELECT call_id, platform_id, account_id, settled_ms, grant_id, posted
    FROM batch
    WHERE grant_id <> 0 AND (call_id IN (SELECT call_id FROM inserted)) IS TRUE
), entries AS (
    INSERT INTO ledger_entries (
        platform_id, account_id, grant_id, call_id, kind, microcredits, created_at
    )
    SELECT platform_id, account_id, grant_id, call_id, 'settle', -posted, from_ms(settled_ms)
    FROM fresh
), sums AS MATERIALIZED (
    SELECT grant_id, sum(posted)::bigint AS posted FROM fresh GROUP BY grant_id
), locked AS MATERIALIZED (
    SELECT grants.id, sums.posted
    FROM grants JOIN sums ON sums.grant_id = grants.id
    ORDER BY grants.id
    FOR NO KEY UPDATE OF grants
), moved AS (
    UPDATE grants SET settled_microcredits = settled_microcredits + locked.posted
    FROM locked
    WHERE grants.id = locked.id
    RETURNING grants.id
), hours AS MATERIALIZED (
    SELECT
        platform_id, account_id, date_trunc('hour', settled_at, 'UTC') AS hour, route_id, key_id,
        count(*) AS calls, count(*) FILTER (WHERE ending = 'completed') AS calls_completed,
        sum(held_microcredits)::bigint AS held, sum(charged_microcredits)::bigint AS charged,
        sum(uncollected_microcredits)::bigint AS uncollected
    FROM inserted
    GROUP BY 1, 2, 3, 4, 5
), rolled AS (
    INSERT INTO usage_hourly
    SELECT *
    FROM hours
    WHERE (SELECT count(*) FROM moved) >= 0
    ORDER BY 1, 2, 3, 4, 5
    ON CONFLICT (platform_id, account_id, hour, route_id, key_id) DO UPDATE SET
        calls = usage_hourly.calls + excluded.calls,
        calls_completed = usage_hourly.calls_completed + excluded.calls_completed,
        held_microcredits = usage_hourly.held_microcredits + excluded.held_microcredits,
        charged_microcredits =
            usage_hourly.charged_microcredits + excluded.charged_microcredits,
        uncollected_microcredits =
            usage_hourly.uncollected_microcredits + excluded.uncollected_microcredits
    RETURNING 1
), parts_days AS (
    INSERT INTO usage_parts_daily
    SELECT platform_id, account_id, date_trunc('day', hour, 'UTC'),
        grouping(key_id) = 0, CASE grouping(key_id) WHEN 0 THEN key_id ELSE route_id END,
        sum(calls)::bigint, sum(calls_completed)::bigint, sum(held)::bigint,
        sum(charged)::bigint, sum(uncollected)::bigint
    FROM hours
    WHERE (SELECT count(*) FROM rolled) >= 0
    GROUP BY 1, 2, 3, GROUPING SETS (route_id, key_id)
    ORDER BY 1, 2, 3, 4, 5
    ON CONFLICT (platform_id, account_id, day, is_key, part_id) DO UPDATE SET
        calls = usage_parts_daily.calls + excluded.calls,
        calls_completed = usage_parts_daily.calls_completed + excluded.calls_completed,
        held_microcredits = usage_parts_daily.held_microcredits + excluded.held_microcredits,
        charged_microcredits =
            usage_parts_daily.charged_microcredits + excluded.charged_microcredits,
        uncollected_microcredits =
            usage_parts_daily.uncollected_microcredits + excluded.uncollected_microcredits
    RETURNING 1
), accounts_days AS (
    INSERT INTO usage_accounts_daily
    SELECT platform_id, date_trunc('day', hour, 'UTC'), account_id,
        sum(calls)::bigint, sum(calls_completed)::bigint, sum(held)::bigint,
        sum(charged)::bigint, sum(uncollected)::bigint
    FROM hours
    WHERE (SELECT count(*) FROM parts_days) >= 0
    GROUP BY 1, 2, 3
    ORDER BY 1, 2, 3
    ON CONFLICT (platform_id, day, account_id) DO UPDATE SET
        calls = usage_accounts_daily.calls + excluded.calls,
        calls_completed = usage_accounts_daily.calls_completed + excluded.calls_completed,
        held_microcredits = usage_accounts_daily.held_microcredits + excluded.held_microcredits,
        charged_microcredits =
            usage_accounts_daily.charged_microcredits + excluded.charged_microcredits,
        uncollected_microcredits =
            usage_accounts_daily.uncollected_microcredits + excluded.uncollected_microcredits
    RETURNING 1
), routes_days AS (
    INSERT INTO usage_routes_daily
    SELECT platform_id, date_trunc('day', hour, 'UTC'), route_id,
        sum(calls)::bigint, sum(calls_completed)::bigint, sum(held)::bigint,
        sum(charged)::bigint, sum(uncollected)::bigint
    FROM hours
    WHERE (SELECT count(*) FROM accounts_days) >= 0
    GROUP BY 1, 2, 3
    ORDER BY 1, 2, 3
    ON CONFLICT (platform_id, day, route_id) DO UPDATE SET
        calls = usage_routes_daily.calls + excluded.calls,
        calls_completed = usage_routes_daily.calls_completed + excluded.calls_completed,
        held_microcredits = usage_routes_daily.held_microcredits + excluded.held_microcredits,
        charged_microcredits =
            usage_routes_daily.charged_microcredits + excluded.charged_microcredits,
        uncollected_microcredits =
            usage_routes_daily.uncollected_microcredits + excluded.uncollected_microcredits
    RETURNING 1
), routes_hours AS (
    INSERT INTO usage_routes_hourly
    SELECT platform_id, hour, route_id,
        sum(calls)::bigint, sum(calls_completed)::bigint, sum(held)::bigint,
        sum(charged)::bigint, sum(uncollected)::bigint
    FROM hours
    WHERE (SELECT count(*) FROM routes_days) >= 0
    GROUP BY 1, 2, 3
    ORDER BY 1, 2, 3
    ON CONFLICT (platform_id, hour, route_id) DO UPDATE SET
        calls = usage_routes_hourly.calls + excluded.calls,
        calls_completed = usage_routes_hourly.calls_completed + excluded.calls_completed,
        held_microcredits = usage_routes_hourly.held_microcredits + excluded.held_microcredits,
        charged_microcredits =
            usage_routes_hourly.charged_microcredits + excluded.charged_microcredits,
        uncollected_microcredits =
            usage_routes_hourly.uncollected_microcredits + excluded.uncollected_microcredits
)
SELECT
    (SELECT count(*) FROM inserted) AS inserted,
    (SELECT count(*) FROM sums) - (SELECT count(*) FROM moved) AS grants_missing
