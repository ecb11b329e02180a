-- Messages out: steps of the Postgres engine.

-- Those of `queues` that have something due at `level`, with how many of it may be leased.
create function dramatiq.open_queues(level integer, queues text[], bounds integer[], room integer)
returns table (open_name text, open_places integer) language plpgsql as $$
declare
    bound integer;
begin
    for open_name, bound in
        -- The limit keeps it a look at the head of each line; `exists` may be planned as a join with the whole backlog.
        select name, most from unnest(queues, bounds) as wanted (name, most), lateral (
            select from dramatiq.queue
            where state = 'queued' and queue_name = name and priority = level and available_at <= statement_timestamp()
            limit 1
        ) as head
        order by name
    loop
        open_places := room;
        if bound is not null then
            -- One claim at a time on a bounded queue, or two would count the same leases.
            perform pg_advisory_xact_lock(hashtextextended('dramatiq.queue ' || open_name, 0));
            select least(room, bound - count(*)) into open_places
            from dramatiq.queue where state = 'consumed' and queue_name = open_name;
        end if;
        if open_places > 0 then
            return next;
        end if;
    end loop;
end $$;

create type dramatiq.claimed as (
    message_id uuid, queue_name text, priority smallint, body bytea, token bigint, attempt integer, lost integer,
    available_at timestamptz
);

-- Leases the first due messages of one queue and level, not later than `latest`.
create function dramatiq.lease(
    level integer, queues text[], allowed integer[], latest timestamptz, room integer, new_token bigint, lease interval
) returns setof dramatiq.claimed language plpgsql as $$
declare
    places tid[];
begin
    if cardinality(queues) = 1 then
        places := array(
            select ctid from dramatiq.queue
            where state = 'queued' and queue_name = queues[1] and priority = level and available_at <= latest
            order by available_at
            limit least(room, allowed[1]) for update skip locked
        );
    else
        places := array(
            select place from unnest(queues, allowed) as open (name, most), lateral (
                select ctid as place from dramatiq.queue
                where state = 'queued' and queue_name = name and priority = level and available_at <= latest
                order by available_at
                limit least(room, most) for update skip locked
            ) as first
            limit room
        );
    end if;
    return query
        update dramatiq.queue as q
        set state = 'consumed', attempt = q.attempt + 1, lease_token = new_token,
            lease_expires_at = statement_timestamp() + lease
        where ctid = any(places)
        returning q.message_id, q.queue_name, q.priority, coalesce(raw_message, convert_to(message::text, 'UTF8')),
            q.lease_token, q.attempt, q.lost, q.available_at;
end $$;

-- Leases up to `room` messages of the queues that are not paused: by priority, then by time over all queues. The rows
-- come in no order. `worker` is the process if it noted that it waits.
create function dramatiq.claim(
    request text, queues text[], bounds integer[], room integer, lease interval, worker uuid
) returns setof dramatiq.claimed language plpgsql
set enable_seqscan = off set enable_bitmapscan = off set enable_sort = off set plan_cache_mode = force_generic_plan
set jit = off as $$
declare
    new_token bigint;
    taken integer := 0;
    got integer;
    latest timestamptz;
    names text[];
    allowed integer[];
begin
    select token into new_token from dramatiq.claim where request_id = request;
    if found then
        return query
            select q.message_id, q.queue_name, q.priority, coalesce(raw_message, convert_to(message::text, 'UTF8')),
                q.lease_token, q.attempt, q.lost, q.available_at
            from dramatiq.queue as q
            where state = 'consumed' and queue_name = any(queues) and lease_token = new_token;
        return;
    end if;
    if exists (select from dramatiq.paused_queue) then
        select array_agg(name), array_agg(most) into queues, bounds
        from unnest(queues, bounds) as wanted (name, most)
        where name not in (select queue_name from dramatiq.paused_queue);
    end if;
    for level in 1..4 loop
        select array_agg(open_name), array_agg(open_places) into names, allowed
        from dramatiq.open_queues(level, queues, bounds, room - taken);
        continue when names is null;
        if new_token is null then
            insert into dramatiq.claim (request_id) values (request) returning token into new_token;
        end if;
        latest := statement_timestamp();
        if cardinality(names) > 1 then
            -- The time of the last message that fits, over these queues; without it the first one named would win.
            select max(available_at) into latest from (
                select first.available_at from unnest(names, allowed) as open (name, most), lateral (
                    select q.available_at from dramatiq.queue as q
                    where state = 'queued' and queue_name = name and priority = level
                        and q.available_at <= statement_timestamp()
                    order by q.available_at
                    limit most
                ) as first
                order by 1 limit room - taken
            ) as fitting;
        end if;
        return query select * from dramatiq.lease(level, names, allowed, latest, room - taken, new_token, lease);
        get diagnostics got = row_count;
        taken := taken + got;
        if taken < room and latest < statement_timestamp() then
            -- Another claim has taken some of these in the meantime: look behind them.
            select array_agg(open_name), array_agg(open_places) into names, allowed
            from dramatiq.open_queues(level, queues, bounds, room - taken);
            if names is not null then
                return query select * from dramatiq.lease(
                    level, names, allowed, statement_timestamp(), room - taken, new_token, lease);
                get diagnostics got = row_count;
                taken := taken + got;
            end if;
        end if;
        exit when taken >= room;
    end loop;
    if taken > 0 and worker is not null then
        update dramatiq.waiter set is_waiting = false where worker_id = worker;
    end if;
    if taken >= room then
        -- There may be more than this process can take.
        perform dramatiq.wake(queues, 1);
    end if;
end $$;
