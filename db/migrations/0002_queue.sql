-- The Postgres engine's own tables and steps. `dramatiq.queue` has the columns of dramatiq-pg 0.12, so that its
-- producers, its results and its command line work on it; the columns after `result_ttl` are ours and have defaults
-- for its sake. The functions are the steps of `brokers/engine.py`: one round trip and one commit each, planned once
-- per session, also behind a transaction pooler. docs/adr/0006-postgres-engine.md tells why.
create schema dramatiq;

create type dramatiq.state as enum ('queued', 'consumed', 'rejected', 'done');

-- queued: waiting or delayed; consumed: leased; rejected: dead letter, since mtime; done: kept for its result only.
create table dramatiq.queue (
    message_id uuid primary key,
    queue_name text not null default 'default',
    state dramatiq.state,
    mtime timestamptz default now(),
    message jsonb,
    result jsonb,
    result_ttl timestamptz,
    -- Due then; also the order of arrival: messages stored together are a microsecond apart.
    available_at timestamptz not null default clock_timestamp(),
    lease_expires_at timestamptz,
    lease_token bigint,
    attempt integer not null default 0,
    lost integer not null default 0,
    priority smallint not null default 3 check (priority between 1 and 4),
    cancel_requested boolean not null default false,
    -- Its end was counted by its group already.
    group_left boolean not null default false,
    group_id text,
    code text,
    error text,
    -- What jsonb cannot hold: bodies and results with \u0000, or no JSON at all.
    raw_message bytea,
    raw_result bytea
) with (
    -- Every message leaves one or two dead rows behind; without this they pile up between claims and the backlog.
    autovacuum_vacuum_scale_factor = 0.02,
    autovacuum_vacuum_threshold = 5000,
    autovacuum_vacuum_cost_delay = 0,
    autovacuum_vacuum_insert_scale_factor = 0.2,
    autovacuum_analyze_scale_factor = 0.2
);
-- A claim reads one run of this index per queue and priority, from its head to what is due now.
create index queue_waiting on dramatiq.queue (queue_name, priority, available_at) where state = 'queued';
create index queue_leased on dramatiq.queue (queue_name, lease_expires_at) where state = 'consumed';
create index queue_dead on dramatiq.queue (queue_name, mtime) where state = 'rejected';
create index queue_results on dramatiq.queue (result_ttl) where state = 'done';
-- For `dramatiq-pg purge`.
create index queue_state_mtime on dramatiq.queue (state, mtime) where state in ('done', 'rejected');

create table dramatiq.paused_queue (queue_name text primary key);

create table dramatiq.message_group (
    group_id text primary key,
    remaining integer not null
);

-- A claim by its request, so that a repeated request finds what it leased. Its token fences the messages.
create table dramatiq.claim (
    request_id text primary key,
    token bigint not null generated always as identity,
    claimed_at timestamptz not null default now()
);
create index claim_age on dramatiq.claim (claimed_at);

-- What was finished lately, so that a repeated finish is known as done. One row per claim and batch.
create table dramatiq.finished (
    token bigint not null,
    message_ids uuid[] not null,
    finished_at timestamptz not null default now()
);
create index finished_token on dramatiq.finished (token);
create index finished_age on dramatiq.finished (finished_at);

-- Processes that have nothing to do. Whoever stores messages wakes as many as needed; without any, nothing is notified.
create unlogged table dramatiq.waiter (
    worker_id uuid primary key,
    is_waiting boolean not null,
    since timestamptz not null,
    -- What it waits for; null: messages of any queue.
    queues text[],
    -- Those of them with a bound on their leases.
    blocked text[] not null
) with (fillfactor = 50);

-- The time of each limit's next slot, in seconds since 2026 (a double has nanoseconds there).
create table dramatiq.rate_limit (
    key text primary key,
    next_slot double precision not null
) with (fillfactor = 50);

-- Counters of dramatiq's own rate limiters and barriers.
create table dramatiq.counter (
    key text primary key,
    value bigint not null,
    expires_at timestamptz not null
) with (fillfactor = 50);
create index counter_age on dramatiq.counter (expires_at);

-- dramatiq-pg marks a delayed message by its queue's name and an option; here it is an ordinary row with its time.
create function dramatiq.adopt_delayed() returns trigger language plpgsql as $$
begin
    new.queue_name := left(new.queue_name, -3);
    new.message := jsonb_set(new.message, '{queue_name}', to_jsonb(new.queue_name)) #- '{options,eta}';
    return new;
end $$;

create function dramatiq.adopt_eta() returns trigger language plpgsql as $$
begin
    new.available_at := to_timestamp((new.message -> 'options' ->> 'eta')::double precision / 1000);
    return new;
end $$;

-- Stock producers store again what they retry: such a row begins anew.
create function dramatiq.adopt_again() returns trigger language plpgsql as $$
begin
    new.lease_token := null;
    new.lease_expires_at := null;
    new.available_at := clock_timestamp();
    return new;
end $$;

-- Triggers fire in the order of their names.
create trigger adopt_1_again before update of queue_name on dramatiq.queue
    for each row when (new.state = 'queued') execute function dramatiq.adopt_again();
create trigger adopt_2_eta before insert or update of queue_name on dramatiq.queue
    for each row when (new.queue_name like '%.DQ' and new.message -> 'options' ->> 'eta' ~ '^[0-9]+$')
    execute function dramatiq.adopt_eta();
create trigger adopt_3_delayed before insert or update of queue_name on dramatiq.queue
    for each row when (new.queue_name like '%.DQ') execute function dramatiq.adopt_delayed();
