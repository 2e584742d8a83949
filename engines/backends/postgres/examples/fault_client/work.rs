//! Writers, a follower, and who is the sequencer, until there is nobody left who gives work.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use mainstay_envelope::Context;
use mainstay_event_store::{Located, Query, ReadError, Receipt, Store, Subscribe, Verifier, Version};
use mainstay_postgres::Postgres;
use mainstay_postgres::sequencer::Role;

use crate::Failure;
use crate::acts::{A_WRITER, Draw, Kind, Outcome, Plan, own};
use crate::books::{now, say};

const WRITERS: u64 = 4;

/// An act whose end is not known after so long will never be known.
const PATIENCE: Duration = Duration::from_secs(90);

/// When the server was mended long ago, what is committed has its place after so long.
const PLACED_SOON: Duration = Duration::from_secs(5);

/// Before the same act is tried again.
const AGAIN: Duration = Duration::from_millis(30);

/// Works until `stop` is set; then what is under way is ended.
pub(crate) async fn run(
    store: &Postgres,
    cx: &Context,
    seed: u64,
    process: u64,
    stop: &Arc<AtomicBool>,
) -> Result<(), Failure> {
    let roles = tokio::spawn(roles(store.clone(), cx.clone()));
    let follower = tokio::spawn(follow(store.clone(), cx.clone()));
    let writers: Vec<_> = (0..WRITERS)
        .map(|writer| {
            let first = (process * WRITERS + writer + 1) * A_WRITER;
            tokio::spawn(write(store.clone(), cx.clone(), seed, first, Arc::clone(stop)))
        })
        .collect();
    for writer in writers {
        writer.await??;
    }
    roles.abort();
    follower.abort();
    Ok(())
}

async fn write(
    store: Postgres,
    cx: Context,
    seed: u64,
    first: u64,
    stop: Arc<AtomicBool>,
) -> Result<(), Failure> {
    let (mut version, mut messages) = (0, 0);
    for number in first.. {
        if stop.load(Ordering::Relaxed) {
            break;
        }
        let plan = Plan::new(seed, number)?;
        let basis = match plan.kind {
            Kind::Next => version,
            Kind::Effect => {
                messages += 1;
                messages
            }
            _ => 0,
        };
        say(&format!("try {number} {} {basis}", now(&cx)));
        let mut draw = Draw::of(!seed, number);
        match until_known(&store, &cx, &plan, basis).await {
            Some(Known::Acknowledged(receipt, versions)) => {
                if let Some((_, own)) = versions.iter().find(|(stream, _)| *stream == own(number)) {
                    version = own.0;
                }
                // A message that comes again: nothing may happen.
                if plan.kind == Kind::Effect && draw.below(4) == 0 {
                    again(&store, &cx, &plan, basis).await;
                }
                if draw.below(8) == 0 {
                    locate(&store, &cx, number, &receipt, &stop).await;
                }
            }
            Some(Known::Conflict(actual)) => version = actual.0,
            None => {}
        }
        tokio::time::sleep(Duration::from_millis(1 + draw.below(4))).await;
    }
    Ok(())
}

enum Known {
    Acknowledged(Receipt, Vec<(String, Version)>),
    Conflict(Version),
}

/// The same ids again and again, until somebody knows.
async fn until_known(store: &Postgres, cx: &Context, plan: &Plan, basis: u64) -> Option<Known> {
    let (number, began) = (plan.number, Instant::now());
    loop {
        let outcome = plan.submit(store, cx, basis).await;
        let at = now(cx);
        let why = match outcome {
            Outcome::Acknowledged { again, receipt, versions } => {
                let mut line = format!("ack {number} {at} {}", if again { "again" } else { "new" });
                for (stream, Version(version)) in &versions {
                    line.push_str(&format!(" {stream}={version}"));
                }
                say(&line);
                let versions =
                    versions.into_iter().map(|(stream, version)| (stream.to_string(), version)).collect();
                return Some(Known::Acknowledged(receipt, versions));
            }
            Outcome::Conflict(actual) => {
                say(&format!("conflict {number} {at} {}", actual.0));
                return Some(Known::Conflict(actual));
            }
            Outcome::Failed(why) => {
                say(&format!("failed {number} {at} {why}"));
                return None;
            }
            Outcome::Passing(why) => {
                say(&format!("passing {number} {at} {why}"));
                why
            }
            Outcome::Unknown(why) => {
                say(&format!("unknown {number} {at} {why}"));
                why
            }
        };
        if began.elapsed() > PATIENCE {
            say(&format!("stuck {number} {at} {why}"));
            return None;
        }
        tokio::time::sleep(AGAIN).await;
    }
}

async fn again(store: &Postgres, cx: &Context, plan: &Plan, basis: u64) {
    // Other ends of this try are nobody's promise.
    if let Outcome::Acknowledged { again: false, .. } = plan.submit(store, cx, basis).await {
        say(&format!("double {} {}", plan.number, now(cx)));
    }
}

async fn locate(store: &Postgres, cx: &Context, number: u64, receipt: &Receipt, stop: &AtomicBool) {
    let began = Instant::now();
    loop {
        match store.position(receipt).await {
            Ok(Located::At(position)) => {
                say(&format!("at {number} {}", position.0));
                return;
            }
            Ok(Located::NotYet) | Err(ReadError::Unavailable { .. }) => {}
            Err(error) => {
                say(&format!("broken {} the receipt of act {number}: {error}", now(cx)));
                return;
            }
        }
        let patience = if stop.load(Ordering::Relaxed) { PLACED_SOON } else { PATIENCE };
        if began.elapsed() > patience {
            say(&format!("unplaced {number} {}", now(cx)));
            return;
        }
        tokio::time::sleep(AGAIN).await;
    }
}

/// Follows the feed from its beginning, proves it, and writes down how far it has come. A feed that is another one than
/// before is noticed, said, and begun again: whether it may be one is for the check to know.
async fn follow(store: Postgres, cx: Context) {
    'anew: loop {
        let mut verifier = Verifier::new(store.id());
        let mut feed = store.subscribe(Query::all(), verifier.head().position);
        loop {
            match feed.next_page().await {
                Ok(page) => {
                    for event in &page.events {
                        if let Err(broken) = verifier.check(event) {
                            say(&format!("rewound {} {} {broken}", event.position.0, now(&cx)));
                            tokio::time::sleep(AGAIN).await;
                            continue 'anew;
                        }
                    }
                    let head = verifier.head();
                    say(&format!("seen {} {} {}", head.position.0, now(&cx), head.hash));
                }
                Err(ReadError::Unavailable { .. }) => tokio::time::sleep(AGAIN).await,
                Err(ReadError::PastEnd { asked, .. }) => {
                    say(&format!("rewound {} {}", asked.0, now(&cx)));
                    tokio::time::sleep(AGAIN).await;
                    continue 'anew;
                }
                Err(error) => {
                    say(&format!("broken {} the follower: {error}", now(&cx)));
                    return;
                }
            }
        }
    }
}

/// Says whenever this process's sequencer becomes another.
async fn roles(store: Postgres, cx: Context) {
    let mut told = String::new();
    loop {
        let role = match store.sequencer().map(|status| status.role) {
            Some(Role::Active { epoch }) => format!("active {epoch}"),
            Some(Role::Candidate) => "candidate 0".to_owned(),
            Some(Role::Away) | None => "away 0".to_owned(),
        };
        if role != told {
            say(&format!("role {} {role}", now(&cx)));
            told = role;
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}
