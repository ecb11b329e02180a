-- What lets two message stores work as one, docs/fallback.md: messages of transactions, of outages, and on the move.

-- What the broker's store has to be told, written in the transaction that it belongs to. Rows go when they are told.
create table outbox (
    id bigint generated always as identity primary key,
    kind text not null check (kind in ('enqueue', 'finish', 'call')),
    -- JSON of brokers/packed.py. Delays in it count from `created_at`.
    payload bytea not null,
    messages integer not null,
    created_at timestamptz not null default clock_timestamp()
) with (autovacuum_vacuum_scale_factor = 0.0, autovacuum_vacuum_threshold = 1000);

-- Sends that the first store did not confirm: it may have them or not.
create table fallback_sends (
    id uuid primary key,
    message_ids text[] not null,
    groups text[] not null,
    payload bytea not null,
    -- doubtful: not decided; second: they run from the second store, copies in the first one must not; voided: as
    -- before, and the first store has confirmed that it has none.
    state text not null default 'doubtful' check (state in ('doubtful', 'second', 'voided')),
    sent_at timestamptz not null default clock_timestamp()
);
create index fallback_sends_open on fallback_sends (sent_at) where state <> 'voided';

-- Messages between two stores while `fanfare broker move` runs, see brokers/move.py.
create table broker_moves (
    batch_id uuid primary key,
    source text not null,
    target text not null,
    payload bytea not null,
    messages integer not null,
    -- The source has confirmed that it no longer has them.
    is_taken boolean not null default false,
    created_at timestamptz not null default clock_timestamp()
);

-- The Postgres engine's part.

create table dramatiq.identity (id uuid not null default gen_random_uuid());
insert into dramatiq.identity default values;

-- Messages that a mover took out; in dramatiq.queue they have no state meanwhile. They come back when it falls silent.
create table dramatiq.moving (
    message_id uuid primary key,
    batch_id uuid not null,
    was dramatiq.state not null,
    expires_at timestamptz not null
);
create index moving_batch on dramatiq.moving (batch_id);

-- Batches that were moved out of or into this store, so that repeating a step changes nothing.
create table dramatiq.moved (
    batch_id uuid primary key,
    moved_at timestamptz not null default now()
);

-- Sets waiting, delayed and dead messages aside for `batch`; of groups only those whose members are all among `ids`.
create function dramatiq.take_out(batch uuid, ids uuid[], lease interval) returns void language plpgsql as $$
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

-- Removes what was set aside for `batch`. True when it is gone, now or since an earlier call.
create function dramatiq.forget(batch uuid) returns boolean language plpgsql as $$
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

-- Brings back what was set aside by movers that fell silent. Returns how many messages.
create function dramatiq.put_back() returns integer language plpgsql as $$
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

-- Stores messages with all that they had in another store: arrays of equal length. Returns how many were new.
create function dramatiq.put_in(
    batch uuid, ids uuid[], queues text[], priorities integer[], bodies text[], raws bytea[], dues timestamptz[],
    deads timestamptz[], attempts integer[], losts integer[], codes text[], errors text[], groups text[], lefts boolean[]
) returns integer language plpgsql as $$
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

-- Removes messages, whatever their state, without their groups counting them, and these groups.
create function dramatiq.revoke(ids uuid[], groups text[]) returns void language sql as $$
    delete from dramatiq.queue where message_id = any(ids);
    delete from dramatiq.message_group where group_id = any(groups);
$$;
