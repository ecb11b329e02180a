-- What becomes of leased messages: steps of the Postgres engine.
--
-- Locks are taken in one order everywhere, so that steps cannot block each other for good: messages by id (or skipped
-- where another step holds them), then groups by id, then new messages.

-- A message whose end must be counted by its group, with the callbacks that its body names.
create type dramatiq.ended as (group_id text, callbacks jsonb);

-- Stores messages given as JSON objects: i id, q queue, p priority, m body as text, r body in base 64 where m is null,
-- delay in seconds, run_at, g group.
create function dramatiq.store(documents jsonb) returns integer language plpgsql as $$
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

-- Counts the members in `ended` as gone. The last one of a group stores its callbacks: those of `callbacks` (group id
-- to documents of `store`), or else those that the member's body names. Returns how many messages were stored.
create function dramatiq.leave_groups(ended dramatiq.ended[], callbacks jsonb) returns integer language plpgsql as $$
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

create function dramatiq.group_callbacks(message jsonb) returns jsonb language sql immutable as $$
    select case when jsonb_typeof(message #> '{options,group_completion_callbacks}') = 'array'
        then message #> '{options,group_completion_callbacks}' end
$$;

-- Applies finishes whose token is still valid. `ids`, `tokens` and `groups` (null: none) are messages that are simply
-- done; `rich` are all others, as JSON objects: i id, t token, d disposition, delay in seconds, run_at, code, error,
-- result, raw (result in base 64), ttl of the result in seconds, g group. `follow` maps message ids to documents of
-- `store`, `callbacks` groups to the same. Returns those that were not applied.
create function dramatiq.finish(
    ids uuid[], tokens bigint[], groups text[], rich jsonb, follow jsonb, callbacks jsonb,
    out refused_ids uuid[], out refused_tokens bigint[]
) language plpgsql
set enable_seqscan = off set enable_hashjoin = off set enable_mergejoin = off set plan_cache_mode = force_generic_plan
set jit = off as $$
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

-- The finishes that are more than done. `again`: how many wait once more.
create function dramatiq.finish_rich(
    rich jsonb, out ids uuid[], out tokens bigint[], out ended dramatiq.ended[], out freed text[], out again integer
) language plpgsql as $$
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

-- Hands messages back to the head of their queues; the attempts are not counted.
create function dramatiq.release(held_ids uuid[], held_tokens bigint[]) returns void language plpgsql
set enable_seqscan = off set enable_hashjoin = off set enable_mergejoin = off set plan_cache_mode = force_generic_plan
set jit = off as $$
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

-- Renews leases. Returns the messages that are no longer ours, and those asked to stop. A message that another step
-- holds at this moment is neither: it is about to be finished.
create function dramatiq.heartbeat(
    held_ids uuid[], held_tokens bigint[], lease interval, out lost uuid[], out cancelled uuid[]
) language plpgsql
set enable_seqscan = off set enable_hashjoin = off set enable_mergejoin = off set plan_cache_mode = force_generic_plan
set jit = off as $$
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

-- Takes expired leases back: to their queues, or to the dead letters after `max_lost` of them. Returns how many; also
-- removes what was only remembered for a while.
create function dramatiq.reap(max_lost integer) returns integer language plpgsql
set enable_seqscan = off set jit = off as $$
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
