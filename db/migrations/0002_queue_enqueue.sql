-- Messages in: steps of the Postgres engine.

-- Wakes the processes that wait for messages; with `freed`, those that wait for room in one of these queues.
create function dramatiq.wake(freed text[] default null) returns void language plpgsql as $$
begin
    if exists (select from dramatiq.waiter where is_waiting and (freed is null or blocked && freed)) then
        -- Nothing is lost with this transaction, so it need not wait for the disk.
        perform set_config('synchronous_commit', 'off', true);
        update dramatiq.waiter set is_waiting = false
        where worker_id in (
            select worker_id from dramatiq.waiter
            where is_waiting and (freed is null or blocked && freed)
            for update skip locked
        );
        perform pg_notify('dramatiq.wake', '');
    end if;
end $$;

-- Stores messages; null arrays stand for no delays, times, groups. With `doubtful_s`, not those that ended since: they
-- are repeated because the reply was lost. Returns how many were new.
create function dramatiq.enqueue(
    ids uuid[], queues text[], priorities smallint[], bodies text[], delays double precision[],
    run_ats timestamptz[], groups text[], raws bytea[], doubtful_s double precision
) returns integer language plpgsql as $$
declare
    stored integer;
begin
    insert into dramatiq.queue (message_id, queue_name, state, message, raw_message, priority, available_at, group_id)
    select id, queue, 'queued', body::jsonb, raw, least(greatest(priority, 1), 4),
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
    return stored;
end $$;

-- Looks for waiting processes only when the messages can be seen, or it could miss one that just found nothing.
create procedure dramatiq.enqueue_and_wake(
    inout stored integer, ids uuid[], queues text[], priorities smallint[], bodies text[], delays double precision[],
    run_ats timestamptz[], groups text[], raws bytea[], doubtful_s double precision
) language plpgsql as $$
begin
    stored := dramatiq.enqueue(ids, queues, priorities, bodies, delays, run_ats, groups, raws, doubtful_s);
    commit;
    perform dramatiq.wake();
end $$;
