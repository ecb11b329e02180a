-- Messages in: steps of the Postgres engine.

-- Wakes up to `most` processes that wait for messages of `arrived`, or, with `freed`, for room in one of these queues,
-- when this transaction commits. Misses a process that began to wait in this very moment; that one looks again itself.
create function dramatiq.wake(arrived text[], most integer, freed text[] default '{}') returns void language plpgsql
set plan_cache_mode = force_generic_plan as $$
declare
    woken_count integer;
begin
    if exists (select from dramatiq.waiter where is_waiting) then
        with woken as (
            update dramatiq.waiter set is_waiting = false
            where worker_id in (
                select worker_id from dramatiq.waiter
                where is_waiting and (coalesce(queues && arrived, true) or blocked && freed)
                order by since desc limit most for update skip locked
            )
            returning worker_id
        )
        select count(pg_notify('dramatiq.wake.' || worker_id, '')) into woken_count from woken;
    end if;
end $$;

-- Stores messages; null arrays stand for no delays, times, groups, raw bodies have an empty one
-- beside them. With `doubtful_s`, not those that ended since: they are repeated because the reply was lost. Returns
-- those that were new, null if all were.
create function dramatiq.enqueue(
    ids uuid[], queues text[], priorities smallint[], bodies text[], delays double precision[],
    run_ats timestamptz[], groups text[], raws bytea[], doubtful_s double precision
) returns uuid[] language plpgsql set plan_cache_mode = force_generic_plan set jit = off as $$
declare
    stored uuid[];
begin
    with new as (insert into dramatiq.queue (message_id, queue_name, state, message, raw_message, priority, available_at, group_id)
    select id, queue, 'queued', nullif(body, '')::jsonb, raw, least(greatest(priority, 1), 4),
        coalesce(run_at, statement_timestamp() + make_interval(secs => coalesce(delay, 0)))
            + nr * interval '1 microsecond',
        group_id
    from rows from (
        unnest(ids), unnest(queues), unnest(priorities), unnest(bodies), unnest(delays), unnest(run_ats),
        unnest(groups), unnest(raws), generate_series(0, cardinality(ids) - 1)
    ) as new (id, queue, priority, body, delay, run_at, group_id, raw, nr)
    where doubtful_s is null or not exists (
        select from dramatiq.finished
        where finished_at > now() - make_interval(secs => doubtful_s) and id = any(message_ids)
    )
    on conflict (message_id) do nothing
    returning message_id)
    select array_agg(message_id) into stored from new;
    if stored is not null then
        perform dramatiq.wake(queues, cardinality(stored));
    end if;
    return case when cardinality(stored) = cardinality(ids) then null else coalesce(stored, '{}') end;
end $$;
