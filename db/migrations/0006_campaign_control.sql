-- Steering a campaign while it runs.

-- A campaign that is being cancelled waits for the sends that are on the wire.
alter table campaigns
    drop constraint campaigns_status_check,
    add constraint campaigns_status_check check (
        status in ('draft', 'scheduled', 'running', 'paused', 'cancelling', 'completed', 'partial_success',
                   'partial_failure', 'failed', 'cancelled')
    ),
    -- Why it is paused or cancelled, and what to do: for people.
    add column status_reason text,
    add column paused_at timestamptz;

drop index campaigns_running;
create index campaigns_running on campaigns (id) where status in ('running', 'scheduled', 'cancelling');
create index campaigns_of_sender on campaigns (sender_id) where status = 'running';

-- Part of the limiter's keys: another number forgets the slots that were reserved ahead and given up.
alter table senders add column slot_epoch integer not null default 0;
