//! The books against the store.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::time::{Duration, Instant};

use mainstay_envelope::Context;
use mainstay_event_store::{
    Abort, Act, EventType, Expected, Hash, Located, Mark, NewEvent, Payload, Position, Query, Recorded,
    Store, StreamName, TransactError, Tx, Verifier, limits, repeat,
};
use mainstay_postgres::{Postgres, Transaction};

use crate::Failure;
use crate::acts::{self, COUNTERS, Kind, Plan};
use crate::books::{Books, Entry};

/// How many violations are spelt out.
const SHOWN: usize = 20;

/// How many marks are made again, to see that they are remembered.
const MARKS: usize = 40;

/// What is committed has its place so long after everybody has gone.
const PLACED_MAX: Duration = Duration::from_secs(30);

/// Between these two moments what was acknowledged, and seen, may be lost; none: nothing may.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Lost {
    pub(crate) from: Option<i64>,
    pub(crate) to: i64,
}

impl Lost {
    fn excuses(self, at: i64) -> bool {
        self.from.is_some_and(|from| from <= at && at <= self.to)
    }
}

#[derive(Debug, Default)]
pub(crate) struct Report {
    pub(crate) acts: u64,
    pub(crate) acknowledged: u64,
    pub(crate) events: u64,
    pub(crate) effects: u64,
    pub(crate) unknown: u64,
    pub(crate) passing: u64,
    /// Acknowledged and not there, as was announced.
    pub(crate) lost: u64,
    /// The first of them.
    pub(crate) lost_since: Option<i64>,
    pub(crate) violations: Vec<String>,
}

impl Report {
    fn found(&mut self, what: impl FnOnce() -> String) {
        if self.violations.len() < SHOWN {
            self.violations.push(what());
        }
    }

    pub(crate) fn to_json(&self) -> serde_json::Value {
        serde_json::json!({
            "acts": self.acts, "acknowledged": self.acknowledged, "events": self.events, "effects": self.effects,
            "unknown": self.unknown, "passing": self.passing, "lost": self.lost, "lost_since": self.lost_since,
            "violations": self.violations,
        })
    }
}

/// What stands in the feed of one event.
struct Stands {
    position: u64,
    stream: StreamName,
    version: u64,
}

/// Everything that a store holds.
struct Feed {
    /// By act and ordinal.
    acts: BTreeMap<u64, BTreeMap<u64, Stands>>,
    hashes: Vec<Hash>,
    outbox: Vec<(u64, u64)>,
    counts: BTreeMap<String, u64>,
}

/// Compares everything with everything.
pub(crate) async fn check(
    store: &Postgres,
    cx: &Context,
    seed: u64,
    books: &Books,
    excused: Lost,
) -> Result<Report, Failure> {
    let mut report = Report { passing: books.passing, ..Report::default() };
    for wrong in &books.wrong {
        report.found(|| wrong.clone());
    }
    place_all(store, cx).await?;
    let feed = read(store, seed, &mut report).await?;
    for (position, at, hash) in &books.seen {
        let there = position.checked_sub(1).and_then(|before| feed.hashes.get(before as usize));
        if there != Some(hash) && !excused.excuses(*at) {
            report.found(|| {
                format!("a reader saw position {position} at {at}, and it is not there, or another one")
            });
        }
    }
    for at in &books.rewound {
        if excused.from.is_none_or(|from| *at < from) {
            report.found(|| format!("a reader found the feed to be another one at {at}"));
        }
    }
    for (number, entry) in &books.acts {
        let plan = Plan::new(seed, *number)?;
        one(&mut report, &plan, entry, feed.acts.get(number), excused);
    }
    for number in feed.acts.keys().filter(|number| !books.acts.contains_key(number)) {
        report.found(|| format!("act {number} is there, and nobody tried it"));
    }
    order(&mut report, books, &feed, excused);
    effects(&mut report, seed, &feed)?;
    marks(store, cx, seed, books, &feed, &mut report).await?;
    Ok(report)
}

/// Nobody writes any more: when one more event has its place, everything has.
async fn place_all(store: &Postgres, cx: &Context) -> Result<(), Failure> {
    let event = NewEvent::new(cx.new_id(), EventType::new("Checked")?, Payload::plain(*b"-"));
    let done = store.append(cx, Act::append(StreamName::new("checked")?, Expected::Any, vec![event])).await?;
    let began = Instant::now();
    while store.position(&done.receipt).await? == Located::NotYet {
        if began.elapsed() > PLACED_MAX {
            return Err(format!("what is committed has no place after {PLACED_MAX:?}").into());
        }
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    Ok(())
}

/// Reads everything, and proves the chain, density, and that every event is as it was planned.
async fn read(store: &Postgres, seed: u64, report: &mut Report) -> Result<Feed, Failure> {
    let mut feed =
        Feed { acts: BTreeMap::new(), hashes: Vec::new(), outbox: Vec::new(), counts: BTreeMap::new() };
    let (mut verifier, mut after) = (Verifier::new(store.id()), Position::START);
    let (mut versions, mut ids) = (HashMap::<StreamName, u64>::new(), HashSet::new());
    loop {
        let page = store.read(&Query::all(), after, limits::PAGE_EVENTS_MAX).await?;
        for event in &page.events {
            if let Err(broken) = verifier.check(event) {
                report.found(|| broken.to_string());
                return Ok(feed);
            }
            report.events += 1;
            feed.hashes.push(event.hash);
            let last = versions.entry(event.stream.clone()).or_default();
            if event.version.0 != *last + 1 {
                let (stream, version) = (&event.stream, event.version.0);
                report.found(|| format!("{stream} has version {version} after {last}"));
            }
            *last = event.version.0;
            if !ids.insert(event.id) {
                report.found(|| format!("id {} stands twice", event.id));
            }
            take(&mut feed, seed, event, report)?;
        }
        after = page.next;
        if page.at_end() {
            break;
        }
    }
    loop {
        let last = feed.outbox.len() as u64;
        let records = store.outbox_after(last, limits::PAGE_EVENTS_MAX).await?;
        if records.is_empty() {
            break;
        }
        for record in records {
            let act = acts::number(&record.row.payload).ok_or("an outbox row is not of the plan")?;
            if record.seq != feed.outbox.len() as u64 + 1 {
                let expected = feed.outbox.len() + 1;
                report.found(|| format!("outbox row {} stands where {expected} is due", record.seq));
            }
            feed.outbox.push((act, record.position.0));
        }
    }
    for key in 0..COUNTERS {
        if let Some(count) = store.view_get(&acts::view()?, &key.to_string()).await? {
            feed.counts.insert(key.to_string(), acts::number(&count).ok_or("a count is no number")?);
        }
    }
    Ok(feed)
}

fn take(feed: &mut Feed, seed: u64, event: &Recorded, report: &mut Report) -> Result<(), Failure> {
    let Some((number, ordinal)) = acts::origin(&event.payload.bytes) else {
        if event.stream.as_str() != "checked" {
            report.found(|| format!("position {} is of nobody", event.position));
        }
        return Ok(());
    };
    let plan = Plan::new(seed, number)?;
    let planned = plan.events().nth(usize::try_from(ordinal)?);
    let same = planned.is_some_and(|(stream, planned)| {
        planned.id == event.id && repeat::difference(stream, planned, event).is_none()
    });
    if !same {
        report.found(|| format!("position {} is not as act {number} wrote it", event.position));
    }
    let stands =
        Stands { position: event.position.0, stream: event.stream.clone(), version: event.version.0 };
    if feed.acts.entry(number).or_default().insert(ordinal, stands).is_some() {
        report.found(|| format!("act {number} stands twice"));
    }
    Ok(())
}

/// One act: whole or not at all, there when it was acknowledged, and where it was said to be.
fn one(
    report: &mut Report,
    plan: &Plan,
    entry: &Entry,
    there: Option<&BTreeMap<u64, Stands>>,
    excused: Lost,
) {
    let number = plan.number;
    report.acts += 1;
    report.unknown += u64::from(entry.unknown);
    let planned = acts::ids(plan).count();
    let found = there.map_or(0, BTreeMap::len);
    if found != 0 && found != planned {
        report.found(|| format!("act {number} is torn: {found} of {planned} events"));
    }
    let Some((at, versions)) = &entry.acknowledged else {
        let excused = entry.conflict.is_some_and(|at| excused.from.is_some_and(|from| at >= from));
        if !excused {
            report.found(|| {
                format!("act {number}, tried at {}, was never known to be there or not", entry.tried_at)
            });
        }
        return;
    };
    report.acknowledged += 1;
    if let Some(doubt) = entry.doubt.as_ref().filter(|_| !excused.excuses(*at)) {
        report.found(|| doubt.clone());
    }
    let Some(there) = there else {
        if excused.excuses(*at) {
            report.lost += 1;
            report.lost_since = Some(report.lost_since.map_or(*at, |since| since.min(*at)));
        } else {
            report.found(|| format!("act {number} was acknowledged at {at}, and is lost"));
        }
        return;
    };
    for (stream, version) in versions {
        let last = there
            .values()
            .filter(|stands| stands.stream.as_str() == stream)
            .map(|stands| stands.version)
            .max();
        if last != Some(*version) {
            report.found(|| format!("act {number} was said to be at {stream} {version}, and is at {last:?}"));
        }
    }
    let positions: Vec<u64> = there.values().map(|stands| stands.position).collect();
    if !positions.is_sorted() {
        report.found(|| format!("act {number}: its events stand at {positions:?}"));
    }
    // Whoever has come to where a receipt is located has seen its act. A transaction that wrote nothing new, because an
    // earlier try had, stands where the feed stood after it, and not where the events are.
    let fits = |located: u64, last: u64| located == last || entry.repeated && located > last;
    if let (Some(located), Some(last)) = (entry.located, positions.last())
        && !fits(located, *last)
        // The same receipt, asked before what it names was lost and written again.
        && !excused.excuses(*at)
    {
        report
            .found(|| format!("the receipt of act {number} was located at {located}, and it ends at {last}"));
    }
}

/// Who began after another one was acknowledged stands behind it, unless that one was lost and written again.
fn order(report: &mut Report, books: &Books, feed: &Feed, excused: Lost) {
    let mut ends: Vec<(i64, u64)> = Vec::new();
    let mut begins: Vec<(i64, u64, u64)> = Vec::new();
    for (number, entry) in &books.acts {
        let Some(there) = feed.acts.get(number) else { continue };
        let positions = || there.values().map(|stands| stands.position);
        if let (Some((at, _)), Some(last)) = (&entry.acknowledged, positions().max())
            && !excused.excuses(*at)
        {
            ends.push((*at, last));
        }
        if let Some(first) = positions().min() {
            begins.push((entry.tried_at, first, *number));
        }
    }
    ends.sort_unstable();
    begins.sort_unstable();
    let (mut ends, mut before) = (ends.into_iter().peekable(), 0);
    for (tried_at, first, number) in begins {
        while let Some((_, last)) = ends.next_if(|(at, _)| *at < tried_at) {
            before = before.max(last);
        }
        if first < before {
            report.found(|| {
                format!(
                    "act {number}, tried at {tried_at}, stands at {first}, before an earlier one at {before}"
                )
            });
        }
    }
}

/// Every message has one event, one row and one count, or none of them.
fn effects(report: &mut Report, seed: u64, feed: &Feed) -> Result<(), Failure> {
    let (mut counted, mut rows) = (BTreeMap::<String, u64>::new(), HashMap::<u64, u64>::new());
    let mut last = 0;
    for (act, position) in &feed.outbox {
        *rows.entry(*act).or_default() += 1;
        let stands = feed.acts.get(act).and_then(|act| act.values().map(|stands| stands.position).max());
        if stands != Some(*position) || *position < last {
            report
                .found(|| format!("the message of act {act} says position {position}, its event {stands:?}"));
        }
        last = *position;
    }
    for number in feed.acts.keys() {
        if Plan::new(seed, *number)?.kind == Kind::Effect {
            report.effects += 1;
            *counted.entry(acts::counter(*number).to_string()).or_default() += 1;
            if rows.remove(number) != Some(1) {
                report.found(|| format!("act {number} has not one message"));
            }
        }
    }
    for (act, count) in rows {
        report.found(|| format!("{count} messages of act {act}, which is not there"));
    }
    if counted != feed.counts {
        report.found(|| format!("counted {:?}, and there are {counted:?}", feed.counts));
    }
    Ok(())
}

/// The inbox remembers what is there, and nothing else. What is asked is taken back.
async fn marks(
    store: &Postgres,
    cx: &Context,
    seed: u64,
    books: &Books,
    feed: &Feed,
    report: &mut Report,
) -> Result<(), Failure> {
    let mut messages = Vec::new();
    for (number, entry) in books.acts.iter().rev() {
        if messages.len() < MARKS && Plan::new(seed, *number)?.kind == Kind::Effect {
            messages.push((*number, entry.basis));
        }
    }
    for (number, message) in messages {
        let identity = acts::identity(number, message)?;
        let asked = store.transact(cx, move |tx: &Transaction| -> Result<(), Abort<Mark>> {
            Err(Abort::User(tx.inbox_mark(&acts::consumer()?, &identity)?))
        });
        let expected = if feed.acts.contains_key(&number) { Mark::Repeated } else { Mark::First };
        match asked.await {
            Err(TransactError::User(mark)) if mark == expected => {}
            other => report.found(|| format!("the mark of act {number} is {other:?}, not {expected:?}")),
        }
    }
    Ok(())
}
