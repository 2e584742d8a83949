//! Promise 10, leases: at most one holder writes.

use std::sync::Arc;
use std::time::Duration;

use mainstay_envelope::{Context, ManualClock};
use tokio::sync::Barrier;

use super::Harness;
use super::kit::*;
use crate::*;

const LONG: Duration = Duration::from_secs(3_600);

/// Asks for the lease.
async fn acquire<S: Store>(store: &S, cx: &Context, holder: &'static str, lasts: Duration) -> Leased {
    let ended = store
        .transact(cx, move |tx| Ok::<_, Abort<String>>(tx.acquire_lease(&consumer("l"), holder, lasts)?));
    ended.await.unwrap().value
}

fn held(leased: &Leased) -> u64 {
    match leased {
        Leased::Held(lease) => lease.epoch,
        Leased::Taken(lease) => panic!("taken by {lease:?}"),
    }
}

/// A write that is guarded by the lease.
async fn write<S: Store>(store: &S, epoch: u64) -> Result<(), TransactError<String>> {
    let batch = events(&cx(), 1);
    let ended = transact(store, move |tx| {
        tx.fence(&consumer("l"), epoch)?;
        tx.append(&stream("work"), Expected::Any, &batch)?;
        Ok(())
    });
    ended.await.map(drop)
}

/// A lease is held, renewed, taken over when it ran out or was given back; every new holder gets the next
/// epoch, and from then on the old one's writes are refused.
pub async fn leases_fence_the_late_holder<H: Harness>(harness: &H) {
    let store = harness.open().await;
    let other = harness.again(&store).await;
    let fenced = |held, actual| Refusal::Fenced { lease: consumer("l"), held, actual };
    assert_eq!(store.lease(&consumer("l")).await.unwrap(), None);
    for epoch in [0, 1] {
        assert_eq!(tx_refusal(write(&store, epoch).await), fenced(epoch, 0), "nobody ever held it");
    }
    let clock = ManualClock::default();
    let cx = cx_at(&clock);
    let leased = acquire(&store, &cx, "first", LONG).await;
    let Leased::Held(lease) = &leased else { panic!("{leased:?}") };
    let until = cx.wall().as_millis() + 3_600_000;
    assert_eq!((lease.epoch, lease.holder.as_str(), lease.until.as_millis()), (1, "first", until));
    assert_eq!(other.lease(&consumer("l")).await.unwrap().as_ref(), Some(lease));
    write(&store, 1).await.unwrap();

    clock.advance(LONG - Duration::from_millis(1));
    let taken = acquire(&other, &cx, "second", LONG).await;
    assert_eq!(taken, Leased::Taken(lease.clone()), "who asks in vain is told who has it");
    assert_eq!(store.lease(&consumer("l")).await.unwrap().as_ref(), Some(lease), "asking changes nothing");
    let of_another = commit(&other, |tx| Ok(tx.acquire_lease(&consumer("L"), "second", LONG)?)).await;
    assert_eq!(held(&of_another), 1, "another lease");

    // A renewal in time keeps the epoch, and the lease lasts from then on.
    assert_eq!(held(&acquire(&store, &cx, "first", LONG).await), 1);
    let renewed = other.lease(&consumer("l")).await.unwrap().unwrap();
    assert_eq!(renewed.until.as_millis(), until - 1 + 3_600_000);
    clock.advance(LONG);
    write(&store, 1).await.unwrap_or_else(|error| panic!("ran out, but nobody took it: {error}"));
    assert_eq!(held(&acquire(&other, &cx, "second", LONG).await), 2);
    assert_eq!(tx_refusal(write(&store, 1).await), fenced(1, 2), "the late holder");
    assert_eq!(tx_refusal(write(&store, 3).await), fenced(3, 2), "a holder from the future");
    assert!(
        matches!(acquire(&store, &cx, "first", LONG).await, Leased::Taken(_)),
        "it is somebody else's now"
    );
    write(&other, 2).await.unwrap();

    // Given back by its holder only; the next one need not wait, also when it is the same.
    let release = async |store: &H::Store, epoch| {
        let ended = store.transact(&cx, move |tx| Ok(tx.release_lease(&consumer("l"), epoch)?));
        ended.await.map(drop)
    };
    assert_eq!(tx_refusal(release(&store, 1).await), fenced(1, 2));
    let taken = acquire(&store, &cx, "first", LONG).await;
    assert!(matches!(taken, Leased::Taken(_)), "a refused release released it");
    release(&other, 2).await.unwrap();
    let again = acquire(&other, &cx, "second", Duration::from_millis(7)).await;
    assert_eq!(held(&again), 3, "a new term, even of the same holder");
    clock.advance(Duration::from_millis(7));
    assert_eq!(held(&acquire(&other, &cx, "second", LONG).await), 4, "it had run out");
    assert_eq!(tx_refusal(write(&other, 3).await), fenced(3, 4));

    // Rolled back: as if it was never asked for.
    let ended = store.transact(&cx, |tx| {
        tx.release_lease(&consumer("l"), 4)?;
        let leased = tx.acquire_lease(&consumer("l"), "third", LONG)?;
        assert_eq!(held(&leased), 5);
        tx.fence(&consumer("l"), 5)?;
        Err::<(), _>(Abort::User("no".to_owned()))
    });
    ended.await.unwrap_err();
    write(&other, 4).await.unwrap();
    for holder in ["", "x".repeat(Lease::HOLDER_BYTES_MAX + 1).leak()] {
        let ended = transact(&store, move |tx| Ok(tx.acquire_lease(&consumer("m"), holder, LONG)?)).await;
        assert!(is_invalid(&tx_refusal(ended)));
    }
    assert_eq!(version(&store, &stream("work")).await, Version(4));
}

/// Of many that ask at the same moment, through two handles, one holds it, in each term.
pub async fn a_lease_is_taken_by_one_of_many<H: Harness>(harness: &H) {
    const HOLDERS: [&str; 8] = ["a", "b", "c", "d", "e", "f", "g", "h"];
    let store = harness.open().await;
    let other = harness.again(&store).await;
    for term in 1..=5 {
        let start = Arc::new(Barrier::new(HOLDERS.len()));
        let holders: Vec<_> = HOLDERS
            .iter()
            .enumerate()
            .map(|(i, holder)| {
                let store = if i % 2 == 0 { store.clone() } else { other.clone() };
                let start = Arc::clone(&start);
                tokio::spawn(async move {
                    start.wait().await;
                    acquire(&store, &cx(), holder, LONG).await
                })
            })
            .collect();
        let mut won = Vec::new();
        for holder in holders {
            match holder.await.unwrap() {
                Leased::Held(lease) => won.push(lease),
                Leased::Taken(lease) => assert_eq!(lease.epoch, term),
            }
        }
        assert_eq!(won.len(), 1, "holders of term {term}: {won:?}");
        assert_eq!(won[0].epoch, term);
        commit(&store, move |tx| Ok(tx.release_lease(&consumer("l"), term)?)).await;
    }
}
