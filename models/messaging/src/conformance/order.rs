//! Promises on reading: order per key, stable partitions, whole pages, any number of readers.

use std::collections::HashMap;
use std::time::{Duration, Instant};

use super::Harness;
use super::kit::*;
use crate::*;

/// Whoever appends the messages of a key one after another finds them in that order, though many append at once.
pub async fn order_is_kept_per_key<H: Harness>(harness: &H) {
    const KEYS: u64 = 8;
    const APPENDS: u64 = 25;
    let log = harness.open(3).await;
    let tasks: Vec<_> = (0..KEYS)
        .map(|key| {
            let log = log.clone();
            tokio::spawn(async move {
                for append in 0..APPENDS {
                    // Numbers of one key rise; batches of one to three.
                    let first = append * 3 + 1;
                    let batch = messages("t", &format!("key-{key}"), first..=first + append % 3);
                    log.append(&cx(), batch).await.unwrap();
                }
            })
        })
        .collect();
    for task in tasks {
        task.await.unwrap();
    }
    let mut last: HashMap<String, u64> = HashMap::new();
    let found = all(&harness.again(&log).await, &topic("t")).await;
    for delivered in &found {
        let number = delivered.message.identity.seq;
        let before = last.insert(delivered.message.key.clone(), number).unwrap_or(0);
        assert!(number > before, "{number} of {} after {before}", delivered.message.key);
    }
    let of_a_key: u64 = (0..APPENDS).map(|append| append % 3 + 1).sum();
    assert_eq!((last.len() as u64, found.len() as u64), (KEYS, KEYS * of_a_key));
}

/// A key's partition is the documented function of the key: the same for every append, topic and handle.
pub async fn a_key_stays_in_its_partition<H: Harness>(harness: &H) {
    let log = harness.open(4).await;
    assert_eq!(log.partitions(), 4);
    let keys: Vec<String> = (0..40).map(|key| format!("key-{key}")).collect();
    for (number, topic_name) in [(1, "t"), (2, "t"), (3, "u")] {
        let batch = keys.iter().map(|key| message(topic_name, key, number)).collect();
        let places = log.append(&cx(), batch).await.unwrap();
        for (key, (partition, _)) in keys.iter().zip(places) {
            assert_eq!(partition, partition_of(key, 4), "{key}");
        }
    }
    let other = harness.again(&log).await;
    for partition in 0..4 {
        let found = whole(&other, &topic("t"), partition).await;
        assert!(!found.is_empty(), "no key of 40 is in partition {partition}");
        assert!(found.iter().all(|delivered| partition_of(&delivered.message.key, 4) == partition));
    }
}

/// Each partition of each topic has its own messages, its own end, and nobody else's.
pub async fn topics_and_partitions_are_apart<H: Harness>(harness: &H) {
    let log = harness.open(2).await;
    let names = ["a", "A", "a ", "a/1", "ä", "%", "_"];
    for round in 1..=3 {
        for (i, name) in names.iter().enumerate() {
            let batch = messages(name, "k", round * 10 + i as u64..=round * 10 + i as u64);
            log.append(&cx(), batch).await.unwrap();
        }
    }
    let other = harness.again(&log).await;
    let partition = partition_of("k", 2);
    for (i, name) in names.iter().enumerate() {
        let found = whole(&other, &topic(name), partition).await;
        assert_eq!(numbers(&found), [10, 20, 30].map(|round| round + i as u64), "{name}");
        assert!(found.iter().all(|delivered| delivered.message.topic.as_str() == *name));
        assert_eq!(other.end(&topic(name), partition).await.unwrap(), found[2].offset);
        assert_eq!(other.end(&topic(name), 1 - partition).await.unwrap(), Offset::START);
    }
    assert_eq!(whole(&other, &topic("never"), 0).await, []);
}

/// Pages of every size lose and double nothing, and go on from any message's place.
pub async fn pages_lose_and_double_nothing<H: Harness>(harness: &H) {
    let log = harness.open(1).await;
    for first in [1, 4, 5, 20] {
        log.append(&cx(), messages("t", "k", first..=first + 15)).await.unwrap();
    }
    let other = harness.again(&log).await;
    let whole = whole(&other, &topic("t"), 0).await;
    assert_eq!(whole.len(), 64);
    for max in [1, 7, 64, 1_000] {
        assert_eq!(rest(&other, &topic("t"), 0, Offset::START, max).await, whole, "pages of {max}");
    }
    for (i, delivered) in whole.iter().enumerate() {
        assert_eq!(rest(&other, &topic("t"), 0, delivered.offset, 10).await, whole[i + 1..]);
    }
}

/// Readers that follow while others append all see the same: every message once, in one order.
pub async fn many_readers_see_the_same<H: Harness>(harness: &H) {
    const READERS: usize = 6;
    const APPENDS: u64 = 40;
    let log = harness.open(1).await;
    let mut readers = Vec::new();
    for reader in 0..READERS {
        let log = if reader % 2 == 0 { log.clone() } else { harness.again(&log).await };
        readers.push(tokio::spawn(async move {
            let mut seen: Vec<Delivered> = Vec::new();
            while (seen.len() as u64) < 2 * APPENDS {
                let after = seen.last().map_or(Offset::START, |last| last.offset);
                let page = log.read(&topic("t"), 0, after, 1 + reader * 3).await.unwrap();
                if page.messages.is_empty() {
                    log.wait_past(&topic("t"), 0, after, RECHECK).await;
                }
                seen.extend(page.messages);
            }
            seen
        }));
    }
    let writers: Vec<_> = [1_000, 2_000]
        .map(|base| {
            let log = log.clone();
            tokio::spawn(async move {
                for number in 0..APPENDS {
                    log.append(&cx(), vec![message("t", "k", base + number)]).await.unwrap();
                }
            })
        })
        .into();
    for writer in writers {
        writer.await.unwrap();
    }
    let expected = whole(&harness.again(&log).await, &topic("t"), 0).await;
    assert_eq!(expected.len() as u64, 2 * APPENDS);
    for reader in readers {
        assert_eq!(reader.await.unwrap(), expected);
    }
}

/// A reader that waits is woken by an append, from whichever handle, well before it would look by itself; waiting
/// ends by itself when nothing comes, and may be given up.
pub async fn a_waiting_reader_is_woken_and_may_be_cancelled<H: Harness>(harness: &H) {
    let log = harness.open(1).await;
    let t = topic("t");
    let other = harness.again(&log).await;
    for reader in [&log, &other] {
        let begun = Instant::now();
        let after = reader.end(&t, 0).await.unwrap();
        reader.wait_past(&t, 0, after, Duration::from_millis(20)).await;
        assert!(begun.elapsed() < Duration::from_secs(10), "it ends by itself");
        // Given up at once, and a hundred times: nothing is left behind that would hurt.
        for _ in 0..100 {
            let _ = tokio::time::timeout(Duration::ZERO, reader.wait_past(&t, 0, after, RECHECK)).await;
        }
        let mut quick = 0;
        for round in 1..=5 {
            let after = reader.end(&t, 0).await.unwrap();
            let waiter = {
                let reader = reader.clone();
                let t = t.clone();
                tokio::spawn(async move {
                    while reader.end(&t, 0).await.unwrap() <= after {
                        reader.wait_past(&t, 0, after, Duration::from_secs(30)).await;
                    }
                    Instant::now()
                })
            };
            // Most likely it waits by now; if not, it finds the message without waiting.
            tokio::time::sleep(Duration::from_millis(50)).await;
            log.append(&cx(), vec![message("t", "k", round)]).await.unwrap();
            let told = Instant::now();
            let woken = waiter.await.unwrap();
            quick += usize::from(woken.saturating_duration_since(told) < RECHECK / 2);
        }
        // By its own looks, one every second, it would be this quick in half of the rounds or fewer.
        assert!(quick >= 4, "woken in time in {quick} of 5 rounds");
    }
}
