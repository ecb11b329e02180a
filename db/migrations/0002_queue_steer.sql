-- Watching and steering: steps of the Postgres engine.

-- State of the named queues, or, with null, of all that hold anything or are paused.
create function dramatiq.depths(names text[]) returns table (
    queue text, waiting bigint, delayed bigint, leased bigint, dead bigint, paused boolean, oldest interval
) language sql stable as $$
    with counted as (
        select queue_name, count(*) filter (where available_at <= statement_timestamp()) as waiting,
            count(*) filter (where available_at > statement_timestamp()) as delayed, 0 as leased, 0 as dead,
            min(available_at) filter (where available_at <= statement_timestamp()) as oldest
        from dramatiq.queue where state = 'queued' and (names is null or queue_name = any(names)) group by queue_name
        union all
        select queue_name, 0, 0, count(*), 0, null
        from dramatiq.queue where state = 'consumed' and (names is null or queue_name = any(names)) group by queue_name
        union all
        select queue_name, 0, 0, 0, count(*), null
        from dramatiq.queue where state = 'rejected' and (names is null or queue_name = any(names)) group by queue_name
        union all
        select name, 0, 0, 0, 0, null from unnest(names) as name
        union all
        select queue_name, 0, 0, 0, 0, null from dramatiq.paused_queue where names is null
    )
    select queue_name, sum(waiting)::bigint, sum(delayed)::bigint, sum(leased)::bigint, sum(dead)::bigint,
        queue_name in (select queue_name from dramatiq.paused_queue), statement_timestamp() - min(oldest)
    from counted group by queue_name order by queue_name collate "C"
$$;

-- Removes those that wait, asks those that run to stop. Returns how many were found.
create function dramatiq.cancel(ids uuid[]) returns integer language plpgsql as $$
declare
    found_ids uuid[];
    ended dramatiq.ended[];
begin
    found_ids := array(
        select message_id from dramatiq.queue
        where message_id = any(ids) and state in ('queued', 'consumed') order by message_id for update
    );
    with gone as (
        delete from dramatiq.queue where message_id = any(found_ids) and state = 'queued'
        returning case when not group_left then group_id end as group_id, message
    )
    select array_agg(row(group_id, dramatiq.group_callbacks(message))::dramatiq.ended) into ended from gone;
    update dramatiq.queue set cancel_requested = true where message_id = any(found_ids);
    perform dramatiq.leave_groups(ended, null);
    perform dramatiq.wake(null, cardinality(found_ids));
    return cardinality(found_ids);
end $$;

-- Removes the waiting, delayed and dead messages of a queue. Returns how many.
create function dramatiq.purge(name text) returns integer language plpgsql as $$
declare
    ended dramatiq.ended[];
    purged integer;
begin
    with gone as (
        delete from dramatiq.queue where ctid = any(array(
            select ctid from dramatiq.queue
            where queue_name = name and state in ('queued', 'rejected') for update skip locked
        ))
        returning case when not group_left then group_id end as group_id, message
    )
    select count(*),
        array_agg(row(group_id, dramatiq.group_callbacks(message))::dramatiq.ended) filter (where group_id is not null)
    into purged, ended from gone;
    perform dramatiq.leave_groups(ended, null);
    perform dramatiq.wake(null, purged);
    return purged;
end $$;

-- Makes dead letters wait again, as new ones. Returns how many were dead.
create function dramatiq.requeue(ids uuid[]) returns integer language plpgsql as $$
declare
    requeued integer;
begin
    with dead as (
        select message_id from dramatiq.queue
        where message_id = any(ids) and state = 'rejected' order by message_id for update
    ), numbered as (
        select message_id, row_number() over () as nr from dead
    )
    update dramatiq.queue as q
    set state = 'queued', attempt = 0, lost = 0, cancel_requested = false, code = null, error = null,
        available_at = statement_timestamp() + nr * interval '1 microsecond'
    from numbered where q.message_id = numbered.message_id;
    get diagnostics requeued = row_count;
    perform dramatiq.wake(null, requeued);
    return requeued;
end $$;

-- Whether there is something to claim in `queues` (null: in any), and the time until the next delayed message is due.
create function dramatiq.runnable(
    queues text[], bounds integer[], out is_ready boolean, out next_due_s double precision
) language plpgsql set enable_seqscan = off set plan_cache_mode = force_generic_plan set jit = off as $$
declare
    names text[];
begin
    if queues is null then
        select array_agg(distinct queue_name) into queues from dramatiq.queue where state = 'queued';
    end if;
    select array_agg(name) into names
    from unnest(queues, bounds) as wanted (name, most)
    where name not in (select queue_name from dramatiq.paused_queue) and (most is null or most > (
        select count(*) from dramatiq.queue where state = 'consumed' and queue_name = name
    ));
    is_ready := exists (
        select from unnest(names) as name, generate_series(1, 4) as level, lateral (
            select from dramatiq.queue
            where state = 'queued' and queue_name = name and priority = level and available_at <= statement_timestamp()
            limit 1
        ) as due
    );
    select extract(epoch from min(due.available_at) - statement_timestamp()) into next_due_s
    from unnest(names) as name, generate_series(1, 4) as level, lateral (
        select available_at from dramatiq.queue
        where state = 'queued' and queue_name = name and priority = level and available_at > statement_timestamp()
        order by available_at limit 1
    ) as due;
end $$;

-- Notes that a process waits, and looks whether there is something already. What was stored at the same moment may not
-- have seen the note: look again a little later.
create function dramatiq.begin_wait(
    worker uuid, queues text[], bounds integer[], out is_ready boolean, out next_due_s double precision
) language plpgsql set plan_cache_mode = force_generic_plan as $$
begin
    -- Nothing is lost with this note, so it need not wait for the disk.
    perform set_config('synchronous_commit', 'off', true);
    insert into dramatiq.waiter
    select worker, true, now(), queues, coalesce(array_agg(name) filter (where most is not null), '{}')
    from unnest(queues, bounds) as wanted (name, most)
    on conflict (worker_id) do update
    set is_waiting = true, since = now(), queues = excluded.queues, blocked = excluded.blocked;
    select * into is_ready, next_due_s from dramatiq.runnable(queues, bounds);
end $$;
