-- All tables. {s} is the quoted name of the schema. Run in one transaction with functions.sql, retention/*.sql and the
-- version's row, so that a half-made schema can't be.
--
-- Who writes what: appenders (any process) write stream, event, outbox, sent_mark, inbox_mark. The one active sequencer
-- writes round, feed, feed_key, outbox_number. The background folds marks and empties partitions; emptying is not
-- transactional for those who look with an older snapshot.

create table {s}.meta(
    key text primary key,
    value text not null
);

-- One row a stream, locked (in the order of names) before a seq is drawn: in a stream seq and version have one order.
create table {s}.stream(
    id bigint generated always as identity primary key,
    name text collate "C" not null unique,
    version bigint not null
) with (fillfactor = 50);

-- Events and outbox rows draw from one sequence: the order in which a transaction wrote them.
create sequence {s}.seq cache 1;

-- Never updated on the hot path. `xid` is the top-level transaction's, also inside a savepoint.
create table {s}.event(
    seq bigint primary key default nextval('{s}.seq'),
    xid xid8 not null default pg_current_xact_id(),
    id uuid not null unique,
    stream bigint not null,
    version bigint not null,
    type text collate "C" not null,
    shape bigint not null,
    at bigint not null,
    envelope bytea not null,
    tags text collate "C" not null,          -- joined by line feeds, as hashed
    key text collate "C",
    payload bytea not null,
    content bytea not null,                  -- 32 bytes: what the chain links (models/event-store/src/chain)
    keys bigint[] not null,                  -- hashes of its type and of each tag
    unique (stream, version)
);
create index event_xid on {s}.event(xid, seq);

-- Messages to be published, all to outbox_topic. slot: outbox_turn's when the row was written.
create table {s}.outbox(
    slot smallint not null,
    seq bigint not null default nextval('{s}.seq'),
    xid xid8 not null default pg_current_xact_id(),
    at bigint not null,
    envelope bytea not null,
    key bytea not null,                      -- a text that may hold U+0000
    headers text not null,                   -- JSON: [[name, value], ...]
    payload bytea not null
) partition by list (slot);
create table {s}.outbox_0 partition of {s}.outbox for values in (0);
create table {s}.outbox_1 partition of {s}.outbox for values in (1);
create table {s}.outbox_2 partition of {s}.outbox for values in (2);
create index outbox_xid on {s}.outbox(xid, seq);
create unique index outbox_seq on {s}.outbox(seq, slot);

-- The one topic, inserted with the first row, and by which transaction.
create table {s}.outbox_topic(
    one boolean primary key default true check (one),
    topic text not null,
    xid xid8 not null default pg_current_xact_id()
);

-- Rows up to pruned_to are removed as far as readers are concerned; their partitions are emptied later.
create table {s}.outbox_pruned(
    one boolean primary key default true check (one),
    pruned_to bigint not null default 0
) with (fillfactor = 10);
insert into {s}.outbox_pruned default values;

-- Opened epochs, the first left out. Whoever opens one locks outbox_pruned's row and cuts sent_range; so does whoever
-- folds marks.
create table {s}.outbox_epoch(
    epoch bigint primary key,
    after bigint not null
);

create table {s}.checkpoint(
    consumer text collate "C" primary key,
    position bigint not null
) with (fillfactor = 50);

create table {s}.lease(
    name text collate "C" primary key,
    epoch bigint not null,
    holder bytea not null,                   -- a text that may hold U+0000
    until bigint not null
) with (fillfactor = 50);

-- Keys of rows are texts that may hold U+0000; bytes sort as the contract says, whatever the database's collation.
create table {s}.view_row(
    view text collate "C" not null,
    key bytea not null,
    value bytea not null,
    primary key (view, key)
);
create table {s}.view_index(
    view text collate "C" not null,
    key bytea not null,
    name text collate "C" not null,
    value bytea not null,                    -- IndexValue::to_ordered_bytes
    primary key (view, key, name)
);
create unique index view_index_value on {s}.view_index(view, name, value, key);

-- Transactions that lost a race take turns by locking this table, before they take a snapshot.
create table {s}.turn(one boolean);

-- What the sequencer writes -------------------------------------------------------------------------------------------
-- Nothing here is updated or deleted on the hot path: an old snapshot that somebody holds open keeps every old version of
-- an updated row, and each look-up would walk over them all.

-- The sequencer's whole memory: one row a round, the newest counts; the first is made with the schema. Two sequencers
-- that both believe in their lease insert the same number, so that only one of them commits. Old partitions are
-- truncated.
create table {s}.round(
    number bigint not null,
    slot smallint not null,                  -- number / 4096 % 3
    epoch bigint not null,                   -- grows by one with every new holder
    holder text not null,
    until timestamptz not null,              -- the lease, by the server's clock
    at timestamptz not null,                 -- the heartbeat, every 250 ms at least
    position bigint not null,                -- the feed's end after this round, and its hash
    hash bytea not null,
    outbox bigint not null,                  -- the outbox's last number after this round
    settled pg_snapshot not null,            -- all that it sees has its place
    target pg_snapshot,                      -- a large difference under way: what it sees gets its place next,
    done bigint not null default 0,          -- as far as its seq is greater than this
    restored boolean not null default false, -- the difference is what a restore left without a place
    origin text not null,                    -- where the transaction ids mean what they say; '' : nobody looked yet
    primary key (number, slot)
) partition by list (slot);
create table {s}.round_0 partition of {s}.round for values in (0);
create table {s}.round_1 partition of {s}.round for values in (1);
create table {s}.round_2 partition of {s}.round for values in (2);

-- Its age is how far behind a replica is, or a sequencer that stands.
create view {s}.heartbeat as select at, position, outbox from {s}.round order by number desc limit 1;

create table {s}.feed(
    position bigint primary key,
    seq bigint not null unique,
    hash bytea not null
);

-- By what an event is found: one row for each of event.keys, with the position of its feed row.
create table {s}.feed_key(
    key bigint not null,
    position bigint not null,
    primary key (key, position)
);

-- The numbers of outbox rows. In the same slot as the row: both are truncated together.
create table {s}.outbox_number(
    number bigint not null,
    slot smallint not null,
    seq bigint not null,
    position bigint not null,
    primary key (number, slot),
    unique (seq, slot)
) partition by list (slot);
create table {s}.outbox_number_0 partition of {s}.outbox_number for values in (0);
create table {s}.outbox_number_1 partition of {s}.outbox_number for values in (1);
create table {s}.outbox_number_2 partition of {s}.outbox_number for values in (2);

-- What rotates --------------------------------------------------------------------------------------------------------
-- Rows are inserted, then folded, then their partition is truncated.

-- The slot that new outbox rows go to. Moved rarely.
create table {s}.outbox_turn(
    one boolean primary key default true check (one),
    slot smallint not null default 0,
    since timestamptz not null default now()
);
insert into {s}.outbox_turn default values;

-- Marks of sent rows, as handed in: (first, last) are dense numbers; epoch is the outbox's present one at that time. A
-- mark reaches no further than the beginning of any epoch opened later. slot = first / 65536 % 3.
create table {s}.sent_mark(
    first bigint not null,
    last bigint not null,
    epoch bigint not null,
    slot smallint not null
) partition by list (slot);
create table {s}.sent_mark_0 partition of {s}.sent_mark for values in (0);
create table {s}.sent_mark_1 partition of {s}.sent_mark for values in (1);
create table {s}.sent_mark_2 partition of {s}.sent_mark for values in (2);
create index sent_mark_last on {s}.sent_mark(last);
-- The same, folded: disjoint, never touching within an epoch.
create table {s}.sent_range(
    epoch bigint not null,
    first bigint not null,
    last bigint not null,
    primary key (epoch, first)
);

-- Whose messages a consumer has met, and what is folded of them (models/event-store/src/inbox.rs).
create table {s}.inbox_lane(
    id bigint generated always as identity primary key,
    consumer text collate "C" not null,
    producer text collate "C" not null,
    epoch bigint not null,
    partition bigint not null,
    watermark bigint not null default 0,
    holes bigint not null default 0,
    unique (consumer, producer, epoch, partition)
) with (fillfactor = 50);
create table {s}.inbox_hole(
    lane bigint not null,
    first bigint not null,
    last bigint not null,
    primary key (lane, first)
);
create table {s}.inbox_recent(
    lane bigint not null,
    slot smallint not null,                  -- of the ring: seq % 1024
    seq bigint not null,
    content bytea not null,
    primary key (lane, slot)
) with (fillfactor = 50);
-- Marks as made. The slot depends on the number alone (seq / 4096 % 4), so that the unique index sees the same message
-- twice whenever it comes.
create table {s}.inbox_mark(
    slot smallint not null,
    lane bigint not null,
    seq bigint not null,
    content bytea not null,
    primary key (lane, seq, slot)
) partition by list (slot);
create table {s}.inbox_mark_0 partition of {s}.inbox_mark for values in (0);
create table {s}.inbox_mark_1 partition of {s}.inbox_mark for values in (1);
create table {s}.inbox_mark_2 partition of {s}.inbox_mark for values in (2);
create table {s}.inbox_mark_3 partition of {s}.inbox_mark for values in (3);
