-- The ledger: organisations and the people in them, contacts, campaigns and what became of each recipient, jobs.

create table organizations (
    id uuid primary key,
    name text not null check (name <> ''),
    created_at timestamptz not null default now()
);

create table users (
    id uuid primary key,
    organization_id uuid not null references organizations,
    email text not null check (email like '%_@_%'),
    role text not null check (role in ('platform_admin', 'company_admin', 'agent', 'viewer')),
    created_at timestamptz not null default now(),
    unique (organization_id, email)
);

create table jobs (
    id uuid primary key,
    organization_id uuid not null references organizations,
    user_id uuid references users,
    type text not null,
    queue text not null,
    data jsonb not null default '{}',
    status text not null default 'queued' check (
        status in ('queued', 'running', 'completed', 'partial_success', 'partial_failure', 'failed', 'cancelled')
    ),
    progress_current bigint not null default 0 check (progress_current >= 0),
    progress_total bigint check (progress_total >= 0),
    attempts integer not null default 0,
    max_attempts integer not null default 1,
    result jsonb,
    error_details jsonb,
    idempotency_key text,
    created_at timestamptz not null default now(),
    started_at timestamptz,
    completed_at timestamptz,
    unique (organization_id, idempotency_key),
    check ((completed_at is not null)
        = (status in ('completed', 'partial_success', 'partial_failure', 'failed', 'cancelled')))
);
create index jobs_recent on jobs (organization_id, created_at desc);
create index jobs_open on jobs (queue, status) where completed_at is null;

create table job_logs (
    id uuid primary key,
    job_id uuid not null,
    type text not null,
    organization_id uuid not null references organizations,
    user_id uuid references users,
    status text not null check (
        status in ('started', 'completed', 'partial_success', 'partial_failure', 'failed', 'retried', 'cancelled')
    ),
    result jsonb,
    error_details jsonb,
    started_at timestamptz,
    completed_at timestamptz,
    created_at timestamptz not null default now()
);
create index job_logs_of_job on job_logs (job_id, created_at);
create index job_logs_failures on job_logs (organization_id, created_at desc) where status = 'failed';
create index job_logs_age on job_logs (created_at);

create table contacts (
    id uuid primary key,
    organization_id uuid not null references organizations,
    phone text check (phone ~ '^\+[1-9][0-9]{6,14}$'),
    email text,
    name text not null default '',
    tags text[] not null default '{}',
    custom jsonb not null default '{}' check (jsonb_typeof(custom) = 'object'),
    -- The import that inserted or last updated it: so a run that goes on after a crash knows its own rows.
    import_id uuid,
    created_at timestamptz not null default now(),
    updated_at timestamptz not null default now(),
    check (phone is not null or email is not null)
);
-- A contact is its phone number; one without a phone is its e-mail address, in any case of letters.
create unique index contacts_phone on contacts (organization_id, phone) where phone is not null;
create unique index contacts_email on contacts (organization_id, lower(email)) where phone is null;
create index contacts_page on contacts (organization_id, id);
create index contacts_tags on contacts using gin (tags);
create index contacts_import on contacts (import_id) where import_id is not null;

create table imports (
    id uuid primary key references jobs,
    organization_id uuid not null references organizations,
    file_name text not null,
    -- The file's size in rows of import_chunks and in line breaks: about the number of records.
    source_chunks integer not null,
    source_lines bigint not null,
    options jsonb not null default '{}',
    -- A run that was killed goes on after this many records of the file.
    records_done bigint not null default 0,
    rows_total bigint not null default 0,
    inserted bigint not null default 0,
    updated bigint not null default 0,
    duplicate bigint not null default 0,
    invalid bigint not null default 0,
    errors_by_reason jsonb not null default '{}',
    created_at timestamptz not null default now(),
    completed_at timestamptz
);

-- The uploaded file, until its import is complete: workers run on other machines than the web process.
create table import_chunks (
    import_id uuid not null references imports on delete cascade,
    number integer not null check (number >= 0),
    bytes bytea not null,
    primary key (import_id, number)
);
alter table import_chunks alter column bytes set storage external;

create table import_errors (
    import_id uuid not null references imports on delete cascade,
    line bigint not null check (line > 0),
    column_name text not null,
    value text not null,
    reason text not null,
    primary key (import_id, line, column_name)
);

-- A number that messages are sent from, with the limit its provider allows.
create table senders (
    id uuid primary key,
    organization_id uuid not null references organizations,
    channel text not null default 'whatsapp' check (channel in ('whatsapp')),
    provider_id text not null check (provider_id <> ''),
    name text not null default '',
    -- Messages a second; null for no limit.
    rate numeric default 12.5 check (rate > 0),
    created_at timestamptz not null default now(),
    unique (organization_id, channel, provider_id)
);

create table templates (
    id uuid primary key,
    organization_id uuid not null references organizations,
    name text not null check (name <> ''),
    channel text not null default 'whatsapp' check (channel in ('whatsapp')),
    -- {"kind": "text", "body": "Hi {{name}}"} or {"kind": "template", "name": ..., "language": ..., "parameters": [...]}
    content jsonb not null check (jsonb_typeof(content) = 'object'),
    -- Variable name to the value used where a contact has none.
    defaults jsonb not null default '{}' check (jsonb_typeof(defaults) = 'object'),
    created_at timestamptz not null default now(),
    updated_at timestamptz not null default now(),
    unique (organization_id, channel, name)
);

create table campaigns (
    id uuid primary key references jobs,
    organization_id uuid not null references organizations,
    sender_id uuid not null references senders,
    name text not null check (name <> ''),
    status text not null default 'draft' check (
        status in ('draft', 'scheduled', 'running', 'paused', 'completed', 'partial_success', 'partial_failure',
                   'failed', 'cancelled')
    ),
    -- The template as it was when the campaign was accepted; later edits do not reach it.
    content jsonb not null,
    variables text[] not null default '{}',
    defaults jsonb not null default '{}',
    -- {"kind": "all"} | {"kind": "tag", "tag": ...} | {"kind": "import", "import_id": ...} | {"kind": "contacts", "ids": [...]},
    -- each with an optional "limit".
    audience jsonb not null,
    rate numeric check (rate > 0),
    max_attempts integer not null default 3 check (max_attempts between 1 and 20),
    unknown_policy text not null default 'hold' check (unknown_policy in ('hold', 'resend')),
    max_in_flight integer not null default 1000 check (max_in_flight between 1 and 5000),
    planned_at timestamptz,
    plan_cursor uuid,
    dispatched_at timestamptz,
    started_at timestamptz,
    finished_at timestamptz,
    version integer not null default 1,
    created_at timestamptz not null default now(),
    check ((finished_at is not null)
        = (status in ('completed', 'partial_success', 'partial_failure', 'failed', 'cancelled')))
);
create index campaigns_of_organization on campaigns (organization_id, created_at desc);
create index campaigns_running on campaigns (id) where status in ('running', 'scheduled');

create table deliveries (
    id uuid primary key,
    campaign_id uuid not null references campaigns,
    organization_id uuid not null,
    contact_id uuid not null,
    recipient text not null default '',
    -- Values of the template's variables, frozen when the campaign was planned.
    parameters jsonb not null default '{}',
    status text not null default 'pending' check (
        status in ('pending', 'released', 'sending', 'sent', 'delivered', 'read', 'failed', 'skipped', 'cancelled',
                   'unknown')
    ),
    -- Counts provider calls that cost a try; also the fence: an answer of an older attempt changes nothing.
    attempt integer not null default 0,
    tries integer not null default 0,
    due_at timestamptz not null default '-infinity',
    slot_at timestamptz,
    claimed_at timestamptz,
    provider_message_id text,
    code text,
    error text,
    settled_at timestamptz,
    created_at timestamptz not null default now(),
    unique (campaign_id, contact_id),
    check ((status in ('failed', 'skipped')) <= (code is not null)),
    check ((status in ('sent', 'delivered', 'read')) <= (provider_message_id is not null))
);
create index deliveries_pending on deliveries (campaign_id, due_at, id) where status = 'pending';
create index deliveries_in_flight on deliveries (campaign_id, status) where status in ('released', 'sending');
create index deliveries_unknown on deliveries (campaign_id, claimed_at) where status = 'unknown';
create index deliveries_by_recipient on deliveries (organization_id, recipient, created_at desc);
create index deliveries_failures on deliveries (campaign_id, code) where status in ('failed', 'skipped', 'unknown');

-- Recipients per status, kept by the trigger below in the same transaction as the rows, so that no one ever counts rows.
create table campaign_counts (
    campaign_id uuid primary key references campaigns on delete cascade,
    total bigint not null default 0,
    pending bigint not null default 0 check (pending >= 0),
    sent bigint not null default 0 check (sent >= 0),
    delivered bigint not null default 0 check (delivered >= 0),
    read bigint not null default 0 check (read >= 0),
    failed bigint not null default 0 check (failed >= 0),
    skipped bigint not null default 0 check (skipped >= 0),
    cancelled bigint not null default 0 check (cancelled >= 0),
    unknown bigint not null default 0 check (unknown >= 0)
);

create function count_deliveries() returns trigger language plpgsql as $$
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

create trigger deliveries_inserted after insert on deliveries
    referencing new table as after_rows for each statement execute function count_deliveries();
create trigger deliveries_updated after update on deliveries
    referencing old table as before_rows new table as after_rows for each statement execute function count_deliveries();
