-- Is a number folded: up to the watermark and in no hole?
create function {s}.inbox_folded(of_lane bigint, of_watermark bigint, of_seq bigint) returns boolean
language sql stable as $$
    select of_seq <= of_watermark and not exists (
        select from {s}.inbox_hole h where h.lane = of_lane and h.first <= of_seq and h.last >= of_seq)
$$;

-- Was a message handled, folded or not?
create function {s}.inbox_seen(of_lane bigint, of_watermark bigint, of_seq bigint) returns boolean
language sql stable as $$
    select {s}.inbox_folded(of_lane, of_watermark, of_seq)
        or exists (select from {s}.inbox_mark m where m.lane = of_lane and m.seq = of_seq)
$$;

-- Marks a message as handled, and says whether it was before, in one round trip. What it decides is what the contract's
-- inbox module decides (models/event-store/src/inbox.rs), of what is folded and what is not yet.
--
-- 'first' | 'repeated' | 'altered' | 'busy' (it would make more ranges of missing messages than are kept). It raises only
-- 40001, above READ COMMITTED, when this transaction's snapshot is older than what was folded: run it again.
create function {s}.inbox_mark(
    of_consumer text, of_producer text, of_epoch bigint, of_partition bigint, of_seq bigint, of_content bytea
) returns text language plpgsql as $$
#variable_conflict use_column
declare
    known record;
    top bigint;
    below boolean;
    above boolean;
    bound bigint;
    rows bigint;
    inserted boolean;
begin
    -- One statement, so that marks and what they were folded into are of one moment.
    loop
        select l.id, l.watermark, l.holes,
            -- It is folded: up to the watermark and in no hole.
            of_seq <= l.watermark and not exists (
                select from {s}.inbox_hole h
                where h.lane = l.id and h.first <= of_seq and h.last >= of_seq) as folded,
            (select r.content from {s}.inbox_recent r
             where r.lane = l.id and r.slot = of_seq % 1024 and r.seq = of_seq) as remembered,
            (select m.content from {s}.inbox_mark m where m.lane = l.id and m.seq = of_seq) as marked,
            (select m.seq from {s}.inbox_mark m where m.lane = l.id order by m.seq desc limit 1) as newest
        into known
        from {s}.inbox_lane l
        where l.consumer = of_consumer and l.producer = of_producer and l.epoch = of_epoch and l.partition = of_partition;
        exit when found;
        insert into {s}.inbox_lane(consumer, producer, epoch, partition)
            values (of_consumer, of_producer, of_epoch, of_partition) on conflict do nothing;
    end loop;

    -- Above READ COMMITTED the snapshot may be older than a truncation: the marks would be seen neither here nor there.
    if current_setting('transaction_isolation') in ('repeatable read', 'serializable') and exists (
        select from pg_catalog.pg_inherits i join pg_catalog.pg_class c on c.oid = i.inhrelid
        where i.inhparent = '{s}.inbox_mark'::regclass and c.relfilenode <> pg_relation_filenode(c.oid))
    then
        raise exception 'marks were folded since this transaction''s snapshot was taken'
            using errcode = 'serialization_failure';
    end if;

    top := greatest(known.watermark, known.newest);
    if known.folded or known.marked is not null then
        -- Contents are told apart for the latest 1,024 numbers.
        if of_seq + 1024 > top and coalesce(known.marked, known.remembered) <> of_content then
            return 'altered';
        end if;
        return 'repeated';
    end if;

    -- Does it leave one range of missing messages more? In order it does not.
    if of_seq <> top + 1 then
        if of_seq > top then
            below := true;
            above := false;
        else
            -- Are its neighbours missing too?
            below := of_seq > 1 and not {s}.inbox_seen(known.id, known.watermark, of_seq - 1);
            above := not {s}.inbox_seen(known.id, known.watermark, of_seq + 1);
        end if;
        if of_seq > top or (below and above) then
            -- What is not folded makes at most a range each, so this is almost always enough; and what a transaction
            -- has found out once, it keeps up by itself.
            bound := case when split_part(current_setting('mainstay.inbox', true), ' ', 1) = known.id::text
                then split_part(current_setting('mainstay.inbox', true), ' ', 2)::bigint
                else known.holes + (
                    select count(*) from (select from {s}.inbox_mark where lane = known.id limit 10000) bounded) end;
            if bound >= 10000 then
                -- A range ends before a number that was seen: before a mark that none stands in front of, or at the end
                -- of a folded one that is not marked.
                with marks as materialized (
                    select d.seq, lag(d.seq) over (order by d.seq) as before
                    from (select distinct seq from {s}.inbox_mark where lane = known.id) d
                )
                select
                    (select count(*) from marks m
                     where m.seq > known.watermark + 1 and m.before is distinct from m.seq - 1)
                    + (select count(*) from marks m
                       cross join lateral (
                           select h.first, h.last from {s}.inbox_hole h
                           where h.lane = known.id and h.first <= m.seq order by h.first desc limit 1) h
                       where m.seq <= known.watermark and m.seq > h.first and m.seq <= h.last
                         and m.before is distinct from m.seq - 1)
                    + (select count(*) from {s}.inbox_hole h
                       where h.lane = known.id and (
                           select m.seq from {s}.inbox_mark m where m.lane = h.lane and m.seq = h.last limit 1) is null)
                into bound;
                if bound >= 10000 then
                    return 'busy';
                end if;
            end if;
            perform set_config('mainstay.inbox', known.id || ' ' || (bound + 1), true);
        end if;
    end if;

    insert into {s}.inbox_mark(slot, lane, seq, content)
        values (of_seq / 4096 % 4, known.id, of_seq, of_content)
        on conflict do nothing;
    get diagnostics rows = row_count;
    if rows = 1 then
        return 'first';
    end if;
    -- Another transaction marked it meanwhile, and committed.
    select m.content <> of_content into inserted
        from {s}.inbox_mark m where m.lane = known.id and m.seq = of_seq;
    return case when inserted then 'altered' else 'repeated' end;
end
$$;
