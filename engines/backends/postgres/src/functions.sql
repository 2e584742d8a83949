-- What is done in one round trip. {s} is the quoted name of the schema.
--
-- Every function here has its planner tied to indexes: a plan is made once for each connection, often while the tables
-- are still empty, and must be right when they are not.

-- The first event after a position that matches a query, or 0 when the only ones have no position yet; none otherwise.
-- items: null for every event, or [{"k": keys to look under, "t": any of these types, "g": all of these tags}, ...].
-- `ends` is the feed's end; when `after` lies past it, nothing was looked at.
--
-- At READ COMMITTED its statements see one after the other what committed meanwhile. That is why what has no position is
-- looked at first: an event can only move from there into the feed, so none is missed between the two looks.
create function {s}.violation(items jsonb, after bigint, out hit bigint, out ends bigint)
language plpgsql
set enable_seqscan to off set enable_hashjoin to off set enable_mergejoin to off set plan_cache_mode to force_generic_plan set jit to off
as $$
declare
    seen pg_snapshot;
    unplaced boolean;
begin
    select r.position, r.settled into ends, seen from {s}.round r order by r.number desc limit 1;
    ends := coalesce(ends, 0);
    seen := coalesce(seen, '3:3:');
    if after > ends then
        return;
    end if;
    unplaced := exists (
        select from (
            select seq, type, tags from {s}.event where xid = any(array(select pg_snapshot_xip(seen)))
            union all
            select seq, type, tags from {s}.event where xid >= pg_snapshot_xmax(seen)
        ) e
        where not exists (select from {s}.feed f where f.seq = e.seq)
          and (items is null or exists (
            select from jsonb_to_recordset(items) x(t text[], g text[])
            where (x.t is null or e.type = any(x.t))
              and (x.g is null or string_to_array(e.tags, E'\n') @> x.g))));
    if items is null then
        select f.position into hit from {s}.feed f where f.position > after order by f.position limit 1;
    else
        select min(first.position) into hit
        from jsonb_to_recordset(items) x(k bigint[], t text[], g text[])
        cross join lateral unnest(x.k) looked(key)
        cross join lateral (
            select k.position from {s}.feed_key k
            join {s}.feed f on f.position = k.position
            join {s}.event e on e.seq = f.seq
            where k.key = looked.key and k.position > after
              and (x.t is null or e.type = any(x.t))
              and (x.g is null or string_to_array(e.tags, E'\n') @> x.g)
            order by k.position limit 1) first;
    end if;
    if hit is null and unplaced then
        hit := 0;
    end if;
end
$$;

-- Appends a batch of acts. What makes it set-wise is how a batch is put together (append/batch.rs): no event id stands
-- twice in it; a stream that an act expects something of, or an act with conditions, has no other act of the batch
-- near it. So each act is judged by what was there before, and the versions of a stream are counted through.
--
-- locks: keys of advisory locks in order, `exclusive` when a condition needs it alone. names: the streams, in order.
-- part_*: for each act and stream its expectation: -1 any, -2 exists, -3 impossible, else the exact version.
-- ev_*: the events in order; `ev_nth` is the event's number among those of its stream in this batch.
-- cond_*: conditions.
--
-- Returns the streams' versions before; the acts with an id that is recorded already; the acts of which a condition
-- does not hold, with the condition and where; the seqs of what was inserted, in order. An act that is in none of them,
-- and whose expectations the versions before allow, is inserted.
create function {s}.append(
    locks bigint[], exclusive boolean[], names text[],
    part_act int[], part_stream int[], part_expected bigint[],
    ev_act int[], ev_stream int[], ev_nth int[], ev_id uuid[], ev_type text[], ev_shape bigint[], ev_at bigint[],
    ev_envelope bytea[], ev_tags text[], ev_key text[], ev_payload bytea[], ev_content bytea[], ev_keys text[],
    cond_act int[], cond_items jsonb[], cond_after bigint[],
    out bases bigint[], out known int[], out failed_act int[], out failed_cond int[], out failed_at bigint[],
    out ends bigint, out seqs bigint[], out xid text
)
language plpgsql
set enable_seqscan to off set enable_hashjoin to off set enable_mergejoin to off set plan_cache_mode to force_generic_plan set jit to off
as $$
#variable_conflict use_variable
declare
    ids bigint[];
    refused int[];
    look record;
begin
    if exclusive is null then
        perform pg_advisory_xact_lock_shared(k) from unnest(locks) k;
    else
        for i in 1 .. coalesce(cardinality(locks), 0) loop
            if exclusive[i] then
                perform pg_advisory_xact_lock(locks[i]);
            else
                perform pg_advisory_xact_lock_shared(locks[i]);
            end if;
        end loop;
    end if;

    loop
        -- The names are distinct and in the order of their bytes, so what is found stands where its name does.
        with locked as materialized (
            select s.id, s.name, s.version from {s}.stream s where s.name = any(names) order by s.name for no key update
        )
        select array_agg(l.id order by l.name), array_agg(l.version order by l.name) into ids, bases from locked l;
        exit when coalesce(cardinality(ids), 0) = cardinality(names);
        insert into {s}.stream(name, version)
            select n.name, 0 from unnest(names) n(name)
            where not exists (select from {s}.stream s where s.name = n.name)
            order by n.name
            on conflict do nothing;
    end loop;

    select array_agg(distinct u.act) into known
        from unnest(ev_id, ev_act) u(id, act) join {s}.event e on e.id = u.id;
    select array_agg(distinct p.act) into refused
        from unnest(part_act, part_stream, part_expected) p(act, stream, expected)
        where not case p.expected when -1 then true when -2 then bases[p.stream] > 0 else bases[p.stream] = p.expected end;
    if known is not null then
        refused := coalesce(refused, '{}') || known;
    end if;
    for i in 1 .. coalesce(cardinality(cond_act), 0) loop
        continue when cond_act[i] = any(refused);
        select v.hit, v.ends into look from {s}.violation(nullif(cond_items[i], 'null'), cond_after[i]) v;
        ends := look.ends;
        if look.hit is not null or cond_after[i] > look.ends then
            failed_act := failed_act || cond_act[i];
            failed_cond := failed_cond || i;
            failed_at := failed_at || look.hit;
            refused := refused || cond_act[i];
        end if;
    end loop;

    if refused is null then
        with inserted as (
            insert into {s}.event
                (id, stream, version, type, shape, at, envelope, tags, key, payload, content, keys)
            select e.id, ids[e.stream], bases[e.stream] + e.nth, e.type, e.shape, e.at, e.envelope, e.tags, e.key,
                e.payload, e.content, e.keys::bigint[]
            from unnest(ev_stream, ev_nth, ev_id, ev_type, ev_shape, ev_at, ev_envelope, ev_tags, ev_key, ev_payload,
                ev_content, ev_keys)
                as e(stream, nth, id, type, shape, at, envelope, tags, key, payload, content, keys)
            returning seq
        )
        select array_agg(i.seq order by i.seq) into seqs from inserted i;
        update {s}.stream s set version = s.version + c.count
            from (select u.stream, count(*) from unnest(ev_stream) u(stream) group by u.stream) c
            where s.id = ids[c.stream];
    elsif cardinality(ev_act) > 0 then
        with inserted as (
            insert into {s}.event
                (id, stream, version, type, shape, at, envelope, tags, key, payload, content, keys)
            select e.id, ids[e.stream], bases[e.stream] + row_number() over (partition by e.stream order by e.nth),
                e.type, e.shape, e.at, e.envelope, e.tags, e.key, e.payload, e.content, e.keys::bigint[]
            from unnest(ev_act, ev_stream, ev_nth, ev_id, ev_type, ev_shape, ev_at, ev_envelope, ev_tags, ev_key,
                ev_payload, ev_content, ev_keys) with ordinality
                as e(act, stream, nth, id, type, shape, at, envelope, tags, key, payload, content, keys, i)
            where not (e.act = any(refused))
            order by e.i
            returning seq
        )
        select array_agg(i.seq order by i.seq) into seqs from inserted i;
        update {s}.stream s set version = s.version + c.count
            from (select u.stream, count(*) from unnest(ev_act, ev_stream) u(act, stream)
                  where not (u.act = any(refused)) group by u.stream) c
            where s.id = ids[c.stream];
    end if;
    xid := pg_current_xact_id()::text;
end
$$;

-- The same for acts that expect nothing of a stream and have no condition, so that nothing of them can be refused: a
-- stream's row is locked and counted up in one step, and nothing is looked for. An id that is recorded already is an
-- error (23505): then the caller asks {s}.append, which finds out which one it is.
--
-- counts: events for each of the names. The rest, and what is returned, as in {s}.append.
create function {s}.append_free(
    locks bigint[], names text[], counts int[],
    ev_stream int[], ev_nth int[], ev_id uuid[], ev_type text[], ev_shape bigint[], ev_at bigint[],
    ev_envelope bytea[], ev_tags text[], ev_key text[], ev_payload bytea[], ev_content bytea[], ev_keys text[],
    out bases bigint[], out seqs bigint[], out xid text
)
language plpgsql
set enable_seqscan to off set enable_hashjoin to off set enable_mergejoin to off set plan_cache_mode to force_generic_plan
as $$
#variable_conflict use_variable
declare
    ids bigint[];
    met bigint[];
begin
    perform pg_advisory_xact_lock_shared(k) from unnest(locks) k;
    -- In the order of the names: the plan can only go from them to the streams.
    with grown as (
        update {s}.stream s set version = s.version + n.count
            from unnest(names, counts) with ordinality n(name, count, i)
            where s.name = n.name
            returning n.i, s.id, s.version - n.count as base
    )
    select array_agg(g.i order by g.i), array_agg(g.id order by g.i), array_agg(g.base order by g.i)
        into met, ids, bases from grown g;
    while coalesce(cardinality(met), 0) < cardinality(names) loop
        insert into {s}.stream(name, version)
            select n.name, 0 from unnest(names) with ordinality n(name, i)
            where n.i <> all(coalesce(met, '{}'))
            order by n.name
            on conflict do nothing;
        with grown as (
            update {s}.stream s set version = s.version + n.count
                from unnest(names, counts) with ordinality n(name, count, i)
                where s.name = n.name and n.i <> all(coalesce(met, '{}'))
                returning n.i, s.id, s.version - n.count as base
        ), g as (
            select u.i, u.id, u.base from unnest(met, ids, bases) u(i, id, base)
            union all
            select g.i, g.id, g.base from grown g
        )
        select array_agg(g.i order by g.i), array_agg(g.id order by g.i), array_agg(g.base order by g.i)
            into met, ids, bases from g;
    end loop;
    with inserted as (
        insert into {s}.event
            (id, stream, version, type, shape, at, envelope, tags, key, payload, content, keys)
        select e.id, ids[e.stream], bases[e.stream] + e.nth, e.type, e.shape, e.at, e.envelope, e.tags, e.key,
            e.payload, e.content, e.keys::bigint[]
        from unnest(ev_stream, ev_nth, ev_id, ev_type, ev_shape, ev_at, ev_envelope, ev_tags, ev_key, ev_payload,
            ev_content, ev_keys)
            as e(stream, nth, id, type, shape, at, envelope, tags, key, payload, content, keys)
        returning seq
    )
    select array_agg(i.seq order by i.seq) into seqs from inserted i;
    xid := pg_current_xact_id()::text;
end
$$;

-- The same inside a transaction that must stay usable: when somebody else records one of the ids at this very moment,
-- nothing is written and `again` is set.
create function {s}.append_inside(
    locks bigint[], exclusive boolean[], names text[],
    part_act int[], part_stream int[], part_expected bigint[],
    ev_act int[], ev_stream int[], ev_nth int[], ev_id uuid[], ev_type text[], ev_shape bigint[], ev_at bigint[],
    ev_envelope bytea[], ev_tags text[], ev_key text[], ev_payload bytea[], ev_content bytea[], ev_keys text[],
    cond_act int[], cond_items jsonb[], cond_after bigint[],
    out bases bigint[], out known int[], out failed_act int[], out failed_cond int[], out failed_at bigint[],
    out ends bigint, out seqs bigint[], out xid text, out again boolean
)
language plpgsql as $$
declare
    at_table text;
begin
    again := false;
    select a.bases, a.known, a.failed_act, a.failed_cond, a.failed_at, a.ends, a.seqs, a.xid
        into bases, known, failed_act, failed_cond, failed_at, ends, seqs, xid
        from {s}.append(locks, exclusive, names, part_act, part_stream, part_expected, ev_act, ev_stream, ev_nth, ev_id,
            ev_type, ev_shape, ev_at, ev_envelope, ev_tags, ev_key, ev_payload, ev_content, ev_keys, cond_act, cond_items,
            cond_after) a;
exception when unique_violation then
    get stacked diagnostics at_table = table_name;
    if at_table <> 'event' then
        raise;
    end if;
    again := true;
end
$$;

-- Records messages, if their topic is the store's, which the first one decides. Returns the store's topic; when it is
-- another one nothing is written.
create function {s}.outbox_add(
    row_topic text, row_at bigint[], row_envelope bytea[], row_key bytea[], row_headers text[], row_payload bytea[],
    out topic text, out seqs bigint[], out xid text
)
language plpgsql as $$
#variable_conflict use_column
begin
    loop
        select o.topic into topic from {s}.outbox_topic o;
        exit when found;
        insert into {s}.outbox_topic(topic) values (row_topic) on conflict do nothing;
    end loop;
    xid := pg_current_xact_id()::text;
    if topic <> row_topic then
        return;
    end if;
    with inserted as (
        insert into {s}.outbox(slot, at, envelope, key, headers, payload)
        select t.slot, r.at, r.envelope, r.key, r.headers, r.payload
        from {s}.outbox_turn t
        cross join unnest(row_at, row_envelope, row_key, row_headers, row_payload) with ordinality
            as r(at, envelope, key, headers, payload, i)
        order by r.i
        returning seq
    )
    select array_agg(i.seq order by i.seq) into seqs from inserted i;
end
$$;

-- Marks runs of numbers as sent, unless `top` is no number that was given. Returns the last number.
create function {s}.outbox_sent(firsts bigint[], lasts bigint[], top bigint) returns bigint
language plpgsql as $$
declare
    ends bigint;
begin
    select r.outbox into ends from {s}.round r order by r.number desc limit 1;
    ends := coalesce(ends, 0);
    if top <= ends then
        insert into {s}.sent_mark(first, last, epoch, slot)
            select m.first, m.last, coalesce((select max(e.epoch) from {s}.outbox_epoch e), 1), m.first / 65536 % 3
            from unnest(firsts, lasts) m(first, last);
    end if;
    return ends;
end
$$;

-- Moves a checkpoint if it stands at `from_position`; returns where it stood, 0 when there was none.
create function {s}.checkpoint_move(of_consumer text, from_position bigint, to_position bigint) returns bigint
language plpgsql as $$
declare
    stood bigint;
begin
    loop
        select c.position into stood from {s}.checkpoint c where c.consumer = of_consumer for update;
        if found then
            if stood = from_position then
                update {s}.checkpoint c set position = to_position where c.consumer = of_consumer;
            end if;
            return stood;
        end if;
        if from_position <> 0 then
            return 0;
        end if;
        insert into {s}.checkpoint(consumer, position) values (of_consumer, to_position) on conflict do nothing;
        if found then
            return 0;
        end if;
    end loop;
end
$$;
