//! The sequencer's statements, for one schema.

use std::sync::Arc;
use std::time::Duration;

use super::spec::Spec;
use crate::schema::Schema;

/// Rounds in one partition before the next one is used; there are three.
pub(crate) const ROUNDS_A_SLOT: u64 = 4_096;

/// Partitions of the rounds.
pub(crate) const ROUND_SLOTS: u64 = 3;

/// In which partition a round stands.
pub(crate) fn slot(number: u64) -> u64 {
    number / ROUNDS_A_SLOT % ROUND_SLOTS
}

/// The channel on which a store's sequencer tells how far it has come: `<position> <outbox number>`.
pub(crate) fn channel(schema: &Schema) -> String {
    format!("mainstay_{}", schema.name())
}

/// Statements with the schema's name put in.
#[derive(Debug, Clone)]
pub(crate) struct Sql {
    /// Begins a round and reads the newest one; simple protocol, several statements.
    pub(crate) see: Arc<str>,
    /// Where this connection's transaction ids mean what they say, apart from the server's name for itself.
    pub(crate) origin: Arc<str>,
    /// $1 ended, $2 from, $3 to, $4 running, $5 at most so many of each kind.
    pub(crate) take: Arc<str>,
    /// $1-$4 as `take`; the least `seq` of the difference.
    pub(crate) least: Arc<str>,
    /// $1-$4 as `take`, $5 after this `seq`, $6 at most so many of each kind, in the order of `seq`.
    pub(crate) part: Arc<str>,
    /// $1 transactions: each with its last event and its last outbox row.
    pub(crate) ends: Arc<str>,
    /// $1 transactions: their outbox rows.
    pub(crate) rows: Arc<str>,
    /// $1-$3 positions, seqs, hashes; $4, $5 keys and positions; $6-$9 numbers, slots, seqs, positions; $10-$23 the round.
    pub(crate) write: Arc<str>,
    /// $1 ids from here on, $2 and these are not this server's; $3 they become this, where the row has its place.
    pub(crate) restore_placed: [Arc<str>; 2],
    /// $1 is added to the ids of rows without a place.
    pub(crate) restore_unplaced: [Arc<str>; 2],
    /// Tells whoever listens, as a hint: the text after this, and a closing quote and bracket, make it a statement.
    pub(crate) tell: Arc<str>,
    /// Does a partition of rounds hold any? One for each.
    pub(crate) holds: [Arc<str>; 3],
    /// Empties a partition of rounds, or gives up soon; simple protocol. One for each.
    pub(crate) empty: [Arc<str>; 3],
}

/// The columns of both kinds: an event has a version, a content and keys; an outbox row a slot.
const EVENT: &str = "seq, xid::text::bigint as xid, version, content, keys, null::smallint as slot";
const ROW: &str = "seq, xid::text::bigint as xid, null::bigint as version, null::bytea as content, \
                   null::bigint[] as keys, slot";

/// Does a transaction belong to the difference?
const BELONGS: &str = "(xid = any($1::text[]::xid8[]) or xid >= $2::text::xid8 and xid < $3::text::xid8 \
                       and xid <> all($4::text[]::xid8[]))";

impl Sql {
    pub(crate) fn new(schema: &Schema, spec: &Spec) -> Self {
        // Plain names need no escaping (Schema::new), and no channel's name is longer than the server keeps.
        let (channel, schema) = (format!("'{}'", channel(schema)), &format!("\"{}\"", schema.name()));
        let text = |sql: String| Arc::<str>::from(sql);
        // Two index scans, and never a look at anything else: what the planner believes of a table that grows all
        // the time is out of date. Without an order here, since with one it might walk the whole table by `seq`.
        let arms = |columns: &str, table: &str| {
            format!(
                "select {columns} from {schema}.{table} where xid = any($1::text[]::xid8[])
                 union all
                 select {columns} from {schema}.{table}
                 where xid >= $2::text::xid8 and xid < $3::text::xid8 and xid <> all($4::text[]::xid8[])"
            )
        };
        let take = format!(
            "(select * from ({}) e limit $5) union all (select * from ({}) o limit $5)",
            arms(EVENT, "event"),
            arms(ROW, "outbox"),
        );
        let least = format!(
            "select min(seq) from (select seq from ({}) e union all select seq from ({}) o) both_kinds",
            arms("seq", "event"),
            arms("seq", "outbox"),
        );
        let in_order = |columns: &str, table: &str| {
            format!(
                "(select {columns} from {schema}.{table} where {BELONGS} and seq > $5 order by seq limit $6)"
            )
        };
        Self {
            see: text(see(schema, spec)),
            origin: text(format!(
                "select (select oid from pg_catalog.pg_database where datname = current_database())::text
                        || '/' || '{schema}.event'::regclass::oid::text"
            )),
            take: text(take),
            least: text(least),
            part: text(format!("{} union all {}", in_order(EVENT, "event"), in_order(ROW, "outbox"))),
            ends: text(format!(
                "select x.xid,
                        (select e.seq from {schema}.event e where e.xid = x.xid::text::xid8
                         order by e.seq desc limit 1) as event,
                        (select max(o.seq) from {schema}.outbox o where o.xid = x.xid::text::xid8) as row
                 from unnest($1::bigint[]) as x(xid)"
            )),
            rows: text(format!("select {ROW} from {schema}.outbox where xid = any($1::text[]::xid8[])")),
            write: text(write(schema)),
            restore_placed: [
                text(restore_placed(schema, "event", "feed")),
                text(restore_placed(schema, "outbox", "outbox_number")),
            ],
            restore_unplaced: [
                text(restore_unplaced(schema, "event", "feed")),
                text(restore_unplaced(schema, "outbox", "outbox_number")),
            ],
            tell: text(format!("select pg_notify({channel}, '")),
            holds: [0, 1, 2].map(|slot| text(format!("select exists (select from {schema}.round_{slot})"))),
            empty: [0, 1, 2].map(|slot| {
                text(format!(
                    "begin; set local lock_timeout = '50ms'; truncate {schema}.round_{slot}; commit"
                ))
            }),
        }
    }
}

/// Transaction-wide settings go with the transaction, since behind a pooler there is no session.
fn see(schema: &str, spec: &Spec) -> String {
    let millis = |limit: Duration| limit.as_millis().max(1);
    format!(
        "begin isolation level repeatable read;
         set local idle_in_transaction_session_timeout = {};
         set local lock_timeout = {};
         set local statement_timeout = {};
         set local enable_seqscan = off;
         set local enable_bitmapscan = off;
         set local jit = off;
         select (extract(epoch from clock_timestamp()) * 1000)::bigint::text as now,
                case when pg_is_in_recovery() then null else pg_current_snapshot()::text end as snapshot,
                r.number::text, r.epoch::text, r.holder,
                (extract(epoch from r.until) * 1000)::bigint::text as until,
                (extract(epoch from r.at) * 1000)::bigint::text as at,
                r.position::text, encode(r.hash, 'hex') as hash, r.outbox::text, r.settled::text, r.target::text,
                r.done::text, r.restored::text, r.origin
         from {schema}.round r order by r.number desc limit 1",
        millis(spec.silence_max),
        millis(spec.lease),
        millis(STATEMENT_MAX),
    )
}

/// No statement of an ordinary round takes nearly so long.
pub(crate) const STATEMENT_MAX: Duration = Duration::from_secs(60);

/// All of a round in one statement: one round trip, and nothing of it without the rest.
fn write(schema: &str) -> String {
    format!(
        "with placed as (
             insert into {schema}.feed(position, seq, hash)
             select * from unnest($1::bigint[], $2::bigint[], $3::bytea[])
         ), keyed as (
             insert into {schema}.feed_key(key, position)
             select * from unnest($4::bigint[], $5::bigint[])
         ), numbered as (
             insert into {schema}.outbox_number(number, slot, seq, position)
             select * from unnest($6::bigint[], $7::smallint[], $8::bigint[], $9::bigint[])
         )
         insert into {schema}.round(number, slot, epoch, holder, until, at, position, hash, outbox, settled, target,
                                    done, restored, origin)
         values ($10, $11, $12, $13, to_timestamp($14::bigint / 1000.0), to_timestamp($15::bigint / 1000.0), $16, $17,
                 $18, $19::text::pg_snapshot, $20::text::pg_snapshot, $21, $22, $23)"
    )
}

fn restore_placed(schema: &str, table: &str, placed: &str) -> String {
    format!(
        "update {schema}.{table} t set xid = $3::text::xid8
         from {schema}.{placed} p
         where p.seq = t.seq and (t.xid >= $1::text::xid8 or t.xid = any($2::text[]::xid8[]))"
    )
}

fn restore_unplaced(schema: &str, table: &str, placed: &str) -> String {
    format!(
        "update {schema}.{table} t set xid = (t.xid::text::bigint + $1::bigint)::text::xid8
         where t.xid::text::bigint < $1::bigint and not exists (select from {schema}.{placed} p where p.seq = t.seq)"
    )
}
