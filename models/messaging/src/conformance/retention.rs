//! Promises on retention, where a log retains: what is gone is told, never skipped.

use mainstay_envelope::{ContentHash, Timestamp};

use super::Harness;
use super::kit::*;
use crate::*;

/// A log with 30 old messages and 10 younger ones, of which retention took the old ones; none where the log
/// keeps everything.
async fn pruned<H: Harness>(harness: &H) -> Option<(H::Log, H::Log)> {
    let log = harness.open(1).await;
    if !log.promises().retains {
        return None;
    }
    let other = harness.again(&log).await;
    log.append(&cx_at(1_000), messages("t", "k", 1..=30)).await.unwrap();
    log.append(&cx_at(2_000), messages("t", "k", 31..=40)).await.unwrap();
    assert_eq!(whole(&other, &topic("t"), 0).await.len(), 40);
    harness.prune(&log, Timestamp::from_millis(1_500)).await;
    Some((log, other))
}

/// A reader that retention has passed is told where the log begins now, from wherever it comes; going on from
/// there it gets all that is left.
pub async fn what_retention_took_is_told<H: Harness>(harness: &H) {
    let Some((log, other)) = pruned(harness).await else { return };
    let offsets = harness.offsets().await;
    for log in [&log, &other, &harness.again(&log).await] {
        for asked in [0, 1, 15, 29].map(Offset) {
            let error = log.read(&topic("t"), 0, asked, 10).await.unwrap_err();
            assert_eq!(error, ReadError::Truncated { asked, first: Offset(30) });
            assert_eq!(error.retry(), Retry::Never);
        }
        let left = rest(log, &topic("t"), 0, Offset(30), 4).await;
        assert_eq!(numbers(&left), (31..=40).collect::<Vec<_>>());
    }
    let mut consumer = Consumer::join(other, offsets, group("g"), topic("t")).await.unwrap();
    let error = consumer.next(&cx(), 10, std::time::Duration::ZERO).await.unwrap_err();
    let ConsumeError::Read(ReadError::Truncated { first, .. }) = error else { panic!("{error}") };
    consumer.seek(&cx(), 0, first).await.unwrap();
    let batch = consumer.next(&cx(), 100, std::time::Duration::ZERO).await.unwrap().unwrap();
    assert_eq!(batch.messages.len(), 10);
}

/// When everything is gone the log still knows where it ended, goes on from there, and knows the highest number of
/// each producer.
pub async fn the_end_outlives_what_was_taken<H: Harness>(harness: &H) {
    let Some((log, other)) = pruned(harness).await else { return };
    harness.prune(&log, Timestamp::from_millis(9_000)).await;
    for log in [&log, &other] {
        assert_eq!(log.end(&topic("t"), 0).await.unwrap(), Offset(40));
        let page = log.read(&topic("t"), 0, Offset(40), 10).await.unwrap();
        assert_eq!((page.messages.len(), page.next, page.end), (0, Offset(40), Offset(40)));
        let newest = log.newest(&producer("suite"), 1, 0).await.unwrap();
        assert_eq!(newest, Some((40, ContentHash::of(b"t/k/40"))));
    }
    let places = log.append(&cx_at(10_000), vec![message("t", "k", 41)]).await.unwrap();
    assert_eq!(places, [(0, Offset(41))]);
    assert_eq!(numbers(&rest(&other, &topic("t"), 0, Offset(40), 10).await), [41]);
}

/// Retention takes from the start only, up to the first that is young, though the wall clock may have been set
/// back in between; and only what is old in each topic.
pub async fn retention_takes_only_a_prefix<H: Harness>(harness: &H) {
    let log = harness.open(1).await;
    if !log.promises().retains {
        return;
    }
    for (number, wall) in [(1, 1_000), (2, 5_000), (3, 1_000), (4, 6_000)] {
        log.append(&cx_at(wall), vec![message("t", "k", number)]).await.unwrap();
    }
    log.append(&cx_at(7_000), vec![message("young", "k", 5)]).await.unwrap();
    harness.prune(&log, Timestamp::from_millis(4_000)).await;
    let other = harness.again(&log).await;
    let truncated = ReadError::Truncated { asked: Offset::START, first: Offset(1) };
    assert_eq!(other.read(&topic("t"), 0, Offset::START, 10).await, Err(truncated));
    assert_eq!(numbers(&rest(&other, &topic("t"), 0, Offset(1), 10).await), [2, 3, 4]);
    assert_eq!(numbers(&whole(&other, &topic("young"), 0).await), [5]);
}
