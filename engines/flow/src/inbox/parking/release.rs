//! Parking a message, and getting parked ones out again: by a try that goes well, or by an operator's word.

use std::sync::Arc;

use mainstay_envelope::Timestamp;
use mainstay_event_store::{Abort, Refusal, Store, Tx};
use mainstay_resilience::retry::Checked;

use super::rows::{Asked, KeyRow, LaneRow, Letter, Rows, Views};
use super::state::{Event, Status, next};
use crate::inbox::apply::{Handler, Ready};
use crate::inbox::lane::Lane;
use crate::saga::{Failure, Reactor};

/// Letters of one key that are released in one transaction.
pub(in crate::inbox) const RELEASE_MAX: usize = 64;
/// Parked messages of one key among which an altered one is looked for before it is parked again.
const TWINS_MAX: usize = 1_000;

/// How a transaction of the inbox ends by itself. Nothing of it was written.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(in crate::inbox) enum Stopped {
    /// The message of this index can't be handled.
    At(usize, Failure),
    /// Somebody else parked or released meanwhile: look again.
    Stale,
    /// As much is parked as may be.
    Full,
}

/// Why a message is parked.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(in crate::inbox) enum Why {
    /// Another message of its key is parked.
    Follows,
    /// It failed.
    Failed(Failure),
    /// Its number came with another content before.
    Altered,
}

/// Characters of a reason that are kept.
const WHY_CHARS_MAX: usize = 2_000;

const ALTERED: &str = "a message of the same number came before with another content: two histories of its producer \
    have met, or somebody forges; find out which one holds, then retry (handle this one too) or discard it";

/// What parking and releasing go by.
#[derive(Debug, Clone)]
pub(in crate::inbox) struct Rules {
    pub(in crate::inbox) settings: Checked,
    /// Messages of one lane.
    pub(in crate::inbox) parked_max: u64,
    /// 64 random bits, drawn before the transaction.
    pub(in crate::inbox) draw: u64,
}

/// Parks a message in the transaction that marks it. The lane's row is the caller's to write.
pub(in crate::inbox) fn park<T: Tx>(
    rows: &Rows<'_, T>,
    counts: &mut LaneRow,
    rules: &Rules,
    ready: &Ready,
    why: &Why,
) -> Result<(), Abort<Stopped>> {
    let message = &ready.delivered.message;
    let key = rows.lane.key(&message.key);
    let now = rows.tx.at();
    let altered = *why == Why::Altered;
    if altered && rows.letters(&key, TWINS_MAX)?.iter().any(|letter| letter.identity == message.identity) {
        return Ok(());
    }
    if counts.messages >= rules.parked_max {
        return Err(Abort::User(Stopped::Full));
    }
    let number = counts.letters + 1;
    let row = match rows.key(&key)? {
        Some(row) => KeyRow { messages: row.messages + 1, ..row },
        None => {
            counts.generation += 1;
            let begin = Status::Waiting { tries: 0, again_at: now };
            let (event, why) = match why {
                Why::Failed(failure) => (event_of(failure), shown(failure)),
                Why::Altered => (Event::Poisoned, ALTERED.to_owned()),
                Why::Follows => (Event::Gone, String::new()),
            };
            KeyRow {
                group: rows.lane.group.clone(),
                topic: rows.lane.topic.clone(),
                partition: rows.lane.partition,
                key: message.key.clone(),
                status: step(begin, event, now, rules)?,
                why,
                head: number,
                head_offset: ready.delivered.offset.0,
                messages: 1,
                since: now,
            }
        }
    };
    counts.messages += 1;
    counts.letters = number;
    rows.put_key(&key, &row)?;
    let letter = Letter::new(rows.lane, number, &ready.delivered, now, altered)?;
    Ok(rows.put_letter(&key, &letter, Some(&message.data))?)
}

/// A failure's words, as long as an operator may want to read: a reactor may say anything.
fn shown(failure: &Failure) -> String {
    let mut words = failure.to_string();
    if let Some((end, _)) = words.char_indices().nth(WHY_CHARS_MAX) {
        words.truncate(end);
        words.push('…');
    }
    words
}

/// What a failure is to the machine.
pub(in crate::inbox) fn event_of(failure: &Failure) -> Event {
    if failure.is_final() { Event::Poisoned } else { Event::Failed }
}

fn step(status: Status, event: Event, now: Timestamp, rules: &Rules) -> Result<Status, Refusal> {
    next(status, event, now, &rules.settings, rules.draw)
        .map_err(|illegal| Refusal::Invalid { what: "parked key", why: illegal.to_string() })
}

/// A transaction that handles a key's first letters, at most `max`, in order, and takes them out; how many are left
/// of the key.
pub(in crate::inbox) fn release<S: Store, R: Reactor<S>>(
    handler: &Handler<S, R>,
    views: &Views,
    lane: &Lane,
    rules: &Rules,
    (key, seen): (&str, &KeyRow),
    max: usize,
) -> impl Fn(&S::Tx) -> Result<u64, Abort<Stopped>> + Send + 'static {
    let (handler, views, lane, rules) = (handler.clone(), views.clone(), lane.clone(), rules.clone());
    let (key, seen) = (key.to_owned(), seen.clone());
    move |tx| {
        let rows = Rows { tx, views: &views, lane: &lane };
        let mut row = still(&rows, &key, &seen)?;
        let letters = rows.letters(&key, max)?;
        let released = letters.len() as u64;
        for (index, letter) in letters.into_iter().enumerate() {
            let stop = |failure: Failure| Abort::User(Stopped::At(index, failure));
            if letter.altered {
                return Err(stop(Failure::poisoned(ALTERED)));
            }
            let number = letter.number;
            let data = rows.data(&key, number)?;
            let ready = Ready::new(&lane.group, letter.delivered(data)?);
            handler.apply(tx, &lane, &ready).map_err(stop)?;
            rows.delete_letter(&key, number)?;
        }
        let mut counts = rows.lane()?;
        row.messages = row.messages.saturating_sub(released);
        advance(&rows, &key, row, &mut counts, released, &rules)
    }
}

/// A transaction that notes that a key's head failed.
pub(in crate::inbox) fn failed<S: Store>(
    views: &Views,
    lane: &Lane,
    rules: &Rules,
    (key, seen): (&str, &KeyRow),
    failure: &Failure,
) -> impl Fn(&S::Tx) -> Result<Status, Abort<Stopped>> + Send + 'static {
    let (views, lane, rules) = (views.clone(), lane.clone(), rules.clone());
    let (key, seen, failure) = (key.to_owned(), seen.clone(), failure.clone());
    move |tx| {
        let rows = Rows { tx, views: &views, lane: &lane };
        let mut row = still(&rows, &key, &seen)?;
        row.status = step(row.status, event_of(&failure), tx.at(), &rules)?;
        row.why = shown(&failure);
        rows.put_key(&key, &row)?;
        Ok(row.status)
    }
}

/// A transaction that does what an operator asked for about a letter; what it did, for the log.
pub(in crate::inbox) fn obey<S: Store>(
    views: &Views,
    lane: &Lane,
    rules: &Rules,
    letter: &str,
) -> impl Fn(&S::Tx) -> Result<String, Abort<Stopped>> + Send + 'static {
    let (views, lane, rules) = (views.clone(), lane.clone(), rules.clone());
    let row_key: Arc<str> = letter.into();
    move |tx| {
        let rows = Rows { tx, views: &views, lane: &lane };
        let Some(asked) = rows.asked(&row_key)? else { return Err(Abort::User(Stopped::Stale)) };
        rows.answered(&row_key)?;
        let gone = || Ok(format!("parked message {row_key} was gone when an operator's word about it came"));
        let Some((key, number)) = row_key.split_once('-') else { return gone() };
        let Some(mut row) = rows.key(key)? else { return gone() };
        let Ok(number) = number.parse::<u64>() else { return gone() };
        let letter = rows.letter(key, number)?;
        match asked {
            Asked::Retry => {
                // It is the operator who says that an altered message is to be handled.
                if let Some(mut letter) = letter.filter(|letter| letter.altered) {
                    letter.altered = false;
                    rows.put_letter(key, &letter, None)?;
                }
                row.status = step(row.status, Event::RetryAsked, tx.at(), &rules)?;
                rows.put_key(key, &row)?;
                Ok(format!("key {:?} of {} is tried again, as an operator asked", row.key, row.topic))
            }
            Asked::Discard => {
                let Some(letter) = letter else { return gone() };
                rows.delete_letter(key, number)?;
                let told = format!(
                    "message {} of key {:?} of {} is discarded, as an operator asked: it will never be handled",
                    letter.offset, row.key, row.topic
                );
                let mut counts = rows.lane()?;
                row.messages = row.messages.saturating_sub(1);
                if row.head == number {
                    advance(&rows, key, row, &mut counts, 1, &rules)?;
                } else {
                    counts.messages = counts.messages.saturating_sub(1);
                    rows.put_lane(&counts)?;
                    rows.put_key(key, &row)?;
                }
                Ok(told)
            }
        }
    }
}

/// The key's row, if nobody has touched its head since it was seen. Messages may have joined behind it.
fn still<T: Tx>(rows: &Rows<'_, T>, key: &str, seen: &KeyRow) -> Result<KeyRow, Abort<Stopped>> {
    match rows.key(key)? {
        Some(row) if row.head == seen.head && row.status == seen.status => Ok(row),
        _ => Err(Abort::User(Stopped::Stale)),
    }
}

/// The head is gone: the next letter takes its place, or the key is free again. How many are left of it.
fn advance<T: Tx>(
    rows: &Rows<'_, T>,
    key: &str,
    mut row: KeyRow,
    counts: &mut LaneRow,
    gone: u64,
    rules: &Rules,
) -> Result<u64, Abort<Stopped>> {
    counts.messages = counts.messages.saturating_sub(gone);
    let left = row.messages;
    match rows.letters(key, 1)?.first() {
        Some(next) => {
            (row.head, row.head_offset) = (next.number, next.offset);
            row.status = step(row.status, Event::Gone, rows.tx.at(), rules)?;
            row.why.clear();
            rows.put_key(key, &row)?;
        }
        None => {
            counts.generation += 1;
            rows.delete_key(key)?;
        }
    }
    rows.put_lane(counts)?;
    Ok(left)
}
