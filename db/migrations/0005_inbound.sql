-- What providers tell us: webhooks as they came, until a worker has taken in what they say.

create table inbound_events (
    -- In the order of arrival.
    id uuid primary key,
    -- SHA-256 of the body: the same bytes are one event, however often they come.
    digest bytea not null unique check (length(digest) = 32),
    -- The raw bytes that were signed. They may be no JSON, or JSON that jsonb refuses.
    body bytea not null,
    received_at timestamptz not null default clock_timestamp(),
    processed_at timestamptz,
    -- What in it could not be used, such as status_unknown:deleted; such an event is kept longer.
    reasons text[] not null default '{}'
);
create index inbound_events_open on inbound_events (id) where processed_at is null;
create index inbound_events_age on inbound_events (processed_at) where processed_at is not null;

-- What people wrote to one of our numbers, each message once.
create table inbound_messages (
    provider_message_id text primary key,
    -- The provider's id of our number, as in senders.provider_id.
    number text not null,
    -- Phone number of the person, with its plus.
    sender text not null,
    -- text, image, button, reaction ...
    kind text not null,
    body jsonb not null,
    sent_at timestamptz not null,
    received_at timestamptz not null default clock_timestamp()
);
create index inbound_messages_of_contact on inbound_messages (number, sender, sent_at);
