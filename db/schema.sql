-- The sum of db/migrations, written by `python -m db.schema`: to read, not to edit or to run.

CREATE SCHEMA dramatiq;

CREATE TYPE dramatiq.claimed AS (
	message_id uuid,
	queue_name text,
	priority smallint,
	body bytea,
	token bigint,
	attempt integer,
	lost integer,
	available_at timestamp with time zone
);

CREATE TYPE dramatiq.ended AS (
	group_id text,
	callbacks jsonb
);

CREATE TYPE dramatiq.state AS ENUM (
    'queued',
    'consumed',
    'rejected',
    'done'
);

CREATE FUNCTION dramatiq.adopt_again() RETURNS trigger
    LANGUAGE plpgsql
    AS $$
begin
    new.lease_token := null;
    new.lease_expires_at := null;
    new.available_at := clock_timestamp();
    return new;
end $$;

CREATE FUNCTION dramatiq.adopt_delayed() RETURNS trigger
    LANGUAGE plpgsql
    AS $$
begin
    new.queue_name := left(new.queue_name, -3);
    new.message := jsonb_set(new.message, '{queue_name}', to_jsonb(new.queue_name)) #- '{options,eta}';
    return new;
end $$;

CREATE FUNCTION dramatiq.adopt_eta() RETURNS trigger
    LANGUAGE plpgsql
    AS $$
begin
    new.available_at := to_timestamp((new.message -> 'options' ->> 'eta')::double precision / 1000);
    return new;
end $$;

CREATE FUNCTION dramatiq.begin_wait(worker uuid, queues text[], bounds integer[], OUT is_ready boolean, OUT next_due_s double precision) RETURNS record
    LANGUAGE plpgsql
    SET plan_cache_mode TO 'force_generic_plan'
    AS $$
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

CREATE FUNCTION dramatiq.cancel(ids uuid[]) RETURNS integer
    LANGUAGE plpgsql
    AS $$
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

CREATE FUNCTION dramatiq.claim(request text, queues text[], bounds integer[], room integer, lease interval, worker uuid) RETURNS SETOF dramatiq.claimed
    LANGUAGE plpgsql
    SET enable_seqscan TO 'off'
    SET enable_bitmapscan TO 'off'
    SET enable_sort TO 'off'
    SET plan_cache_mode TO 'force_generic_plan'
    SET jit TO 'off'
    AS $$
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

CREATE FUNCTION dramatiq.depths(names text[]) RETURNS TABLE(queue text, waiting bigint, delayed bigint, leased bigint, dead bigint, paused boolean, oldest interval)
    LANGUAGE sql STABLE
    AS $$
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

CREATE FUNCTION dramatiq.enqueue(ids uuid[], queues text[], priorities smallint[], bodies text[], delays double precision[], run_ats timestamp with time zone[], groups text[], raws bytea[], doubtful_s double precision) RETURNS uuid[]
    LANGUAGE plpgsql
    SET plan_cache_mode TO 'force_generic_plan'
    SET jit TO 'off'
    AS $$
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

CREATE FUNCTION dramatiq.finish(ids uuid[], tokens bigint[], groups text[], rich jsonb, follow jsonb, callbacks jsonb, OUT refused_ids uuid[], OUT refused_tokens bigint[]) RETURNS record
    LANGUAGE plpgsql
    SET enable_seqscan TO 'off'
    SET enable_hashjoin TO 'off'
    SET enable_mergejoin TO 'off'
    SET plan_cache_mode TO 'force_generic_plan'
    SET jit TO 'off'
    AS $$
declare
    applied_ids uuid[];
    applied_tokens bigint[];
    ended dramatiq.ended[];
    rich_ids uuid[];
    rich_tokens bigint[];
    rich_ended dramatiq.ended[];
    rich_freed text[];
    freed text[];
    arrived integer := 0;
    again integer;
begin
    with gone as (
        delete from dramatiq.queue as q
        using rows from (unnest(ids), unnest(tokens), unnest(groups)) as f (id, token, group_id)
        where message_id = f.id and lease_token = f.token and state = 'consumed'
        returning message_id, lease_token, queue_name,
            case when not group_left then coalesce(q.group_id, f.group_id) end as group_id, message
    )
    select coalesce(array_agg(message_id), '{}'), array_agg(lease_token), array_agg(distinct queue_name),
        array_agg(row(group_id, dramatiq.group_callbacks(message))::dramatiq.ended) filter (where group_id is not null)
    into applied_ids, applied_tokens, freed, ended
    from gone;
    if rich is not null then
        select * from dramatiq.finish_rich(rich)
        into rich_ids, rich_tokens, rich_ended, rich_freed, again;
        applied_ids := applied_ids || rich_ids;
        applied_tokens := applied_tokens || rich_tokens;
        ended := ended || rich_ended;
        freed := freed || rich_freed;
        arrived := again;
    end if;
    if cardinality(applied_ids) > 0 then
        insert into dramatiq.finished (token, message_ids)
        select token, array_agg(id) from unnest(applied_ids, applied_tokens) as applied (id, token)
        group by token;
    end if;
    if ended is not null then
        arrived := arrived + dramatiq.leave_groups(ended, callbacks);
    end if;
    if follow is not null then
        arrived := arrived + dramatiq.store((
            select coalesce(jsonb_agg(document order by nr), '[]')
            from jsonb_each(follow) as f (id, documents),
                jsonb_array_elements(documents) with ordinality as d (document, nr)
            where f.id::uuid = any(applied_ids)
        ));
    end if;
    if cardinality(applied_ids) < cardinality(ids) + coalesce(jsonb_array_length(rich), 0) then
        select array_agg(f.id), array_agg(f.token) into refused_ids, refused_tokens
        from (
            select id, token from unnest(ids, tokens) as f (id, token)
            union all
            select i, t from jsonb_to_recordset(rich) as f (i uuid, t bigint)
        ) as f
        where not exists (
            select from dramatiq.finished where finished.token = f.token and f.id = any(message_ids)
        );
    end if;
    perform dramatiq.wake(case when arrived > 0 then null else '{}'::text[] end, greatest(arrived, 1), freed);
end $$;

CREATE FUNCTION dramatiq.finish_rich(rich jsonb, OUT ids uuid[], OUT tokens bigint[], OUT ended dramatiq.ended[], OUT freed text[], OUT again integer) RETURNS record
    LANGUAGE plpgsql
    AS $$
declare
    dispositions text[];
begin
    -- What was asked to stop does not run again.
    select array_agg(message_id), array_agg(lease_token), array_agg(distinct queue_name), array_agg(disposition),
        array_agg(row(group_id, dramatiq.group_callbacks(message))::dramatiq.ended)
            filter (where group_id is not null and disposition <> 'again')
    into ids, tokens, freed, dispositions, ended
    from (
        select q.message_id, q.lease_token, q.queue_name, q.message,
            case when d in ('retry', 'reschedule') then case when cancel_requested then 'gone' else 'again' end
                when d = 'dead' then 'dead'
                when d = 'done' and (f.result is not null or f.raw is not null) then 'kept'
                else 'gone' end as disposition,
            case when not group_left then coalesce(q.group_id, f.g) end as group_id
        from jsonb_to_recordset(rich) as f (i uuid, t bigint, d text, g text, result text, raw text)
        join dramatiq.queue as q on message_id = i and lease_token = t and state = 'consumed'
        order by message_id
        for update of q
    ) as held;
    again := (select count(*) from unnest(dispositions) as d where d = 'again');
    delete from dramatiq.queue
    where message_id in (select id from unnest(ids, dispositions) as h (id, d) where d = 'gone');
    -- What is left of them waits again, is dead or is kept.
    update dramatiq.queue as q
    set state = case when f.d in ('retry', 'reschedule') then 'queued' when f.d = 'dead' then 'rejected'
            else 'done' end::dramatiq.state,
        mtime = now(),
        lease_token = null,
        lease_expires_at = null,
        attempt = case when f.d = 'reschedule' then attempt - 1 else attempt end,
        available_at = case when f.d in ('retry', 'reschedule') then coalesce(
            f.run_at, statement_timestamp() + make_interval(secs => coalesce(f.delay, 0))) else available_at end,
        code = f.code,
        error = f.error,
        group_left = group_left or f.d not in ('retry', 'reschedule'),
        result = f.result::jsonb,
        raw_result = decode(f.raw, 'base64'),
        result_ttl = case when f.ttl is not null then statement_timestamp() + make_interval(secs => f.ttl) end
    from jsonb_to_recordset(rich) as f (
        i uuid, t bigint, d text, delay double precision, run_at timestamptz, code text, error text, result text, raw text,
        ttl double precision
    )
    where message_id = f.i and lease_token = f.t and state = 'consumed';
end $$;

CREATE FUNCTION dramatiq.forget(batch uuid) RETURNS boolean
    LANGUAGE plpgsql
    AS $$
begin
    if exists (select from dramatiq.moved where batch_id = batch) then
        return true;
    end if;
    perform from dramatiq.moving where batch_id = batch order by message_id for update;
    if not found then
        return false;
    end if;
    with gone as (
        delete from dramatiq.queue as q using dramatiq.moving as m
        where m.batch_id = batch and q.message_id = m.message_id
        returning case when not group_left then group_id end as of_group
    )
    delete from dramatiq.message_group where group_id in (select of_group from gone);
    delete from dramatiq.moving where batch_id = batch;
    insert into dramatiq.moved (batch_id) values (batch);
    return true;
end $$;

CREATE FUNCTION dramatiq.group_callbacks(message jsonb) RETURNS jsonb
    LANGUAGE sql IMMUTABLE
    AS $$
    select case when jsonb_typeof(message #> '{options,group_completion_callbacks}') = 'array'
        then message #> '{options,group_completion_callbacks}' end
$$;

CREATE FUNCTION dramatiq.heartbeat(held_ids uuid[], held_tokens bigint[], lease interval, OUT lost uuid[], OUT cancelled uuid[]) RETURNS record
    LANGUAGE plpgsql
    SET enable_seqscan TO 'off'
    SET enable_hashjoin TO 'off'
    SET enable_mergejoin TO 'off'
    SET plan_cache_mode TO 'force_generic_plan'
    SET jit TO 'off'
    AS $$
begin
    -- A lease with nine tenths to go is left alone: heartbeats come often, and each renewal writes a row.
    update dramatiq.queue set lease_expires_at = statement_timestamp() + lease
    where message_id in (
        select message_id
        from unnest(held_ids, held_tokens) as h (id, token)
        join dramatiq.queue on message_id = id and lease_token = token and state = 'consumed'
        where lease_expires_at - statement_timestamp() not between lease * 0.9 and lease
        for update of queue skip locked
    );
    select array_agg(id) filter (where message_id is null), array_agg(id) filter (where cancel_requested)
    into lost, cancelled
    from unnest(held_ids, held_tokens) as h (id, token)
    left join dramatiq.queue on message_id = id and lease_token = token and state = 'consumed';
end $$;

CREATE FUNCTION dramatiq.lease(level integer, queues text[], allowed integer[], latest timestamp with time zone, room integer, new_token bigint, lease interval) RETURNS SETOF dramatiq.claimed
    LANGUAGE plpgsql
    AS $$
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

CREATE FUNCTION dramatiq.leave_groups(ended dramatiq.ended[], callbacks jsonb) RETURNS integer
    LANGUAGE plpgsql
    AS $$
declare
    group_of_all record;
    still integer;
    stored integer := 0;
begin
    for group_of_all in
        select group_id, count(*) as gone, (array_agg(e.callbacks) filter (where e.callbacks is not null))[1] as named
        from unnest(ended) as e where group_id is not null group by group_id order by group_id
    loop
        update dramatiq.message_group set remaining = remaining - group_of_all.gone
        where group_id = group_of_all.group_id returning remaining into still;
        continue when not found or still > 0;
        delete from dramatiq.message_group where group_id = group_of_all.group_id;
        stored := stored + dramatiq.store(coalesce(callbacks -> group_of_all.group_id, (
            select jsonb_agg(jsonb_build_object(
                'i', c ->> 'message_id',
                'q', c ->> 'queue_name',
                'p', case when jsonb_typeof(c #> '{options,priority}') = 'number' then c #> '{options,priority}'
                     else '3' end,
                'm', c::text,
                'g', c #>> '{options,group_completion_uuid}'
            ))
            from jsonb_array_elements(group_of_all.named) as c
        ), '[]'));
    end loop;
    return stored;
end $$;

CREATE FUNCTION dramatiq.open_queues(level integer, queues text[], bounds integer[], room integer) RETURNS TABLE(open_name text, open_places integer)
    LANGUAGE plpgsql
    AS $$
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

CREATE FUNCTION dramatiq.purge(name text) RETURNS integer
    LANGUAGE plpgsql
    AS $$
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

CREATE FUNCTION dramatiq.put_back() RETURNS integer
    LANGUAGE plpgsql
    AS $$
declare
    back uuid[];
begin
    with expired as (
        delete from dramatiq.moving where message_id in (
            select message_id from dramatiq.moving where expires_at < clock_timestamp()
            order by message_id for update skip locked
        )
        returning message_id, was
    ), returned as (
        update dramatiq.queue as q set state = was from expired where q.message_id = expired.message_id
        returning q.message_id
    )
    select array_agg(message_id) into back from returned;
    if back is not null then
        perform dramatiq.wake(null, cardinality(back));
    end if;
    delete from dramatiq.moved where moved_at < now() - interval '7 days';
    return coalesce(cardinality(back), 0);
end $$;

CREATE FUNCTION dramatiq.put_in(batch uuid, ids uuid[], queues text[], priorities integer[], bodies text[], raws bytea[], dues timestamp with time zone[], deads timestamp with time zone[], attempts integer[], losts integer[], codes text[], errors text[], groups text[], lefts boolean[]) RETURNS integer
    LANGUAGE plpgsql
    AS $$
declare
    stored integer;
begin
    insert into dramatiq.moved (batch_id) values (batch) on conflict do nothing;
    if not found then
        return 0;
    end if;
    insert into dramatiq.message_group (group_id, remaining)
    select g, count(*) from unnest(groups, lefts) as m (g, is_left) where g is not null and not is_left group by g
    on conflict do nothing;
    insert into dramatiq.queue (
        message_id, queue_name, state, mtime, message, raw_message, available_at, attempt, lost, priority, group_id,
        group_left, code, error
    )
    select id, queue, case when died is null then 'queued' else 'rejected' end::dramatiq.state, coalesce(died, now()),
        body::jsonb, raw, due, attempt, lost, least(greatest(priority, 1), 4), g, is_left, code, error
    from unnest(ids, queues, priorities, bodies, raws, dues, deads, attempts, losts, codes, errors, groups, lefts)
        as m (id, queue, priority, body, raw, due, died, attempt, lost, code, error, g, is_left)
    on conflict (message_id) do nothing;
    get diagnostics stored = row_count;
    perform dramatiq.wake(queues, stored);
    return stored;
end $$;

CREATE FUNCTION dramatiq.reap(max_lost integer) RETURNS integer
    LANGUAGE plpgsql
    SET enable_seqscan TO 'off'
    SET jit TO 'off'
    AS $$
declare
    expired uuid[];
    ended dramatiq.ended[];
begin
    expired := array(
        select message_id from dramatiq.queue
        where state = 'consumed' and lease_expires_at < statement_timestamp()
        for update skip locked
    );
    if cardinality(expired) > 0 then
        select array_agg(row(group_id, dramatiq.group_callbacks(message))::dramatiq.ended) into ended
        from dramatiq.queue
        where message_id = any(expired) and not group_left and group_id is not null
            and (cancel_requested or lost + 1 >= max_lost);
        delete from dramatiq.queue where message_id = any(expired) and cancel_requested;
        update dramatiq.queue
        set lost = lost + 1, lease_token = null, lease_expires_at = null,
            state = case when lost + 1 >= max_lost then 'rejected' else 'queued' end::dramatiq.state,
            mtime = now(),
            group_left = group_left or lost + 1 >= max_lost,
            code = case when lost + 1 >= max_lost then 'crashed' else code end,
            error = case when lost + 1 >= max_lost
                then format('%s workers were lost while they ran this message.', lost + 1) else error end
        where message_id = any(expired);
        perform dramatiq.leave_groups(ended, null);
        perform dramatiq.wake(null, cardinality(expired));
    end if;
    delete from dramatiq.queue where state = 'done' and result_ttl < now();
    delete from dramatiq.finished where finished_at < now() - interval '10 minutes';
    delete from dramatiq.claim where claimed_at < now() - interval '1 day';
    delete from dramatiq.counter where expires_at < now();
    delete from dramatiq.waiter where since < now() - interval '10 minutes';
    return cardinality(expired);
end $$;

CREATE FUNCTION dramatiq.release(held_ids uuid[], held_tokens bigint[]) RETURNS void
    LANGUAGE plpgsql
    SET enable_seqscan TO 'off'
    SET enable_hashjoin TO 'off'
    SET enable_mergejoin TO 'off'
    SET plan_cache_mode TO 'force_generic_plan'
    SET jit TO 'off'
    AS $$
declare
    held uuid[];
    ended dramatiq.ended[];
begin
    select array_agg(message_id) into held from (
        select message_id
        from unnest(held_ids, held_tokens) as h (id, token)
        join dramatiq.queue on message_id = id and lease_token = token and state = 'consumed'
        order by message_id for update of queue
    ) as locked;
    with gone as (
        delete from dramatiq.queue where message_id = any(held) and cancel_requested
        returning case when not group_left then group_id end as group_id, message
    )
    select array_agg(row(group_id, dramatiq.group_callbacks(message))::dramatiq.ended) into ended from gone;
    update dramatiq.queue
    set state = 'queued', attempt = attempt - 1, lease_token = null, lease_expires_at = null
    where message_id = any(held);
    perform dramatiq.leave_groups(ended, null);
    perform dramatiq.wake(null, cardinality(held));
end $$;

CREATE FUNCTION dramatiq.requeue(ids uuid[]) RETURNS integer
    LANGUAGE plpgsql
    AS $$
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

CREATE FUNCTION dramatiq.revoke(ids uuid[], groups text[]) RETURNS void
    LANGUAGE sql
    AS $$
    delete from dramatiq.queue where message_id = any(ids);
    delete from dramatiq.message_group where group_id = any(groups);
$$;

CREATE FUNCTION dramatiq.runnable(queues text[], bounds integer[], OUT is_ready boolean, OUT next_due_s double precision) RETURNS record
    LANGUAGE plpgsql
    SET enable_seqscan TO 'off'
    SET plan_cache_mode TO 'force_generic_plan'
    SET jit TO 'off'
    AS $$
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

CREATE FUNCTION dramatiq.store(documents jsonb) RETURNS integer
    LANGUAGE plpgsql
    AS $$
declare
    stored integer;
begin
    insert into dramatiq.queue (message_id, queue_name, state, message, raw_message, priority, available_at, group_id)
    select i, q, 'queued', m::jsonb, decode(r, 'base64'), least(greatest(p, 1), 4),
        coalesce(run_at, statement_timestamp() + make_interval(secs => coalesce(delay, 0)))
            + (row_number() over () - 1) * interval '1 microsecond',
        g
    from jsonb_to_recordset(documents) as new (
        i uuid, q text, p integer, m text, r text, delay double precision, run_at timestamptz, g text
    )
    on conflict (message_id) do nothing;
    get diagnostics stored = row_count;
    return stored;
end $$;

CREATE FUNCTION dramatiq.take_out(batch uuid, ids uuid[], lease interval) RETURNS void
    LANGUAGE plpgsql
    AS $$
begin
    if exists (select from dramatiq.moving where batch_id = batch)
        or exists (select from dramatiq.moved where batch_id = batch) then
        return;
    end if;
    insert into dramatiq.moving (message_id, batch_id, was, expires_at)
    with found as materialized (
        select message_id, state, case when not group_left then group_id end as of_group
        from dramatiq.queue where message_id = any(ids) and state in ('queued', 'rejected')
        order by message_id for update
    ), split as (
        select of_group from found join dramatiq.message_group on group_id = of_group
        group by of_group, remaining having count(*) <> remaining
    )
    select message_id, batch, state, clock_timestamp() + lease from found
    where of_group is null or of_group not in (select of_group from split);
    update dramatiq.queue set state = null
    where message_id in (select message_id from dramatiq.moving where batch_id = batch);
end $$;

CREATE FUNCTION dramatiq.wake(arrived text[], most integer, freed text[] DEFAULT '{}'::text[]) RETURNS void
    LANGUAGE plpgsql
    SET plan_cache_mode TO 'force_generic_plan'
    AS $$
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

CREATE FUNCTION public.count_deliveries() RETURNS trigger
    LANGUAGE plpgsql
    AS $$
begin
    if tg_op = 'INSERT' then
        insert into campaign_counts as c (campaign_id, total, pending, skipped)
        select campaign_id, count(*), count(*) filter (where status = 'pending'),
               count(*) filter (where status = 'skipped')
        from after_rows group by campaign_id order by campaign_id
        on conflict (campaign_id) do update
        set total = c.total + excluded.total, pending = c.pending + excluded.pending,
            skipped = c.skipped + excluded.skipped;
        return null;
    end if;
    with change as (
        select campaign_id,
               sum(weight) filter (where status = 'pending') as pending,
               sum(weight) filter (where status in ('sent', 'delivered', 'read')) as sent,
               sum(weight) filter (where status in ('delivered', 'read')) as delivered,
               sum(weight) filter (where status = 'read') as read,
               sum(weight) filter (where status = 'failed') as failed,
               sum(weight) filter (where status = 'skipped') as skipped,
               sum(weight) filter (where status = 'cancelled') as cancelled,
               sum(weight) filter (where status = 'unknown') as unknown
        from (select campaign_id, status, 1 as weight from after_rows
              union all
              select campaign_id, status, -1 from before_rows) as rows
        where status not in ('released', 'sending')
        group by campaign_id
    ), locked as (
        -- In one order, so that two batches that touch the same campaigns cannot wait for each other.
        select change.* from campaign_counts c join change using (campaign_id)
        order by c.campaign_id for no key update of c
    )
    update campaign_counts c
    set pending = c.pending + coalesce(l.pending, 0), sent = c.sent + coalesce(l.sent, 0),
        delivered = c.delivered + coalesce(l.delivered, 0), read = c.read + coalesce(l.read, 0),
        failed = c.failed + coalesce(l.failed, 0), skipped = c.skipped + coalesce(l.skipped, 0),
        cancelled = c.cancelled + coalesce(l.cancelled, 0), unknown = c.unknown + coalesce(l.unknown, 0)
    from locked l where c.campaign_id = l.campaign_id;
    return null;
end $$;

CREATE TABLE dramatiq.claim (
    request_id text NOT NULL,
    token bigint NOT NULL,
    claimed_at timestamp with time zone DEFAULT now() NOT NULL
);

ALTER TABLE dramatiq.claim ALTER COLUMN token ADD GENERATED ALWAYS AS IDENTITY (
    SEQUENCE NAME dramatiq.claim_token_seq
    START WITH 1
    INCREMENT BY 1
    NO MINVALUE
    NO MAXVALUE
    CACHE 1
);

CREATE TABLE dramatiq.counter (
    key text NOT NULL,
    value bigint NOT NULL,
    expires_at timestamp with time zone NOT NULL
)
WITH (fillfactor='50');

CREATE TABLE dramatiq.finished (
    token bigint NOT NULL,
    message_ids uuid[] NOT NULL,
    finished_at timestamp with time zone DEFAULT now() NOT NULL
);

CREATE TABLE dramatiq.identity (
    id uuid DEFAULT gen_random_uuid() NOT NULL
);

CREATE TABLE dramatiq.message_group (
    group_id text NOT NULL,
    remaining integer NOT NULL
);

CREATE TABLE dramatiq.moved (
    batch_id uuid NOT NULL,
    moved_at timestamp with time zone DEFAULT now() NOT NULL
);

CREATE TABLE dramatiq.moving (
    message_id uuid NOT NULL,
    batch_id uuid NOT NULL,
    was dramatiq.state NOT NULL,
    expires_at timestamp with time zone NOT NULL
);

CREATE TABLE dramatiq.paused_queue (
    queue_name text NOT NULL
);

CREATE TABLE dramatiq.queue (
    message_id uuid NOT NULL,
    queue_name text DEFAULT 'default'::text NOT NULL,
    state dramatiq.state,
    mtime timestamp with time zone DEFAULT now(),
    message jsonb,
    result jsonb,
    result_ttl timestamp with time zone,
    available_at timestamp with time zone DEFAULT clock_timestamp() NOT NULL,
    lease_expires_at timestamp with time zone,
    lease_token bigint,
    attempt integer DEFAULT 0 NOT NULL,
    lost integer DEFAULT 0 NOT NULL,
    priority smallint DEFAULT 3 NOT NULL,
    cancel_requested boolean DEFAULT false NOT NULL,
    group_left boolean DEFAULT false NOT NULL,
    group_id text,
    code text,
    error text,
    raw_message bytea,
    raw_result bytea,
    CONSTRAINT queue_priority_check CHECK (((priority >= 1) AND (priority <= 4)))
)
WITH (autovacuum_vacuum_scale_factor='0.02', autovacuum_vacuum_threshold='5000', autovacuum_vacuum_cost_delay='0', autovacuum_vacuum_insert_scale_factor='0.2', autovacuum_analyze_scale_factor='0.2');

CREATE TABLE dramatiq.rate_limit (
    key text NOT NULL,
    next_slot double precision NOT NULL
)
WITH (fillfactor='50');

CREATE UNLOGGED TABLE dramatiq.waiter (
    worker_id uuid NOT NULL,
    is_waiting boolean NOT NULL,
    since timestamp with time zone NOT NULL,
    queues text[],
    blocked text[] NOT NULL
)
WITH (fillfactor='50');

CREATE TABLE public.broker_moves (
    batch_id uuid NOT NULL,
    source text NOT NULL,
    target text NOT NULL,
    payload bytea NOT NULL,
    messages integer NOT NULL,
    is_taken boolean DEFAULT false NOT NULL,
    created_at timestamp with time zone DEFAULT clock_timestamp() NOT NULL
);

CREATE TABLE public.campaign_counts (
    campaign_id uuid NOT NULL,
    total bigint DEFAULT 0 NOT NULL,
    pending bigint DEFAULT 0 NOT NULL,
    sent bigint DEFAULT 0 NOT NULL,
    delivered bigint DEFAULT 0 NOT NULL,
    read bigint DEFAULT 0 NOT NULL,
    failed bigint DEFAULT 0 NOT NULL,
    skipped bigint DEFAULT 0 NOT NULL,
    cancelled bigint DEFAULT 0 NOT NULL,
    unknown bigint DEFAULT 0 NOT NULL,
    CONSTRAINT campaign_counts_cancelled_check CHECK ((cancelled >= 0)),
    CONSTRAINT campaign_counts_delivered_check CHECK ((delivered >= 0)),
    CONSTRAINT campaign_counts_failed_check CHECK ((failed >= 0)),
    CONSTRAINT campaign_counts_pending_check CHECK ((pending >= 0)),
    CONSTRAINT campaign_counts_read_check CHECK ((read >= 0)),
    CONSTRAINT campaign_counts_sent_check CHECK ((sent >= 0)),
    CONSTRAINT campaign_counts_skipped_check CHECK ((skipped >= 0)),
    CONSTRAINT campaign_counts_unknown_check CHECK ((unknown >= 0))
);

CREATE TABLE public.campaigns (
    id uuid NOT NULL,
    organization_id uuid NOT NULL,
    sender_id uuid NOT NULL,
    name text NOT NULL,
    status text DEFAULT 'draft'::text NOT NULL,
    content jsonb NOT NULL,
    variables text[] DEFAULT '{}'::text[] NOT NULL,
    defaults jsonb DEFAULT '{}'::jsonb NOT NULL,
    audience jsonb NOT NULL,
    rate numeric,
    max_attempts integer DEFAULT 3 NOT NULL,
    unknown_policy text DEFAULT 'hold'::text NOT NULL,
    max_in_flight integer DEFAULT 1000 NOT NULL,
    planned_at timestamp with time zone,
    plan_cursor uuid,
    dispatched_at timestamp with time zone,
    started_at timestamp with time zone,
    finished_at timestamp with time zone,
    version integer DEFAULT 1 NOT NULL,
    created_at timestamp with time zone DEFAULT now() NOT NULL,
    status_reason text,
    paused_at timestamp with time zone,
    CONSTRAINT campaigns_check CHECK (((finished_at IS NOT NULL) = (status = ANY (ARRAY['completed'::text, 'partial_success'::text, 'partial_failure'::text, 'failed'::text, 'cancelled'::text])))),
    CONSTRAINT campaigns_max_attempts_check CHECK (((max_attempts >= 1) AND (max_attempts <= 20))),
    CONSTRAINT campaigns_max_in_flight_check CHECK (((max_in_flight >= 1) AND (max_in_flight <= 5000))),
    CONSTRAINT campaigns_name_check CHECK ((name <> ''::text)),
    CONSTRAINT campaigns_rate_check CHECK ((rate > (0)::numeric)),
    CONSTRAINT campaigns_status_check CHECK ((status = ANY (ARRAY['draft'::text, 'scheduled'::text, 'running'::text, 'paused'::text, 'cancelling'::text, 'completed'::text, 'partial_success'::text, 'partial_failure'::text, 'failed'::text, 'cancelled'::text]))),
    CONSTRAINT campaigns_unknown_policy_check CHECK ((unknown_policy = ANY (ARRAY['hold'::text, 'resend'::text])))
);

CREATE TABLE public.contacts (
    id uuid NOT NULL,
    organization_id uuid NOT NULL,
    phone text,
    email text,
    name text DEFAULT ''::text NOT NULL,
    tags text[] DEFAULT '{}'::text[] NOT NULL,
    custom jsonb DEFAULT '{}'::jsonb NOT NULL,
    import_id uuid,
    created_at timestamp with time zone DEFAULT now() NOT NULL,
    updated_at timestamp with time zone DEFAULT now() NOT NULL,
    CONSTRAINT contacts_check CHECK (((phone IS NOT NULL) OR (email IS NOT NULL))),
    CONSTRAINT contacts_custom_check CHECK ((jsonb_typeof(custom) = 'object'::text)),
    CONSTRAINT contacts_phone_check CHECK ((phone ~ '^\+[1-9][0-9]{6,14}$'::text))
);

CREATE TABLE public.deliveries (
    id uuid NOT NULL,
    campaign_id uuid NOT NULL,
    organization_id uuid NOT NULL,
    contact_id uuid NOT NULL,
    recipient text DEFAULT ''::text NOT NULL,
    parameters jsonb DEFAULT '{}'::jsonb NOT NULL,
    status text DEFAULT 'pending'::text NOT NULL,
    attempt integer DEFAULT 0 NOT NULL,
    tries integer DEFAULT 0 NOT NULL,
    due_at timestamp with time zone DEFAULT '-infinity'::timestamp with time zone NOT NULL,
    slot_at timestamp with time zone,
    claimed_at timestamp with time zone,
    provider_message_id text,
    code text,
    error text,
    settled_at timestamp with time zone,
    created_at timestamp with time zone DEFAULT now() NOT NULL,
    CONSTRAINT deliveries_check CHECK (((status = ANY (ARRAY['failed'::text, 'skipped'::text])) <= (code IS NOT NULL))),
    CONSTRAINT deliveries_check1 CHECK (((status = ANY (ARRAY['sent'::text, 'delivered'::text, 'read'::text])) <= (provider_message_id IS NOT NULL))),
    CONSTRAINT deliveries_status_check CHECK ((status = ANY (ARRAY['pending'::text, 'released'::text, 'sending'::text, 'sent'::text, 'delivered'::text, 'read'::text, 'failed'::text, 'skipped'::text, 'cancelled'::text, 'unknown'::text])))
);

CREATE TABLE public.fallback_sends (
    id uuid NOT NULL,
    message_ids text[] NOT NULL,
    groups text[] NOT NULL,
    payload bytea NOT NULL,
    state text DEFAULT 'doubtful'::text NOT NULL,
    sent_at timestamp with time zone DEFAULT clock_timestamp() NOT NULL,
    CONSTRAINT fallback_sends_state_check CHECK ((state = ANY (ARRAY['doubtful'::text, 'second'::text, 'voided'::text])))
);

CREATE TABLE public.import_chunks (
    import_id uuid NOT NULL,
    number integer NOT NULL,
    bytes bytea NOT NULL,
    CONSTRAINT import_chunks_number_check CHECK ((number >= 0))
);
ALTER TABLE ONLY public.import_chunks ALTER COLUMN bytes SET STORAGE EXTERNAL;

CREATE TABLE public.import_errors (
    import_id uuid NOT NULL,
    line bigint NOT NULL,
    column_name text NOT NULL,
    value text NOT NULL,
    reason text NOT NULL,
    CONSTRAINT import_errors_line_check CHECK ((line > 0))
);

CREATE TABLE public.imports (
    id uuid NOT NULL,
    organization_id uuid NOT NULL,
    file_name text NOT NULL,
    source_chunks integer NOT NULL,
    source_lines bigint NOT NULL,
    options jsonb DEFAULT '{}'::jsonb NOT NULL,
    records_done bigint DEFAULT 0 NOT NULL,
    rows_total bigint DEFAULT 0 NOT NULL,
    inserted bigint DEFAULT 0 NOT NULL,
    updated bigint DEFAULT 0 NOT NULL,
    duplicate bigint DEFAULT 0 NOT NULL,
    invalid bigint DEFAULT 0 NOT NULL,
    errors_by_reason jsonb DEFAULT '{}'::jsonb NOT NULL,
    created_at timestamp with time zone DEFAULT now() NOT NULL,
    completed_at timestamp with time zone
);

CREATE TABLE public.inbound_events (
    id uuid NOT NULL,
    digest bytea NOT NULL,
    body bytea NOT NULL,
    received_at timestamp with time zone DEFAULT clock_timestamp() NOT NULL,
    processed_at timestamp with time zone,
    reasons text[] DEFAULT '{}'::text[] NOT NULL,
    CONSTRAINT inbound_events_digest_check CHECK ((length(digest) = 32))
);

CREATE TABLE public.inbound_messages (
    provider_message_id text NOT NULL,
    number text NOT NULL,
    sender text NOT NULL,
    kind text NOT NULL,
    body jsonb NOT NULL,
    sent_at timestamp with time zone NOT NULL,
    received_at timestamp with time zone DEFAULT clock_timestamp() NOT NULL
);

CREATE TABLE public.job_logs (
    id uuid NOT NULL,
    job_id uuid NOT NULL,
    type text NOT NULL,
    organization_id uuid NOT NULL,
    user_id uuid,
    status text NOT NULL,
    result jsonb,
    error_details jsonb,
    started_at timestamp with time zone,
    completed_at timestamp with time zone,
    created_at timestamp with time zone DEFAULT now() NOT NULL,
    CONSTRAINT job_logs_status_check CHECK ((status = ANY (ARRAY['started'::text, 'completed'::text, 'partial_success'::text, 'partial_failure'::text, 'failed'::text, 'retried'::text, 'cancelled'::text])))
);

CREATE TABLE public.jobs (
    id uuid NOT NULL,
    organization_id uuid NOT NULL,
    user_id uuid,
    type text NOT NULL,
    queue text NOT NULL,
    data jsonb DEFAULT '{}'::jsonb NOT NULL,
    status text DEFAULT 'queued'::text NOT NULL,
    progress_current bigint DEFAULT 0 NOT NULL,
    progress_total bigint,
    attempts integer DEFAULT 0 NOT NULL,
    max_attempts integer DEFAULT 1 NOT NULL,
    result jsonb,
    error_details jsonb,
    idempotency_key text,
    created_at timestamp with time zone DEFAULT now() NOT NULL,
    started_at timestamp with time zone,
    completed_at timestamp with time zone,
    CONSTRAINT jobs_check CHECK (((completed_at IS NOT NULL) = (status = ANY (ARRAY['completed'::text, 'partial_success'::text, 'partial_failure'::text, 'failed'::text, 'cancelled'::text])))),
    CONSTRAINT jobs_progress_current_check CHECK ((progress_current >= 0)),
    CONSTRAINT jobs_progress_total_check CHECK ((progress_total >= 0)),
    CONSTRAINT jobs_status_check CHECK ((status = ANY (ARRAY['queued'::text, 'running'::text, 'completed'::text, 'partial_success'::text, 'partial_failure'::text, 'failed'::text, 'cancelled'::text])))
);

CREATE TABLE public.organizations (
    id uuid NOT NULL,
    name text NOT NULL,
    created_at timestamp with time zone DEFAULT now() NOT NULL,
    CONSTRAINT organizations_name_check CHECK ((name <> ''::text))
);

CREATE TABLE public.outbox (
    id bigint NOT NULL,
    kind text NOT NULL,
    payload bytea NOT NULL,
    messages integer NOT NULL,
    created_at timestamp with time zone DEFAULT clock_timestamp() NOT NULL,
    CONSTRAINT outbox_kind_check CHECK ((kind = ANY (ARRAY['enqueue'::text, 'finish'::text, 'call'::text])))
)
WITH (autovacuum_vacuum_scale_factor='0.0', autovacuum_vacuum_threshold='1000');

ALTER TABLE public.outbox ALTER COLUMN id ADD GENERATED ALWAYS AS IDENTITY (
    SEQUENCE NAME public.outbox_id_seq
    START WITH 1
    INCREMENT BY 1
    NO MINVALUE
    NO MAXVALUE
    CACHE 1
);

CREATE TABLE public.senders (
    id uuid NOT NULL,
    organization_id uuid NOT NULL,
    channel text DEFAULT 'whatsapp'::text NOT NULL,
    provider_id text NOT NULL,
    name text DEFAULT ''::text NOT NULL,
    rate numeric DEFAULT 12.5,
    created_at timestamp with time zone DEFAULT now() NOT NULL,
    slot_epoch integer DEFAULT 0 NOT NULL,
    CONSTRAINT senders_channel_check CHECK ((channel = 'whatsapp'::text)),
    CONSTRAINT senders_provider_id_check CHECK ((provider_id <> ''::text)),
    CONSTRAINT senders_rate_check CHECK ((rate > (0)::numeric))
);

CREATE TABLE public.templates (
    id uuid NOT NULL,
    organization_id uuid NOT NULL,
    name text NOT NULL,
    channel text DEFAULT 'whatsapp'::text NOT NULL,
    content jsonb NOT NULL,
    defaults jsonb DEFAULT '{}'::jsonb NOT NULL,
    created_at timestamp with time zone DEFAULT now() NOT NULL,
    updated_at timestamp with time zone DEFAULT now() NOT NULL,
    CONSTRAINT templates_channel_check CHECK ((channel = 'whatsapp'::text)),
    CONSTRAINT templates_content_check CHECK ((jsonb_typeof(content) = 'object'::text)),
    CONSTRAINT templates_defaults_check CHECK ((jsonb_typeof(defaults) = 'object'::text)),
    CONSTRAINT templates_name_check CHECK ((name <> ''::text))
);

CREATE TABLE public.users (
    id uuid NOT NULL,
    organization_id uuid NOT NULL,
    email text NOT NULL,
    role text NOT NULL,
    created_at timestamp with time zone DEFAULT now() NOT NULL,
    CONSTRAINT users_email_check CHECK ((email ~~ '%_@_%'::text)),
    CONSTRAINT users_role_check CHECK ((role = ANY (ARRAY['platform_admin'::text, 'company_admin'::text, 'agent'::text, 'viewer'::text])))
);

ALTER TABLE ONLY dramatiq.claim
    ADD CONSTRAINT claim_pkey PRIMARY KEY (request_id);

ALTER TABLE ONLY dramatiq.counter
    ADD CONSTRAINT counter_pkey PRIMARY KEY (key);

ALTER TABLE ONLY dramatiq.message_group
    ADD CONSTRAINT message_group_pkey PRIMARY KEY (group_id);

ALTER TABLE ONLY dramatiq.moved
    ADD CONSTRAINT moved_pkey PRIMARY KEY (batch_id);

ALTER TABLE ONLY dramatiq.moving
    ADD CONSTRAINT moving_pkey PRIMARY KEY (message_id);

ALTER TABLE ONLY dramatiq.paused_queue
    ADD CONSTRAINT paused_queue_pkey PRIMARY KEY (queue_name);

ALTER TABLE ONLY dramatiq.queue
    ADD CONSTRAINT queue_pkey PRIMARY KEY (message_id);

ALTER TABLE ONLY dramatiq.rate_limit
    ADD CONSTRAINT rate_limit_pkey PRIMARY KEY (key);

ALTER TABLE ONLY dramatiq.waiter
    ADD CONSTRAINT waiter_pkey PRIMARY KEY (worker_id);

ALTER TABLE ONLY public.broker_moves
    ADD CONSTRAINT broker_moves_pkey PRIMARY KEY (batch_id);

ALTER TABLE ONLY public.campaign_counts
    ADD CONSTRAINT campaign_counts_pkey PRIMARY KEY (campaign_id);

ALTER TABLE ONLY public.campaigns
    ADD CONSTRAINT campaigns_pkey PRIMARY KEY (id);

ALTER TABLE ONLY public.contacts
    ADD CONSTRAINT contacts_pkey PRIMARY KEY (id);

ALTER TABLE ONLY public.deliveries
    ADD CONSTRAINT deliveries_campaign_id_contact_id_key UNIQUE (campaign_id, contact_id);

ALTER TABLE ONLY public.deliveries
    ADD CONSTRAINT deliveries_pkey PRIMARY KEY (id);

ALTER TABLE ONLY public.fallback_sends
    ADD CONSTRAINT fallback_sends_pkey PRIMARY KEY (id);

ALTER TABLE ONLY public.import_chunks
    ADD CONSTRAINT import_chunks_pkey PRIMARY KEY (import_id, number);

ALTER TABLE ONLY public.import_errors
    ADD CONSTRAINT import_errors_pkey PRIMARY KEY (import_id, line, column_name);

ALTER TABLE ONLY public.imports
    ADD CONSTRAINT imports_pkey PRIMARY KEY (id);

ALTER TABLE ONLY public.inbound_events
    ADD CONSTRAINT inbound_events_digest_key UNIQUE (digest);

ALTER TABLE ONLY public.inbound_events
    ADD CONSTRAINT inbound_events_pkey PRIMARY KEY (id);

ALTER TABLE ONLY public.inbound_messages
    ADD CONSTRAINT inbound_messages_pkey PRIMARY KEY (provider_message_id);

ALTER TABLE ONLY public.job_logs
    ADD CONSTRAINT job_logs_pkey PRIMARY KEY (id);

ALTER TABLE ONLY public.jobs
    ADD CONSTRAINT jobs_organization_id_idempotency_key_key UNIQUE (organization_id, idempotency_key);

ALTER TABLE ONLY public.jobs
    ADD CONSTRAINT jobs_pkey PRIMARY KEY (id);

ALTER TABLE ONLY public.organizations
    ADD CONSTRAINT organizations_pkey PRIMARY KEY (id);

ALTER TABLE ONLY public.outbox
    ADD CONSTRAINT outbox_pkey PRIMARY KEY (id);

ALTER TABLE ONLY public.senders
    ADD CONSTRAINT senders_organization_id_channel_provider_id_key UNIQUE (organization_id, channel, provider_id);

ALTER TABLE ONLY public.senders
    ADD CONSTRAINT senders_pkey PRIMARY KEY (id);

ALTER TABLE ONLY public.templates
    ADD CONSTRAINT templates_organization_id_channel_name_key UNIQUE (organization_id, channel, name);

ALTER TABLE ONLY public.templates
    ADD CONSTRAINT templates_pkey PRIMARY KEY (id);

ALTER TABLE ONLY public.users
    ADD CONSTRAINT users_organization_id_email_key UNIQUE (organization_id, email);

ALTER TABLE ONLY public.users
    ADD CONSTRAINT users_pkey PRIMARY KEY (id);

CREATE INDEX claim_age ON dramatiq.claim USING btree (claimed_at);

CREATE INDEX counter_age ON dramatiq.counter USING btree (expires_at);

CREATE INDEX finished_age ON dramatiq.finished USING btree (finished_at);

CREATE INDEX finished_token ON dramatiq.finished USING btree (token);

CREATE INDEX moving_batch ON dramatiq.moving USING btree (batch_id);

CREATE INDEX queue_dead ON dramatiq.queue USING btree (queue_name, mtime) WHERE (state = 'rejected'::dramatiq.state);

CREATE INDEX queue_leased ON dramatiq.queue USING btree (queue_name, lease_expires_at) WHERE (state = 'consumed'::dramatiq.state);

CREATE INDEX queue_results ON dramatiq.queue USING btree (result_ttl) WHERE (state = 'done'::dramatiq.state);

CREATE INDEX queue_state_mtime ON dramatiq.queue USING btree (state, mtime) WHERE (state = ANY (ARRAY['done'::dramatiq.state, 'rejected'::dramatiq.state]));

CREATE INDEX queue_waiting ON dramatiq.queue USING btree (queue_name, priority, available_at) WHERE (state = 'queued'::dramatiq.state);

CREATE INDEX campaigns_of_organization ON public.campaigns USING btree (organization_id, created_at DESC);

CREATE INDEX campaigns_of_sender ON public.campaigns USING btree (sender_id) WHERE (status = 'running'::text);

CREATE INDEX campaigns_running ON public.campaigns USING btree (id) WHERE (status = ANY (ARRAY['running'::text, 'scheduled'::text, 'cancelling'::text]));

CREATE UNIQUE INDEX contacts_email ON public.contacts USING btree (organization_id, lower(email)) WHERE (phone IS NULL);

CREATE INDEX contacts_import ON public.contacts USING btree (import_id) WHERE (import_id IS NOT NULL);

CREATE INDEX contacts_page ON public.contacts USING btree (organization_id, id);

CREATE UNIQUE INDEX contacts_phone ON public.contacts USING btree (organization_id, phone) WHERE (phone IS NOT NULL);

CREATE INDEX contacts_tags ON public.contacts USING gin (tags);

CREATE INDEX deliveries_by_recipient ON public.deliveries USING btree (organization_id, recipient, created_at DESC);

CREATE INDEX deliveries_failures ON public.deliveries USING btree (campaign_id, code) WHERE (status = ANY (ARRAY['failed'::text, 'skipped'::text, 'unknown'::text]));

CREATE INDEX deliveries_in_flight ON public.deliveries USING btree (campaign_id, status) WHERE (status = ANY (ARRAY['released'::text, 'sending'::text]));

CREATE INDEX deliveries_pending ON public.deliveries USING btree (campaign_id, due_at, id) WHERE (status = 'pending'::text);

CREATE INDEX deliveries_unknown ON public.deliveries USING btree (campaign_id, claimed_at) WHERE (status = 'unknown'::text);

CREATE INDEX fallback_sends_open ON public.fallback_sends USING btree (sent_at) WHERE (state <> 'voided'::text);

CREATE INDEX inbound_events_age ON public.inbound_events USING btree (processed_at) WHERE (processed_at IS NOT NULL);

CREATE INDEX inbound_events_open ON public.inbound_events USING btree (id) WHERE (processed_at IS NULL);

CREATE INDEX inbound_messages_of_contact ON public.inbound_messages USING btree (number, sender, sent_at);

CREATE INDEX job_logs_age ON public.job_logs USING btree (created_at);

CREATE INDEX job_logs_failures ON public.job_logs USING btree (organization_id, created_at DESC) WHERE (status = 'failed'::text);

CREATE INDEX job_logs_of_job ON public.job_logs USING btree (job_id, created_at);

CREATE INDEX jobs_open ON public.jobs USING btree (queue, status) WHERE (completed_at IS NULL);

CREATE INDEX jobs_recent ON public.jobs USING btree (organization_id, created_at DESC);

CREATE TRIGGER adopt_1_again BEFORE UPDATE OF queue_name ON dramatiq.queue FOR EACH ROW WHEN ((new.state = 'queued'::dramatiq.state)) EXECUTE FUNCTION dramatiq.adopt_again();

CREATE TRIGGER adopt_2_eta BEFORE INSERT OR UPDATE OF queue_name ON dramatiq.queue FOR EACH ROW WHEN (((new.queue_name ~~ '%.DQ'::text) AND (((new.message -> 'options'::text) ->> 'eta'::text) ~ '^[0-9]+$'::text))) EXECUTE FUNCTION dramatiq.adopt_eta();

CREATE TRIGGER adopt_3_delayed BEFORE INSERT OR UPDATE OF queue_name ON dramatiq.queue FOR EACH ROW WHEN ((new.queue_name ~~ '%.DQ'::text)) EXECUTE FUNCTION dramatiq.adopt_delayed();

CREATE TRIGGER deliveries_inserted AFTER INSERT ON public.deliveries REFERENCING NEW TABLE AS after_rows FOR EACH STATEMENT EXECUTE FUNCTION public.count_deliveries();

CREATE TRIGGER deliveries_updated AFTER UPDATE ON public.deliveries REFERENCING OLD TABLE AS before_rows NEW TABLE AS after_rows FOR EACH STATEMENT EXECUTE FUNCTION public.count_deliveries();

ALTER TABLE ONLY public.campaign_counts
    ADD CONSTRAINT campaign_counts_campaign_id_fkey FOREIGN KEY (campaign_id) REFERENCES public.campaigns(id) ON DELETE CASCADE;

ALTER TABLE ONLY public.campaigns
    ADD CONSTRAINT campaigns_id_fkey FOREIGN KEY (id) REFERENCES public.jobs(id);

ALTER TABLE ONLY public.campaigns
    ADD CONSTRAINT campaigns_organization_id_fkey FOREIGN KEY (organization_id) REFERENCES public.organizations(id);

ALTER TABLE ONLY public.campaigns
    ADD CONSTRAINT campaigns_sender_id_fkey FOREIGN KEY (sender_id) REFERENCES public.senders(id);

ALTER TABLE ONLY public.contacts
    ADD CONSTRAINT contacts_organization_id_fkey FOREIGN KEY (organization_id) REFERENCES public.organizations(id);

ALTER TABLE ONLY public.deliveries
    ADD CONSTRAINT deliveries_campaign_id_fkey FOREIGN KEY (campaign_id) REFERENCES public.campaigns(id);

ALTER TABLE ONLY public.import_chunks
    ADD CONSTRAINT import_chunks_import_id_fkey FOREIGN KEY (import_id) REFERENCES public.imports(id) ON DELETE CASCADE;

ALTER TABLE ONLY public.import_errors
    ADD CONSTRAINT import_errors_import_id_fkey FOREIGN KEY (import_id) REFERENCES public.imports(id) ON DELETE CASCADE;

ALTER TABLE ONLY public.imports
    ADD CONSTRAINT imports_id_fkey FOREIGN KEY (id) REFERENCES public.jobs(id);

ALTER TABLE ONLY public.imports
    ADD CONSTRAINT imports_organization_id_fkey FOREIGN KEY (organization_id) REFERENCES public.organizations(id);

ALTER TABLE ONLY public.job_logs
    ADD CONSTRAINT job_logs_organization_id_fkey FOREIGN KEY (organization_id) REFERENCES public.organizations(id);

ALTER TABLE ONLY public.job_logs
    ADD CONSTRAINT job_logs_user_id_fkey FOREIGN KEY (user_id) REFERENCES public.users(id);

ALTER TABLE ONLY public.jobs
    ADD CONSTRAINT jobs_organization_id_fkey FOREIGN KEY (organization_id) REFERENCES public.organizations(id);

ALTER TABLE ONLY public.jobs
    ADD CONSTRAINT jobs_user_id_fkey FOREIGN KEY (user_id) REFERENCES public.users(id);

ALTER TABLE ONLY public.senders
    ADD CONSTRAINT senders_organization_id_fkey FOREIGN KEY (organization_id) REFERENCES public.organizations(id);

ALTER TABLE ONLY public.templates
    ADD CONSTRAINT templates_organization_id_fkey FOREIGN KEY (organization_id) REFERENCES public.organizations(id);

ALTER TABLE ONLY public.users
    ADD CONSTRAINT users_organization_id_fkey FOREIGN KEY (organization_id) REFERENCES public.organizations(id);
