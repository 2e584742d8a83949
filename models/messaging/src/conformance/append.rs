//! Promises on appending: durable and visible, unchanged, all or nothing, known by number, bounded.

use std::time::{Duration, Instant};

use mainstay_envelope::{Actor, CausationId, CloudEvent, ContentHash, CorrelationId, Fact, Timestamp};

use super::Harness;
use super::kit::*;
use crate::*;

/// What was acknowledged is seen by a reader that is opened after it, at the place that was told.
pub async fn acknowledged_is_visible_to_a_fresh_reader<H: Harness>(harness: &H) {
    let log = harness.open(1).await;
    for number in 1..=20 {
        let places = log.append(&cx(), vec![message("orders", "k", number)]).await.unwrap();
        let fresh = harness.again(&log).await;
        assert_eq!(fresh.end(&topic("orders"), 0).await.unwrap(), places[0].1);
        let found = whole(&fresh, &topic("orders"), 0).await;
        assert_eq!(numbers(&found), (1..=number).collect::<Vec<_>>());
        assert_eq!((found.last().unwrap().partition, found.last().unwrap().offset), places[0]);
    }
}

/// Key, attributes, data, identity and mark come out as they went in; the time is that of the append.
pub async fn what_is_handed_out_is_what_was_handed_in<H: Harness>(harness: &H) {
    let log = harness.open(3).await;
    let fact = Fact {
        correlation: CorrelationId(cx().new_id()),
        causation: Some(CausationId(cx().new_id())),
        actor: Some(Actor::new("ada 🦀").unwrap()),
        ..Fact::default()
    };
    let rich = CloudEvent::new("id \"quoted\"", "https://shop.example/order?x=%20", "Ünïcode")
        .and_then(|event| event.with_subject("the subject"))
        .and_then(|event| event.with_time(Timestamp::from_millis(1_234_567_890_123)))
        .and_then(|event| event.with_data_content_type("application/octet-stream"))
        .and_then(|event| event.with_data_schema("urn:schema:1"))
        .and_then(|event| event.with_extension("empty", ""))
        .and_then(|event| event.with_fact(&fact))
        .unwrap();
    let mut given = Vec::new();
    for (number, key, data) in [
        (1, "", &b""[..]),
        (i64::MAX as u64, "Ä \0 key", &[0, 159, 146, 150, 255]),
        (7, &"k".repeat(limits::KEY_BYTES_MAX), &vec![b'x'; limits::DATA_BYTES_MAX]),
    ] {
        let mut one = message("what/is here", key, number);
        one.data = data.to_vec().into();
        one.event = rich.clone();
        one.mark = if number == 1 { 0 } else { number };
        one.identity.epoch = u32::MAX;
        one.identity.partition = 5;
        given.push(one);
    }
    let at = 1_700_000_000_001;
    let places = log.append(&cx_at(at), given.clone()).await.unwrap();
    let other = harness.again(&log).await;
    for (given, (partition, offset)) in given.iter().zip(places) {
        let page = other.read(&given.topic, partition, Offset(offset.0 - 1), 1).await.unwrap();
        let [found] = &page.messages[..] else { panic!("{page:?}") };
        assert_eq!(&found.message, given);
        assert_eq!((found.offset, found.partition), (offset, partition));
        assert_eq!(found.published, Timestamp::from_millis(at));
        assert_eq!(found.message.event.fact().unwrap(), fact);
    }
}

/// An append of several messages for several partitions is seen whole or not at all, also while it happens; one
/// that is refused leaves nothing.
pub async fn an_append_is_all_or_nothing<H: Harness>(harness: &H) {
    const APPENDS: u64 = 50;
    let log = harness.open(1).await;
    let other = harness.again(&log).await;
    let looking = tokio::spawn(async move {
        loop {
            let end = other.end(&topic("a"), 0).await.unwrap().0;
            // Each append has three of these: whoever sees a part of one sees all.
            let seen = whole(&other, &topic("a"), 0).await.len() as u64;
            assert!(seen >= end && seen.is_multiple_of(3), "{seen} messages, at least {end}");
            if end == APPENDS * 3 {
                return;
            }
            other.wait_past(&topic("a"), 0, Offset(end), RECHECK).await;
        }
    });
    for number in 0..APPENDS {
        let mut batch = messages("a", "k", number * 3 + 1..=number * 3 + 3);
        let mut refused = batch.clone();
        refused[2].key = "k".repeat(limits::KEY_BYTES_MAX + 1);
        assert!(matches!(log.append(&cx(), refused).await, Err(AppendError::Invalid { .. })));
        batch.push(message("b", "k", number + 1));
        assert_eq!(log.append(&cx(), batch).await.unwrap().len(), 4);
    }
    looking.await.unwrap();
    assert_eq!(whole(&log, &topic("b"), 0).await.len() as u64, APPENDS);
}

/// The highest number of each producer, epoch and sequence is known with its content, whatever order the
/// messages came in and whichever topics they went to.
pub async fn the_newest_of_each_producer_is_known<H: Harness>(harness: &H) {
    let log = harness.open(2).await;
    let of = |name: &str, epoch, partition, number, data: &str| {
        let mut one = message("t", data, number);
        one.identity.producer = producer(name);
        (one.identity.epoch, one.identity.partition) = (epoch, partition);
        one.identity.content = ContentHash::of(data.as_bytes());
        one
    };
    assert_eq!(log.newest(&producer("a"), 1, 0).await.unwrap(), None);
    let batch = vec![of("a", 1, 0, 1, "one")];
    log.append(&cx(), batch).await.unwrap();
    assert_eq!(log.newest(&producer("a"), 1, 0).await.unwrap(), Some((1, ContentHash::of(b"one"))));
    let batch = vec![
        of("a", 1, 0, 5, "five"),
        of("a", 1, 0, 3, "three"),
        of("a", 2, 0, 1, "other epoch"),
        of("a", 1, 1, 9, "other sequence"),
        of("b", 1, 0, 2, "other producer"),
    ];
    log.append(&cx(), batch).await.unwrap();
    log.append(&cx(), vec![of("a", 1, 0, 4, "four")]).await.unwrap();
    let other = harness.again(&log).await;
    for log in [&log, &other] {
        for (name, epoch, partition, newest) in [
            ("a", 1, 0, Some((5, "five"))),
            ("a", 2, 0, Some((1, "other epoch"))),
            ("a", 1, 1, Some((9, "other sequence"))),
            ("b", 1, 0, Some((2, "other producer"))),
            ("b", 2, 0, None),
            ("c", 1, 0, None),
        ] {
            let expected = newest.map(|(number, data)| (number, ContentHash::of(data.as_bytes())));
            let found = log.newest(&producer(name), epoch, partition).await.unwrap();
            assert_eq!(found, expected, "{name} {epoch} {partition}");
        }
    }
}

/// The same messages appended again, as after a lost answer: a log that deduplicates has them once, any other
/// twice, under the same identity.
pub async fn a_repeated_append_stands_twice_or_is_dropped_as_promised<H: Harness>(harness: &H) {
    let log = harness.open(1).await;
    let batch = messages("t", "k", 1..=2);
    log.append(&cx(), batch.clone()).await.unwrap();
    log.append(&cx(), batch.clone()).await.unwrap();
    let found = whole(&harness.again(&log).await, &topic("t"), 0).await;
    let expected = if log.promises().deduplicates { vec![1, 2] } else { vec![1, 2, 1, 2] };
    assert_eq!(numbers(&found), expected);
    assert!(found.iter().zip(batch.iter().cycle()).all(|(found, given)| found.message == *given));
}

/// While the disk does not answer, appends are refused as busy, in bounded time; and what is more than any log may
/// hold is refused at once instead of piling up. What was refused never shows, and afterwards it goes on by itself.
/// Only where the harness can stall the log.
pub async fn what_waits_is_bounded<H: Harness>(harness: &H) {
    const APPENDS: u64 = 3_000;
    const WAIT: Duration = Duration::from_secs(4);
    if !harness.features().stalls {
        return;
    }
    let log = harness.open(1).await;
    log.append(&cx(), vec![message("t", "k", 1)]).await.unwrap();
    harness.stall(&log, true).await;
    let begun = Instant::now();
    let tasks: Vec<_> = (0..APPENDS)
        .map(|number| {
            let log = log.clone();
            tokio::spawn(async move {
                let mut large = message("t", "k", 1_000 + number);
                large.data = vec![0; 64 << 10].into();
                let begun = Instant::now();
                (log.append(&cx().with_deadline(WAIT), vec![large]).await, begun.elapsed())
            })
        })
        .collect();
    let mut at_once = 0;
    for task in tasks {
        let (ended, took) = task.await.unwrap();
        let error = ended.unwrap_err();
        assert!(matches!(error, AppendError::Busy { .. }), "{error}");
        assert_eq!(error.retry(), Retry::Later);
        at_once += usize::from(took < WAIT / 4);
    }
    assert!(begun.elapsed() < 10 * WAIT, "refused only after {:?}", begun.elapsed());
    assert!(at_once >= 1_000, "only {at_once} of {APPENDS} were refused at once");
    harness.stall(&log, false).await;
    log.append(&cx(), vec![message("t", "k", 2)]).await.unwrap();
    assert_eq!(numbers(&whole(&harness.again(&log).await, &topic("t"), 0).await), [1, 2]);
}
