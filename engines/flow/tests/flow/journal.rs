//! The journal over the store in memory: versions, order, settlement, and who may write.

use std::convert::Infallible;

use mainstay_envelope::{Context, ManualClock, SeededChance, Timestamp};
use mainstay_event_store::memory::Memory;
use mainstay_event_store::{Abort, IndexValue, Refusal, Row, Store, Tx, ViewName};
use mainstay_flow::journal::{JournalError, StoreJournal};
use mainstay_resilience::cache::{Intent, Journal, Version};

async fn open(cx: &Context, store: &Memory) -> StoreJournal<Memory> {
    StoreJournal::open(cx, store.clone(), "tested").await.unwrap()
}

fn intent(key: &str, version: Version, value: Option<&str>) -> Intent {
    Intent { key: key.into(), version, value: value.map(|value| value.as_bytes().to_vec()) }
}

async fn pending(journal: &StoreJournal<Memory>) -> Vec<Intent> {
    journal.pending(Version::default(), 1_000).await.unwrap()
}

#[tokio::test]
async fn the_latest_intent_of_each_key_is_pending_in_the_order_of_versions() {
    let (cx, store) = (Context::system(), Memory::new());
    let journal = open(&cx, &store).await;
    let a = journal.append(&cx, "a", Some(b"1")).await.unwrap();
    let b = journal.append(&cx, "b", None).await.unwrap();
    let later = journal.append(&cx, "a", Some(b"2")).await.unwrap();
    assert!(a < b && b < later);
    let both = [intent("b", b, None), intent("a", later, Some("2"))];
    assert_eq!(pending(&journal).await, both);
    assert_eq!(journal.pending(Version::default(), 1).await.unwrap(), both[..1]);
    assert_eq!(journal.pending(b, 1_000).await.unwrap(), both[1..]);
    assert_eq!(journal.pending(later, 1_000).await.unwrap(), []);
}

#[tokio::test]
async fn only_the_version_that_was_flushed_or_an_earlier_one_is_forgotten() {
    let (cx, store) = (Context::system(), Memory::new());
    let journal = open(&cx, &store).await;
    let first = journal.append(&cx, "a", Some(b"1")).await.unwrap();
    let second = journal.append(&cx, "a", Some(b"2")).await.unwrap();
    journal.settle(&cx, &[("a".into(), first), ("never there".into(), second)]).await.unwrap();
    assert_eq!(pending(&journal).await, [intent("a", second, Some("2"))]);
    journal.settle(&cx, &[("a".into(), second)]).await.unwrap();
    assert_eq!(pending(&journal).await, []);
}

#[tokio::test]
async fn versions_grow_over_openings_whatever_was_settled_and_whatever_the_wall_clock_does() {
    let clock = ManualClock::default();
    let store = Memory::new();
    let mut last = Version::default();
    for back in [0, 5_000, 1_000_000, 0] {
        clock.set_wall(Timestamp::from_millis(2_000_000 - back));
        let cx = Context::new(
            Context::system().envelope().clone(),
            std::sync::Arc::new(clock.clone()),
            std::sync::Arc::new(SeededChance::new(back as u64)),
        );
        let journal = open(&cx, &store).await;
        for _ in 0..3 {
            let version = journal.append(&cx, "a", Some(b"1")).await.unwrap();
            assert!(version > last, "{version} after {last}");
            last = version;
        }
        journal.settle(&cx, &[("a".into(), last)]).await.unwrap();
        assert_eq!(pending(&journal).await, []);
    }
}

#[tokio::test]
async fn who_was_followed_can_neither_write_nor_settle() {
    let (cx, store) = (Context::system(), Memory::new());
    let first = open(&cx, &store).await;
    let old = first.append(&cx, "a", Some(b"1")).await.unwrap();
    let second = open(&cx, &store).await;
    assert_eq!(pending(&second).await, [intent("a", old, Some("1"))], "the journal is the same");
    let refused = first.append(&cx, "a", Some(b"late")).await.unwrap_err();
    assert!(matches!(refused, JournalError::Refused(Refusal::Fenced { .. })), "{refused}");
    let refused = first.settle(&cx, &[("a".into(), old)]).await.unwrap_err();
    assert!(matches!(refused, JournalError::Refused(Refusal::Fenced { .. })), "{refused}");
    let new = second.append(&cx, "a", Some(b"2")).await.unwrap();
    assert_eq!(pending(&second).await, [intent("a", new, Some("2"))]);
}

/// Two writes at a time commit in any order. Here the later one is there already when the earlier one arrives.
#[tokio::test]
async fn an_earlier_version_that_commits_last_does_not_replace_a_later_one() {
    let (cx, store) = (Context::system(), Memory::new());
    let journal = open(&cx, &store).await;
    let later = Version(journal.append(&cx, "a", Some(b"1")).await.unwrap().0 + 100);
    put(&cx, &store, [&later.0.to_be_bytes()[..], &[1], b"2"].concat(), later.0).await;
    let earlier = journal.append(&cx, "a", Some(b"1")).await.unwrap();
    assert!(earlier < later);
    assert_eq!(pending(&journal).await, [intent("a", later, Some("2"))]);
}

/// Writes the journal's row of key "a" by hand.
async fn put(cx: &Context, store: &Memory, value: Vec<u8>, version: u64) {
    let view = ViewName::new("mainstay.journal.tested").unwrap();
    let row = Row::new("a", value).indexed("version", IndexValue::Integer(version as i64));
    let put = move |tx: &<Memory as Store>::Tx| Ok::<_, Abort<Infallible>>(tx.view_put(&view, &row)?);
    store.transact(cx, put).await.unwrap();
}

#[tokio::test]
async fn what_is_too_large_or_damaged_is_refused_and_named() {
    let (cx, store) = (Context::system(), Memory::new());
    let journal = open(&cx, &store).await;
    for (key, value) in [("", 1), ("k", 2 << 20)] {
        let refused = journal.append(&cx, key, Some(&vec![0; value])).await.unwrap_err();
        assert!(matches!(refused, JournalError::Refused(Refusal::Invalid { .. })), "{refused}");
    }
    assert_eq!(pending(&journal).await, []);
    put(&cx, &store, b"no".to_vec(), 9).await;
    let damaged = journal.pending(Version::default(), 10).await.unwrap_err();
    assert_eq!(damaged, JournalError::Damaged { key: "a".into() });
}
