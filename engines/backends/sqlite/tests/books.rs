//! The check of ledger against feed notices each kind of wrong, or the crash and power-cut tests prove nothing.

#![allow(clippy::unwrap_used, clippy::panic, reason = "the helpers are part of the tests")]

mod workload;

use std::sync::{Arc, Mutex};

use mainstay_envelope::Context;
use mainstay_event_store::{Hash, Head, Position};
use mainstay_sqlite::{Options, Sqlite};

use workload::acts::{self, Kind, Plan};
use workload::check::{Report, check};
use workload::drive::{self, Job, Log};
use workload::feed::{self, Feed};
use workload::ledger::{Ledger, State};

const SEED: u64 = 3;
const WRITERS: u64 = 4;

struct Books(Mutex<Ledger>);

impl Log for Books {
    fn line(&self, line: String) {
        self.0.lock().unwrap().line(&line).unwrap();
    }

    fn stopped(&self) -> bool {
        false
    }
}

/// What some undisturbed work has left: the books and the feed.
fn work() -> (Ledger, Feed) {
    let folder = tempfile::tempdir().unwrap();
    let store = Sqlite::open(Options::new(folder.path().join("store.db"))).unwrap();
    let (cx, books) = (Context::system(), Arc::new(Books(Mutex::default())));
    let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build().unwrap();
    let feed = runtime.block_on(async {
        acts::prepare(&store, &cx).await.unwrap();
        let job = Job { seed: SEED, writers: WRITERS, from: 0, acts: 50 };
        drive::run(&store, &cx, job, &books).await.unwrap();
        feed::read(&store, &cx, SEED, WRITERS, |_| {}).await.unwrap()
    });
    drop(runtime);
    let ledger = books.0.lock().unwrap().clone();
    (ledger, feed)
}

fn plan(number: u64) -> Plan {
    Plan::new(SEED, WRITERS, number).unwrap()
}

/// The first act that is there and of which this holds.
fn an_act(feed: &Feed, holds: impl Fn(&Plan) -> bool) -> u64 {
    feed.events.iter().map(|event| event.origin.unwrap().0).find(|number| holds(&plan(*number))).unwrap()
}

/// Puts things into disorder, and sees only `count` counted.
fn noticed(what: &str, count: fn(&Report) -> u64, disorder: impl FnOnce(&mut Ledger, &mut Feed)) {
    let (mut ledger, mut feed) = work();
    let sound = check(&ledger, &feed, SEED, WRITERS).unwrap();
    assert!(sound.sound() && count(&sound) == 0 && sound.acknowledged > 50, "{what}: {:?}", sound.violations);
    disorder(&mut ledger, &mut feed);
    let report = check(&ledger, &feed, SEED, WRITERS).unwrap();
    assert!(count(&report) > 0 && !report.sound(), "{what} was not noticed: {report:?}");
}

#[test]
fn what_is_acknowledged_or_was_seen_and_is_not_there_is_lost() {
    noticed("a lost end", |report| report.lost, |_, feed| drop(feed.events.pop()));
    noticed(
        "a lost end that only a reader saw",
        |report| report.lost,
        |ledger, feed| {
            ledger.seen.extend(feed.head());
            let (act, _) = feed.events.pop().unwrap().origin.unwrap();
            feed.events.retain(|event| event.origin.unwrap().0 != act);
            ledger.acts.get_mut(&act).unwrap().state = State::Open;
        },
    );
}

#[test]
fn what_stands_twice_is_doubled() {
    noticed(
        "an event twice",
        |report| report.doubled,
        |_, feed| {
            let (first, mut again) = (0, work().1.events.swap_remove(0));
            again.id = feed.events[first].id;
            again.position = feed.events.len() as u64 + 1;
            feed.events.push(again);
        },
    );
    noticed("a row twice", |report| report.doubled, |_, feed| feed.audit.push(feed.audit[0]));
    noticed(
        "a message twice",
        |report| report.doubled,
        |_, feed| {
            feed.outbox.push((feed.outbox.len() as u64 + 1, feed.outbox[0].1));
        },
    );
}

#[test]
fn what_was_refused_and_is_there_is_visible() {
    noticed(
        "a refused act",
        |report| report.refused_visible,
        |ledger, feed| {
            let act = an_act(feed, |_| true);
            ledger.acts.get_mut(&act).unwrap().state = State::Refused;
        },
    );
}

#[test]
fn what_is_there_in_part_is_torn() {
    noticed(
        "half an act that nobody knows the end of",
        |report| report.torn,
        |ledger, feed| {
            let act = an_act(feed, |plan| plan.events().count() > 1);
            feed.events.retain(|event| event.origin != Some((act, 0)));
            ledger.acts.get_mut(&act).unwrap().state = State::Open;
        },
    );
    noticed(
        "an event without its row",
        |report| report.torn,
        |_, feed| feed.audit.truncate(feed.audit.len() - 1),
    );
    noticed(
        "an event without its message",
        |report| report.torn,
        |_, feed| feed.outbox.truncate(feed.outbox.len() - 1),
    );
    noticed(
        "a row without its event",
        |report| report.torn,
        |ledger, feed| {
            let act = an_act(feed, |plan| plan.kind == Kind::Transaction);
            feed.events.retain(|event| event.origin.unwrap().0 != act);
            ledger.acts.get_mut(&act).unwrap().state = State::Open;
        },
    );
}

#[test]
fn what_is_not_where_it_was_said_to_be_is_out_of_order() {
    let count = |report: &Report| report.order_broken;
    noticed("a gap", count, |_, feed| drop(feed.events.remove(3)));
    noticed("two events exchanged", count, |_, feed| feed.events.swap(3, 4));
    noticed("a version left out", count, |_, feed| feed.events.last_mut().unwrap().version += 1);
    noticed("a message left out", count, |_, feed| feed.outbox.last_mut().unwrap().0 += 1);
    noticed("messages exchanged", count, |_, feed| {
        let (first, second) = (feed.outbox[0].1, feed.outbox[1].1);
        (feed.outbox[0].1, feed.outbox[1].1) = (second, first);
    });
    noticed("another position acknowledged", count, |ledger, feed| {
        let act = an_act(feed, |_| true);
        let State::Acknowledged { position, .. } = &mut ledger.acts.get_mut(&act).unwrap().state else {
            panic!()
        };
        *position += 1;
    });
    noticed("another version acknowledged", count, |ledger, feed| {
        let act = an_act(feed, |_| true);
        let State::Acknowledged { versions, .. } = &mut ledger.acts.get_mut(&act).unwrap().state else {
            panic!()
        };
        versions[0].1 += 1;
    });
    noticed("an act before one that was acknowledged when it was tried", count, |ledger, feed| {
        let act = an_act(feed, |_| true);
        ledger.acts.get_mut(&act).unwrap().after = 1_000_000;
    });
}

#[test]
fn what_excludes_each_other_and_is_there_is_both() {
    noticed(
        "a second winner",
        |report| report.both,
        |_, feed| {
            let act = an_act(feed, |plan| plan.contest().is_some());
            let rival =
                (0..200).find(|number| *number != act && plan(*number).contest() == plan(act).contest());
            let mut event = work().1.events.swap_remove(0);
            event.origin = Some((rival.unwrap(), 0));
            feed.events.push(event);
        },
    );
}

#[test]
fn what_is_not_as_written_or_not_as_seen_is_changed() {
    noticed("another event", |report| report.changed, |_, feed| feed.events[5].origin = None);
    noticed("a broken chain", |report| report.changed, |_, feed| feed.changed.push("broken".into()));
    noticed(
        "a follower's complaint",
        |report| report.changed,
        |ledger, _| ledger.line("broken gap").unwrap(),
    );
    noticed(
        "another past",
        |report| report.changed,
        |ledger, _| {
            ledger.seen.push(Head { position: Position(2), hash: Hash([7; 32]) });
        },
    );
}

#[test]
fn what_nobody_tried_is_foreign() {
    noticed(
        "an act that nobody tried",
        |report| report.foreign,
        |ledger, feed| {
            let act = an_act(feed, |_| true);
            ledger.acts.remove(&act);
        },
    );
}

#[test]
fn a_line_that_is_none_is_refused() {
    for line in ["", "ack", "ack 1 2 new s=1", "try x 0", "refused 7 why", "seen 1 nohash", "tries 1 0"] {
        assert!(Ledger::default().line(line).is_err(), "{line:?}");
    }
    let mut ledger = Ledger::default();
    for line in ["try 1 0", "ack 1 2 new s=1 t=2", "try 3 1", "failed 3 full", "unknown 1 lost", "try 5 0"] {
        ledger.line(line).unwrap();
    }
    assert_eq!((ledger.open(), ledger.next(), ledger.acts[&3].after), (vec![(5, 0)], 6, 2));
}
