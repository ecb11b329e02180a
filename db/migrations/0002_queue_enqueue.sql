-- Messages in: steps of the Postgres engine.

-- Wakes the processes that wait for messages, when this transaction commits; with `freed`, only those that may wait for
-- room in one of these queues. Misses a process that began to wait in this very moment; that one looks again by itself.
create function dramatiq.wake(freed text[] default null) returns void language plpgsql
set plan_cache_mode = force_generic_plan as $$
begin
    if exists (select from dramatiq.waiter where is_waiting and (freed is null or blocked && freed)) then
        update dramatiq.waiter set is_waiting = false
        where worker_id in (
            select worker_id from dramatiq.waiter
            where is_waiting and (freed is null or blocked && freed)
            for update skip locked
        );
        perform pg_notify('dramatiq.wake', '');
    end if;
end $$;

-- Stores messages; null arrays stand for no delays, times, groups, raw bodies have an empty one
-- beside them. With `doubtful_s`, not those that ended since: they are repeated because the reply was lost. Returns how
-- many were new.
create function dramatiq.enqueue(
    ids uuid[], queues text[], priorities smallint[], bodies text[], delays double precision[],
    run_ats timestamptz[], groups text[], raws bytea[], doubtful_s double precision
) returns integer language plpgsql set plan_cache_mode = force_generic_plan set jit = off as $$
declare
    stored integer;
begin
    insert into dramatiq.queue (message_id, queue_name, state, message, raw_message, priority, available_at, group_id)
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
    on conflict (message_id) do nothing;
    get diagnostics stored = row_count;
    perform dramatiq.wake();
    return stored;
end $$;
