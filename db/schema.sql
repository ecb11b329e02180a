-- The sum of db/migrations, written by `python -m db.schema`: to read, not to edit or to run.

CREATE SCHEMA dramatiq;

CREATE TYPE dramatiq.state AS ENUM (
    'queued',
    'consumed',
    'rejected',
    'done'
);

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

CREATE TABLE dramatiq.queue (
    message_id uuid NOT NULL,
    queue_name text DEFAULT 'default'::text NOT NULL,
    state dramatiq.state,
    mtime timestamp with time zone DEFAULT now(),
    message jsonb,
    result jsonb,
    result_ttl timestamp with time zone
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
    CONSTRAINT campaigns_check CHECK (((finished_at IS NOT NULL) = (status = ANY (ARRAY['completed'::text, 'partial_success'::text, 'partial_failure'::text, 'failed'::text, 'cancelled'::text])))),
    CONSTRAINT campaigns_max_attempts_check CHECK (((max_attempts >= 1) AND (max_attempts <= 20))),
    CONSTRAINT campaigns_max_in_flight_check CHECK (((max_in_flight >= 1) AND (max_in_flight <= 5000))),
    CONSTRAINT campaigns_name_check CHECK ((name <> ''::text)),
    CONSTRAINT campaigns_rate_check CHECK ((rate > (0)::numeric)),
    CONSTRAINT campaigns_status_check CHECK ((status = ANY (ARRAY['draft'::text, 'scheduled'::text, 'running'::text, 'paused'::text, 'completed'::text, 'partial_success'::text, 'partial_failure'::text, 'failed'::text, 'cancelled'::text]))),
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

CREATE TABLE public.senders (
    id uuid NOT NULL,
    organization_id uuid NOT NULL,
    channel text DEFAULT 'whatsapp'::text NOT NULL,
    provider_id text NOT NULL,
    name text DEFAULT ''::text NOT NULL,
    rate numeric DEFAULT 12.5 NOT NULL,
    created_at timestamp with time zone DEFAULT now() NOT NULL,
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

ALTER TABLE ONLY dramatiq.queue
    ADD CONSTRAINT queue_pkey PRIMARY KEY (message_id);

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

ALTER TABLE ONLY public.import_chunks
    ADD CONSTRAINT import_chunks_pkey PRIMARY KEY (import_id, number);

ALTER TABLE ONLY public.import_errors
    ADD CONSTRAINT import_errors_pkey PRIMARY KEY (import_id, line, column_name);

ALTER TABLE ONLY public.imports
    ADD CONSTRAINT imports_pkey PRIMARY KEY (id);

ALTER TABLE ONLY public.job_logs
    ADD CONSTRAINT job_logs_pkey PRIMARY KEY (id);

ALTER TABLE ONLY public.jobs
    ADD CONSTRAINT jobs_organization_id_idempotency_key_key UNIQUE (organization_id, idempotency_key);

ALTER TABLE ONLY public.jobs
    ADD CONSTRAINT jobs_pkey PRIMARY KEY (id);

ALTER TABLE ONLY public.organizations
    ADD CONSTRAINT organizations_pkey PRIMARY KEY (id);

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

CREATE INDEX queue_state_mtime ON dramatiq.queue USING btree (state, mtime);

CREATE INDEX campaigns_of_organization ON public.campaigns USING btree (organization_id, created_at DESC);

CREATE INDEX campaigns_running ON public.campaigns USING btree (id) WHERE (status = ANY (ARRAY['running'::text, 'scheduled'::text]));

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

CREATE INDEX job_logs_age ON public.job_logs USING btree (created_at);

CREATE INDEX job_logs_failures ON public.job_logs USING btree (organization_id, created_at DESC) WHERE (status = 'failed'::text);

CREATE INDEX job_logs_of_job ON public.job_logs USING btree (job_id, created_at);

CREATE INDEX jobs_open ON public.jobs USING btree (queue, status) WHERE (completed_at IS NULL);

CREATE INDEX jobs_recent ON public.jobs USING btree (organization_id, created_at DESC);

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
