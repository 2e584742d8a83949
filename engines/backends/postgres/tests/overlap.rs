//! Conditions under true concurrency: two acts of which each would break the other's condition, released at one moment,
//! by different processes as far as the server can tell. Never may both be acknowledged.
//!
//! `ROUNDS=10000` repeats the long run.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, dead_code)] // a test fails by panicking

#[path = "hostile/server.rs"]
mod server;

use std::sync::Arc;

use mainstay_envelope::Context;
use mainstay_event_store::{
    Act, AppendError, Condition, EventType, Expected, NewEvent, Payload, Query, Refusal, Retry, Store,
    StreamName, Tag,
};
use mainstay_postgres::{Joined, Options, Postgres, Schema};
use server::{Database, Way};
use sqlx::Connection as _;
use tokio::sync::Barrier;

/// How two contenders may overlap.
#[derive(Debug, Clone, Copy, PartialEq)]
enum Overlap {
    /// The same tag.
    Tag,
    /// Each looks for the other's type.
    Types,
    /// Each looks for anything at all.
    All,
    /// One of two tags is common; each looks for both of its own.
    OneOfTwo,
}

fn act(
    cx: &Context,
    overlap: Overlap,
    round: u64,
    side: usize,
    after: mainstay_event_store::Position,
) -> Act {
    let tag = |text: String| Tag::new(text).unwrap();
    let kind = |text: &str| EventType::new(text).unwrap();
    let event = |name: &str| NewEvent::new(cx.new_id(), kind(name), Payload::plain(*b"{}"));
    let (event, query) = match overlap {
        Overlap::Tag => {
            let seat = tag(format!("seat:{round}"));
            (event("Reserved").tagged(seat.clone()), Query::tags([seat]))
        }
        Overlap::Types => {
            let (mine, theirs) = if side == 0 { ("Even", "Odd") } else { ("Odd", "Even") };
            (event(mine), Query::types([kind(theirs)]))
        }
        Overlap::All => (event("Reserved"), Query::all()),
        Overlap::OneOfTwo => {
            // What is looked for has the common tag; each event has it, and one of its own.
            let (common, own) = (tag(format!("room:{round}")), tag(format!("a-side:{side}:{round}")));
            (event("Reserved").tagged(own).tagged(common.clone()), Query::tags([common]))
        }
    };
    let stream = StreamName::new(format!("s-{round}-{side}")).unwrap();
    Act::append(stream, Expected::Empty, vec![event]).unless(Condition { query, after })
}

/// A transaction of the user's own, joined.
async fn joined(way: &Way, cx: &Context, act: Act) -> Result<(), Refusal> {
    let mut conn = way.conn().await;
    let mut tx = conn.begin().await.unwrap();
    let done = Joined::of(&Schema::default(), &mut tx, cx).await.unwrap().append(act).await;
    match done {
        Ok(_) => tx.commit().await.map_err(|error| panic!("{error}")),
        Err(mainstay_postgres::JoinError::Refused(refusal)) => {
            tx.rollback().await.unwrap();
            Err(refusal)
        }
        Err(error) => panic!("{error}"),
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn of_two_acts_that_exclude_each_other_never_both_are_acknowledged() {
    const SIDES: usize = 2;
    let rounds: u64 = std::env::var("ROUNDS").map_or(300, |rounds| rounds.parse().unwrap());
    let database = Database::with_store("overlap").await;
    let cx = Context::system();
    let mut stores = Vec::new();
    for _ in 0..SIDES {
        stores.push(Postgres::open(&cx, Options::with(database.direct.connect.clone())).await.unwrap());
    }
    for round in 0..rounds {
        let overlap = match round % 8 {
            0..3 => Overlap::Tag,
            3..5 => Overlap::Types,
            5 => Overlap::All,
            _ => Overlap::OneOfTwo,
        };
        // What came before, one event a round, is no reason to refuse.
        let after = loop {
            let head = stores[0].head().await.unwrap().position;
            if head.0 >= round {
                break head;
            }
            stores[0].wait_past(head, std::time::Duration::from_secs(1)).await;
        };
        let start = Arc::new(Barrier::new(SIDES));
        let sides: Vec<_> = (0..SIDES)
            .map(|side| {
                let (store, way, start) = (stores[side].clone(), database.direct.clone(), Arc::clone(&start));
                tokio::spawn(async move {
                    let cx = Context::system();
                    let act = act(&cx, overlap, round, side, after);
                    start.wait().await;
                    // By turns through a store's batches, and in a transaction of the user's own.
                    if round % 4 == 3 && side == 1 {
                        return joined(&way, &cx, act).await;
                    }
                    match store.append(&cx, act).await {
                        Ok(_) => Ok(()),
                        Err(AppendError::Refused(refusal)) => Err(refusal),
                        Err(error) => panic!("{error}"),
                    }
                })
            })
            .collect();
        let mut won = 0;
        for side in sides {
            match side.await.unwrap() {
                Ok(()) => won += 1,
                Err(refusal) => {
                    assert!(matches!(refusal, Refusal::ConditionFailed { .. }), "round {round}: {refusal}");
                    assert_eq!(refusal.retry(), Retry::AfterReading);
                }
            }
        }
        assert_eq!(won, 1, "round {round}, {overlap:?}: both, or nobody, were acknowledged");
    }
    println!("{rounds} rounds: one winner each");
    drop(stores);
    database.remove().await;
}
