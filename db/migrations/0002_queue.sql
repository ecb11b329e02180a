-- The Postgres engine's own tables. `dramatiq.queue` has the columns of dramatiq-pg 0.12, so that its producers, its
-- results and its command line work on it; the columns after `result_ttl` are ours and have defaults for its sake.
create schema dramatiq;

create type dramatiq.state as enum ('queued', 'consumed', 'rejected', 'done');

create table dramatiq.queue (
    message_id uuid primary key,
    queue_name text not null default 'default',
    state dramatiq.state,
    mtime timestamptz default now(),
    message jsonb,
    result jsonb,
    result_ttl timestamptz
);
create index queue_state_mtime on dramatiq.queue (state, mtime);
