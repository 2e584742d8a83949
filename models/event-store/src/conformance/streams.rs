//! Promises 6 and 12: streams, and that what is handed in comes out as it was.

use std::time::Duration;

use mainstay_envelope::{ManualClock, Timestamp};

use super::Harness;
use super::kit::*;
use crate::*;

/// Promise 6: versions are dense from 1, and a stream is read in their order, from anywhere, both ways.
pub async fn a_stream_reads_both_ways<H: Harness>(harness: &H) {
    const COUNT: u64 = 23;
    let store = harness.open().await;
    let other = harness.again(&store).await;
    let (cx, name, noise) = (cx(), stream("read"), stream("noise"));
    let mut ids = Vec::new();
    for i in 0..COUNT {
        let event = event(&cx, &format!("E{i}"));
        ids.push(event.id);
        let act = Act::append(name.clone(), Expected::Exactly(Version(i)), vec![event]).and(
            noise.clone(),
            Expected::Any,
            events(&cx, 1),
        );
        store.append(&cx, act).await.unwrap();
    }
    for from in [0, 1, 2, 11, COUNT - 1, COUNT, COUNT + 1, u64::MAX] {
        for max in [0, 1, 7, 22, 23, 24, 5_000, usize::MAX] {
            for direction in [Direction::Forwards, Direction::Backwards] {
                let versions: Vec<u64> = match direction {
                    Direction::Forwards => (from.max(1)..=COUNT).take(max).collect(),
                    Direction::Backwards => (1..=COUNT.min(from)).rev().take(max).collect(),
                };
                let page = other.read_stream(&name, Version(from), direction, max).await.unwrap();
                let read: Vec<u64> = page.events.iter().map(|event| event.version.0).collect();
                assert_eq!(read, versions, "{direction:?} from {from}, at most {max}");
                assert_eq!(page.version, Version(COUNT));
                for event in &page.events {
                    assert_eq!((&event.stream, event.id), (&name, ids[event.version.0 as usize - 1]));
                }
            }
        }
    }
    let unknown = store.read_stream(&stream("unknown"), Version(1), Direction::Forwards, 10).await.unwrap();
    assert_eq!((unknown.events, unknown.version), (vec![], Version::EMPTY));
}

/// Names are compared byte by byte: no case, no pattern, no trimming, no composition of characters.
pub async fn similar_names_are_different_streams<H: Harness>(harness: &H) {
    let store = harness.open().await;
    let other = harness.again(&store).await;
    let cx = cx();
    let long = "n".repeat(StreamName::BYTES_MAX);
    #[rustfmt::skip]
    let similar = [
        "a", "A", "a ", " a", "a%", "a_", "ab", "%", "_", "'", "a'--", "\\", "é", "e\u{301}", "É", "1", "01", "1.0",
        "null", "ﬁ", "fi", "ß", "ss", "🦀", &long, &long[1..],
    ];
    for name in similar {
        // A type's name is shorter; the two long ones are told apart by their lengths.
        let kind = if name.len() > 8 { kind(name.len().to_string()) } else { kind(name) };
        let event = NewEvent::new(cx.new_id(), kind, Payload::plain(name.as_bytes())).tagged(tag(name));
        store.append(&cx, Act::append(stream(name), Expected::Empty, vec![event])).await.unwrap();
    }
    for name in similar {
        let page = other.read_stream(&stream(name), Version(1), Direction::Forwards, 10).await.unwrap();
        assert_eq!(page.events.len(), 1, "events of stream {name:?}");
        assert_eq!(&*page.events[0].payload.bytes, name.as_bytes());
        for query in [Query::tags([tag(name)]), Query::types([page.events[0].event_type.clone()])] {
            let found = select(&other, &query, Position::START, 10).await;
            assert_eq!(
                found.iter().map(|event| &event.stream).collect::<Vec<_>>(),
                [&stream(name)],
                "{query:?}"
            );
        }
    }
}

/// What is read is what was handed in, to the last byte, by either handle, in a stream and in the feed.
pub async fn what_is_handed_out_is_what_was_handed_in<H: Harness>(harness: &H) {
    let store = harness.open().await;
    let other = harness.again(&store).await;
    let (cx, name) = (cx_at(&ManualClock::new(Timestamp::from_millis(-1_234_567))), stream("exact"));
    let payloads: [Vec<u8>; 7] = [
        vec![],
        vec![0],
        b"\0\0with zeros\0".to_vec(),
        "{\"text\": \"Ä🦀\"}".into(),
        vec![0xff, 0xfe, 0x80],
        (0..=255).collect(),
        vec![0xa5; limits::PAYLOAD_BYTES_MAX],
    ];
    let mut handed_in: Vec<NewEvent> = payloads
        .iter()
        .enumerate()
        .map(|(i, bytes)| {
            let mut event =
                NewEvent::new(cx.new_id(), kind(format!("Kind {i} Ä")), Payload::plain(bytes.clone()));
            event.schema = if i == 0 { u32::MAX } else { i as u32 };
            event.tags = (0..i * 5).map(|t| tag(format!("tag {} of {i} 🦀", t * 7 % 31))).collect();
            event
        })
        .collect();
    handed_in[3].id = uuid::Uuid::max();
    handed_in[4].id = uuid::Uuid::from_u128(1);
    let done =
        store.append(&cx, Act::append(name.clone(), Expected::Empty, handed_in.clone())).await.unwrap();
    settled(harness, &other, &done.receipt).await;
    for store in [&store, &other] {
        let (in_stream, in_feed) = (whole(store, &name).await, feed(store).await);
        assert_eq!(in_stream, in_feed, "the stream and the feed tell different stories");
        for (i, (recorded, new)) in in_feed.iter().zip(&handed_in).enumerate() {
            assert_eq!(
                (recorded.position, recorded.version),
                (Position(i as u64 + 1), Version(i as u64 + 1))
            );
            assert_eq!((&recorded.stream, recorded.id), (&name, new.id));
            assert_eq!((&recorded.event_type, recorded.schema), (&new.event_type, new.schema));
            assert_eq!(recorded.tags.to_vec(), new.tags);
            assert!(recorded.payload == new.payload, "the payload of event {i} changed");
            assert_eq!(recorded.fact().unwrap(), cx.fact());
            assert_eq!(recorded.at, cx.wall());
        }
        assert_eq!(in_feed.len(), handed_in.len());
    }
}

/// Wall time is kept as it was told, and orders nothing: a clock that jumps back inverts no stream, no feed.
pub async fn wall_time_is_data_and_orders_nothing<H: Harness>(harness: &H) {
    let store = harness.open().await;
    let other = harness.again(&store).await;
    let clock = ManualClock::default();
    let cx = cx_at(&clock);
    let times = [1_000, 999, -1, i64::MAX, i64::MIN, 0, 1_000];
    for (i, &millis) in times.iter().enumerate() {
        clock.set_wall(Timestamp::from_millis(millis));
        let name = stream(if i % 2 == 0 { "even" } else { "odd" });
        let batch = events(&cx, 1);
        let ended = store.transact(&cx, move |tx| {
            tx.outbox(&message(&i.to_string()))?;
            assert_eq!(tx.at().as_millis(), millis);
            Ok::<_, Abort<String>>(tx.append(&name, Expected::Any, &batch)?)
        });
        let done = ended.await.unwrap();
        settled(harness, &other, &done.receipt).await;
        clock.advance(Duration::from_millis(5));
    }
    assert_whole(&[&store, &other], times.len()).await;
    assert_eq!(feed(&other).await.iter().map(|event| event.at.as_millis()).collect::<Vec<_>>(), times);
    let outbox = other.outbox_after(0, 10).await.unwrap();
    assert_eq!(outbox.iter().map(|row| row.at.as_millis()).collect::<Vec<_>>(), times);
}

/// Promise 12: sealed bytes come out as they went in, with the id of their key; plain ones have none.
pub async fn sealed_payloads_keep_their_key_id<H: Harness>(harness: &H) {
    let store = harness.open().await;
    let other = harness.again(&store).await;
    let (cx, name) = (cx(), stream("sealed"));
    let key = |text: &str| KeyId::new(text).unwrap();
    let payloads = [
        Payload::encrypted(key("customer:alice"), vec![7; 300]),
        Payload::plain(vec![7; 300]),
        Payload::encrypted(key(&"k".repeat(KeyId::BYTES_MAX)), vec![]),
        Payload::encrypted(key("0"), *b"\0"),
    ];
    let sealed: Vec<_> =
        payloads.iter().map(|payload| NewEvent::new(cx.new_id(), kind("Sealed"), payload.clone())).collect();
    let done = store.append(&cx, Act::append(name.clone(), Expected::Any, sealed)).await.unwrap();
    settled(harness, &other, &done.receipt).await;
    for events in [whole(&other, &name).await, feed(&other).await] {
        assert_eq!(events.iter().map(|event| event.payload.clone()).collect::<Vec<_>>(), payloads);
        let mut verifier = Verifier::new(store.id());
        for event in &events {
            verifier.check(event).unwrap();
            // The key's id is part of what the chain proves.
            let mut turned = event.clone();
            turned.payload.key = turned.payload.key.is_none().then(|| key("customer:alice"));
            assert_ne!(chain::content_of(&turned), chain::content_of(event));
        }
    }
}
