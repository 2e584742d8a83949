//! Requests with an idempotency key: done once, whatever is sent again and whatever dies in between.

use std::sync::Arc;
use std::time::Duration;

use mainstay_envelope::{Context, Envelope, IdempotencyKey, ManualClock, Priority, SystemChance, Timestamp};
use mainstay_event_store::memory::Memory;
use mainstay_event_store::{
    Abort, AppendError, Committed, Refusal, Scan, Store, StreamName, TransactError, ViewName,
};
use mainstay_flow::inbox::{Once, Request, forget_expired, once};
use mainstay_flow::unit_of_work::{Entity, transact};

use crate::bank::{cx, quick};
use crate::faulty::{Fault, Faulty};
use crate::post::{Desk, Letter, filed, sender};

fn request(key: &str, body: &str) -> Request {
    Request::new("POST /letters", IdempotencyKey::new(key).unwrap(), body.as_bytes())
}

/// Sends a letter with this number, once; the answer is the letter's id.
async fn post<S: Store>(
    store: &S,
    cx: &Context,
    request: Request,
    number: u64,
) -> Result<Committed<Once<String>>, TransactError<&'static str>> {
    let closure = move |work: &mainstay_flow::unit_of_work::Work<'_, S>| {
        once(work, &request, || {
            let stream = StreamName::new(format!("desk-{number}")).map_err(Refusal::from)?;
            let letters = vec![Letter::Sent { number }];
            work.act(&Entity::<Desk>::replayed(), &stream, "a", &letters)?.map_err(Abort::User)?;
            Ok(work.new_id().to_string())
        })
    };
    transact(store, cx, &sender(), closure).retry(quick(5)).await
}

#[tokio::test]
async fn a_repeated_request_gets_the_recorded_answer() {
    let (cx, store) = (cx(), Memory::new());
    let Once::First(answer) = post(&store, &cx, request("k", "{}"), 1).await.unwrap().value else { panic!() };
    for _ in 0..2 {
        let again = post(&store, &cx, request("k", "{}"), 1).await.unwrap().value;
        assert_eq!(again, Once::Again(answer.clone()));
    }
    assert_eq!(filed(&store).await, 1);
    let other = post(&store, &cx, request("other", "{}"), 2).await.unwrap().value;
    assert!(matches!(&other, Once::First(id) if *id != answer));
}

#[tokio::test]
async fn a_key_with_another_body_is_refused_and_does_nothing() {
    let (cx, store) = (cx(), Memory::new());
    post(&store, &cx, request("k", "{}"), 1).await.unwrap();
    assert_eq!(post(&store, &cx, request("k", "{ }"), 2).await.unwrap().value, Once::OtherBody);
    assert_eq!(filed(&store).await, 1);
    // The same key of another client, or for another operation, is another key.
    for scope in ["POST /parcels", "POST /letters "] {
        let elsewhere = Request::new(scope, IdempotencyKey::new("k").unwrap(), b"?");
        assert!(matches!(post(&store, &cx, elsewhere, 3).await.unwrap().value, Once::First(_)), "{scope}");
    }
    // Nor do scope and key run into each other.
    let [one, two] = [("ab", "c"), ("a", "bc")]
        .map(|(scope, key)| Request::new(scope, IdempotencyKey::new(key).unwrap(), b""));
    assert!(matches!(post(&store, &cx, one, 4).await.unwrap().value, Once::First(_)));
    assert!(matches!(post(&store, &cx, two, 5).await.unwrap().value, Once::First(_)));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn of_two_in_flight_at_once_one_is_done() {
    let (cx, store) = (cx(), Memory::new());
    for round in 0..50_u64 {
        let both = [0, 1].map(|_| {
            let (cx, store) = (cx.clone(), store.clone());
            tokio::spawn(async move {
                post(&store, &cx, request(&format!("k{round}"), "{}"), round).await.unwrap().value
            })
        });
        let [one, two] = both;
        let (one, two) = (one.await.unwrap(), two.await.unwrap());
        let first = [&one, &two].iter().filter(|once| matches!(once, Once::First(_))).count();
        assert_eq!(first, 1, "{one:?} {two:?}");
        assert_eq!(one.answer(), two.answer());
    }
    assert_eq!(filed(&store).await, 50);
}

#[tokio::test]
async fn a_lost_answer_is_found_by_the_key() {
    let cx = cx();
    for fault in [Fault::LostAfter, Fault::LostBefore, Fault::Busy] {
        let store = Faulty::new([fault.clone(), fault.clone()]);
        let done = post(&store, &cx, request("k", "{}"), 1).await.unwrap().value;
        assert_eq!(matches!(done, Once::Again(_)), matches!(fault, Fault::LostAfter), "{fault:?} {done:?}");
        assert_eq!(filed(&store).await, 1, "{fault:?}");
    }
}

#[tokio::test]
async fn a_crash_between_effect_and_answer_leaves_both_or_neither() {
    let cx = cx();
    for (fault, there) in [(Fault::CrashBefore, 0), (Fault::CrashAfter, 1)] {
        let store = Memory::new();
        let process = Faulty::over(store.clone(), [fault]);
        tokio::select! {
            done = post(&process, &cx, request("k", "{}"), 1) => panic!("{done:?}"),
            () = process.crashed() => {}
        }
        assert_eq!(filed(&store).await, there);
        let done = post(&store, &cx, request("k", "{}"), 1).await.unwrap().value;
        assert_eq!(matches!(done, Once::Again(_)), there == 1, "{done:?}");
        assert_eq!(filed(&store).await, 1);
    }
}

#[tokio::test]
async fn an_unknown_outcome_without_a_key_is_told_and_not_repeated() {
    let cx = cx();
    let store = Faulty::new([Fault::LostAfter]);
    let stream = StreamName::new("desk-1").unwrap();
    let unkeyed = transact(&store, &cx, &sender(), move |work| {
        work.act(&Entity::<Desk>::replayed(), &stream, "a", &vec![Letter::Sent { number: 1 }])?
            .map(drop)
            .map_err(Abort::User)
    });
    let unknown = unkeyed.retry(quick(5)).await.unwrap_err();
    assert!(matches!(unknown, TransactError::Store(AppendError::Unknown { .. })), "{unknown}");
    assert_eq!((filed(&store).await, store.writes()), (1, 1));
}

#[tokio::test]
async fn an_error_records_nothing() {
    let (cx, store) = (cx(), Memory::new());
    let refused = transact(&store, &cx, &sender(), |work| {
        once(work, &request("k", "{}"), || {
            let stream = StreamName::new("desk-1").map_err(Refusal::from)?;
            work.act(&Entity::<Desk>::replayed(), &stream, "a", &Vec::new())?.map_err(Abort::User)?;
            Ok(String::new())
        })
    });
    assert_eq!(refused.await.unwrap_err(), TransactError::User("nothing to send"));
    assert!(matches!(post(&store, &cx, request("k", "{}"), 1).await.unwrap().value, Once::First(_)));
}

#[tokio::test]
async fn a_key_is_forgotten_after_its_retention_and_cleared_in_slices() {
    let store = Memory::new();
    let clock = ManualClock::new(Timestamp::from_millis(1_000_000));
    let chance = Arc::new(SystemChance::new());
    let cx = Context::new(Envelope::begin(Priority::Normal, &*chance), Arc::new(clock.clone()), chance);
    let hour = Duration::from_secs(3600);
    let kept_for = |key: &str, keep| request(key, "{}").keep(keep);
    for n in 0..300 {
        post(&store, &cx, kept_for(&format!("old-{n}"), hour), n).await.unwrap();
    }
    post(&store, &cx, kept_for("young", 2 * hour), 300).await.unwrap();
    clock.advance(hour - Duration::from_millis(1));
    assert!(!forget_expired(&store, &cx).await.unwrap());
    let again = post(&store, &cx, kept_for("old-0", hour), 0).await.unwrap().value;
    assert!(matches!(again, Once::Again(_)), "one millisecond is left: {again:?}");
    clock.advance(Duration::from_millis(1));
    let anew = post(&store, &cx, kept_for("old-0", hour), 0).await.unwrap().value;
    assert!(matches!(anew, Once::First(_)), "forgotten, though not cleared yet: {anew:?}");
    assert!(forget_expired(&store, &cx).await.unwrap(), "there are more than a slice");
    assert!(!forget_expired(&store, &cx).await.unwrap());
    let all = Scan::keys(ViewName::new("mainstay.requests").unwrap(), 1_000);
    assert_eq!(
        store.view_scan(&all).await.unwrap().rows.len(),
        2,
        "the young one and the one that was done anew"
    );
    assert!(matches!(post(&store, &cx, kept_for("young", hour), 300).await.unwrap().value, Once::Again(_)));
}
