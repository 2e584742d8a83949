//! Promises 1 to 4: three outcomes, expected versions, idempotence, all or nothing.

use std::sync::Arc;

use tokio::sync::Barrier;

use super::Harness;
use super::kit::*;
use crate::*;

/// Promise 1: whoever was told "acknowledged" finds it, at once, through another handle; also under load.
pub async fn acknowledged_is_visible_to_a_fresh_reader<H: Harness>(harness: &H) {
    let store = harness.open().await;
    let other = harness.again(&store).await;
    let cx = cx();
    for round in 1..=20 {
        let (a, b) = (stream("a"), stream(format!("b{round}")));
        let events = [event(&cx, "X"), event(&cx, "Y")];
        let [x, y] = events.clone().map(|event| vec![event]);
        let act = Act::append(a.clone(), Expected::Any, x).and(b.clone(), Expected::Empty, y);
        let done = store.append(&cx, act).await.unwrap();
        assert_eq!(done.versions, [(a.clone(), Version(round)), (b.clone(), Version(1))]);
        assert!(!done.repeated);
        for (name, version, event) in [(&a, Version(round), &events[0]), (&b, Version(1), &events[1])] {
            let page = other.read_stream(name, version, Direction::Forwards, 10).await.unwrap();
            assert_eq!(page.version, version, "{name} after it was acknowledged");
            assert_eq!(page.events.iter().map(|event| event.id).collect::<Vec<_>>(), [event.id]);
        }
        let end = settled(harness, &other, &done.receipt).await;
        assert!(other.head().await.unwrap().position >= end);
        let page = other.read(&Query::all(), Position(end.0 - 1), 1).await.unwrap();
        assert_eq!(page.events[0].id, events[1].id, "the receipt's position is that of the act's last event");
    }
    // Under load acknowledgements come in groups: each must still hold when it is heard.
    let writers: Vec<_> = (0..8)
        .map(|writer| {
            let (store, other) = if writer % 2 == 0 { (&store, &other) } else { (&other, &store) };
            let (store, other) = (store.clone(), other.clone());
            tokio::spawn(async move {
                let (cx, name) = (super::kit::cx(), stream(format!("writer-{writer}")));
                for round in 1..=12 {
                    let done =
                        store.append(&cx, act(&cx, &name, Expected::Exactly(Version(round - 1)))).await;
                    assert_eq!(done.unwrap().versions[0].1, Version(round));
                    let seen =
                        other.read_stream(&name, Version(round), Direction::Forwards, 1).await.unwrap();
                    assert_eq!(
                        (seen.version, seen.events.len()),
                        (Version(round), 1),
                        "acknowledged, not there"
                    );
                }
            })
        })
        .collect();
    for writer in writers {
        writer.await.unwrap();
    }
    assert_whole(&[&store, &other], 20 * 2 + 8 * 12).await;
}

/// Promise 1: nothing of a refused act is ever seen; and what a refusal says of others' acts is there already.
pub async fn refused_is_never_visible<H: Harness>(harness: &H) {
    let store = harness.open().await;
    let other = harness.again(&store).await;
    let (cx, a, b) = (cx(), stream("a"), stream("b"));
    store
        .append(
            &cx,
            act(&cx, &a, Expected::Empty).unless(Condition { query: Query::all(), after: Position(0) }),
        )
        .await
        .unwrap();
    let fresh = || event(&cx, "Refused");
    let huge = Payload::plain(vec![0; limits::PAYLOAD_BYTES_MAX + 1]);
    let refused = [
        Act::append(b.clone(), Expected::Any, vec![fresh()]).and(a.clone(), Expected::Empty, vec![fresh()]),
        Act::append(b.clone(), Expected::Exists, vec![fresh()]),
        Act::append(b.clone(), Expected::Any, vec![fresh()])
            .unless(Condition { query: Query::types([kind("Happened")]), after: Position::START }),
        Act::append(b.clone(), Expected::Any, vec![fresh(), NewEvent::new(cx.new_id(), kind("Huge"), huge)]),
    ];
    for act in refused {
        refusal(store.append(&cx, act).await);
        for store in [&store, &other] {
            assert_eq!(version(store, &b).await, Version::EMPTY);
            assert_eq!(names(&feed(store).await), ["Happened"]);
        }
    }
    // Racers on one stream: a loser is told a version, and that version must be on disk when it hears of it.
    let writers: Vec<_> = (0..6)
        .map(|writer| {
            let (store, other) = if writer % 2 == 0 { (&store, &other) } else { (&other, &store) };
            let (store, other, a) = (store.clone(), other.clone(), a.clone());
            tokio::spawn(async move {
                let (cx, mut believed, mut won) = (super::kit::cx(), Version(1), 0);
                while won < 8 {
                    match store.append(&cx, act(&cx, &a, Expected::Exactly(believed))).await {
                        Ok(done) => (believed, won) = (done.versions[0].1, won + 1),
                        ended => {
                            let Refusal::Conflict { actual, .. } = refusal(ended) else {
                                panic!("no conflict")
                            };
                            assert!(actual > believed, "refused by version {actual}, expected {believed}");
                            let seen = other.read_stream(&a, actual, Direction::Forwards, 1).await.unwrap();
                            assert!(
                                seen.version >= actual && !seen.events.is_empty(),
                                "{actual} is not there yet"
                            );
                            believed = actual;
                        }
                    }
                }
            })
        })
        .collect();
    for writer in writers {
        writer.await.unwrap();
    }
    assert_whole(&[&store, &other], 1 + 6 * 8).await;
}

/// Promise 2: each expectation allows what it says and nothing else, and a refusal tells the actual version.
pub async fn expected_versions_are_checked<H: Harness>(harness: &H) {
    let store = harness.open().await;
    let other = harness.again(&store).await;
    let (cx, full, empty) = (cx(), stream("full"), stream("empty"));
    store.append(&cx, Act::append(full.clone(), Expected::Empty, events(&cx, 3))).await.unwrap();
    let exactly = |version| Expected::Exactly(Version(version));
    let wrong = [
        (&full, Expected::Empty),
        (&full, exactly(0)),
        (&full, exactly(2)),
        (&full, exactly(4)),
        (&full, exactly(u64::MAX)),
        (&empty, Expected::Exists),
        (&empty, exactly(1)),
    ];
    for (name, expected) in wrong {
        for store in [&store, &other] {
            let refused = refusal(store.append(&cx, act(&cx, name, expected)).await);
            let actual = Version(if name == &full { 3 } else { 0 });
            assert_eq!(refused, Refusal::Conflict { stream: name.clone(), expected, actual });
            assert_eq!(refused.retry(), Retry::AfterReading);
        }
    }
    let right = [
        (&full, Expected::Any),
        (&full, Expected::Exists),
        (&full, exactly(5)),
        (&empty, exactly(0)),
        (&empty, Expected::Any),
    ];
    for (i, (name, expected)) in right.into_iter().enumerate() {
        let store = if i % 2 == 0 { &store } else { &other };
        store.append(&cx, act(&cx, name, expected)).await.unwrap();
    }
    assert_whole(&[&store, &other], 8).await;
}

/// Promise 2: of many that expect the same version, through two handles, one is acknowledged.
pub async fn one_winner_among_racers<H: Harness>(harness: &H) {
    const ROUNDS: u64 = 12;
    const RACERS: usize = 16;
    let store = harness.open().await;
    let other = harness.again(&store).await;
    let name = stream("contested");
    for round in 0..ROUNDS {
        let start = Arc::new(Barrier::new(RACERS));
        let racers: Vec<_> = (0..RACERS)
            .map(|racer| {
                let store = if racer % 2 == 0 { store.clone() } else { other.clone() };
                let (name, start) = (name.clone(), Arc::clone(&start));
                tokio::spawn(async move {
                    let cx = cx();
                    let act = act(&cx, &name, Expected::Exactly(Version(round)));
                    start.wait().await;
                    store.append(&cx, act).await
                })
            })
            .collect();
        let mut won = 0;
        for racer in racers {
            match racer.await.unwrap() {
                Ok(done) => {
                    assert_eq!(done.versions[0].1, Version(round + 1));
                    won += 1;
                }
                ended => assert!(matches!(
                    refusal(ended),
                    Refusal::Conflict { actual, .. } if actual == Version(round + 1)
                )),
            }
        }
        assert_eq!(won, 1, "winners in round {round}");
    }
    assert_whole(&[&store, &other], ROUNDS as usize).await;
}

/// Promise 3: the same act again is acknowledged with the same versions, and nothing is written, whatever it
/// expects, whoever hands it in, and whatever happened since.
pub async fn the_same_act_again_is_acknowledged_and_not_doubled<H: Harness>(harness: &H) {
    let store = harness.open().await;
    let other = harness.again(&store).await;
    let (cx, a, b, c) = (cx(), stream("a"), stream("b"), stream("c"));
    let only_once = Condition { query: Query::types([kind("E0")]), after: Position::START };
    let first = Act::append(a.clone(), Expected::Empty, events(&cx, 3))
        .and(c.clone(), Expected::Empty, vec![])
        .and(b.clone(), Expected::Empty, vec![event(&cx, "B").tagged(tag("t"))])
        .unless(only_once);
    let done = store.append(&cx, first.clone()).await.unwrap();
    let end = settled(harness, &store, &done.receipt).await;
    store.append(&cx, act(&cx, &a, Expected::Any)).await.unwrap();

    for (i, expected) in
        [Expected::Empty, Expected::Exactly(Version(77)), Expected::Any].into_iter().enumerate()
    {
        let store = if i % 2 == 0 { &other } else { &store };
        let mut again = first.clone();
        again.streams.iter_mut().for_each(|part| part.expected = expected);
        // A retry is handed in later, by another process: its envelope and time are its own.
        let repeated = store.append(&super::kit::cx(), again).await.unwrap();
        assert!(repeated.repeated);
        assert_eq!(repeated.versions, done.versions, "expecting {expected}");
        assert_eq!(repeated.receipt.store(), store.id());
        assert!(settled(harness, store, &repeated.receipt).await >= end, "its receipt must cover the act");
    }
    // In one act the streams may stand in another order: they are recorded each in its own.
    let mut turned = first.clone();
    turned.streams.reverse();
    assert!(store.append(&cx, turned).await.unwrap().repeated);
    assert_whole(&[&store, &other], 5).await;
}

/// Promise 3, in one group commit: identical acts handed in at the same moment are recorded once, and exactly
/// one of the answers says that it was first.
pub async fn the_same_act_at_the_same_time_is_recorded_once<H: Harness>(harness: &H) {
    const ROUNDS: usize = 15;
    let store = harness.open().await;
    let other = harness.again(&store).await;
    for round in 0..ROUNDS {
        let (cx, name) = (cx(), stream(format!("s{round}")));
        // Every third round the act would also conflict with itself, were it taken for another one.
        let expected = if round % 3 == 0 { Expected::Empty } else { Expected::Any };
        let act = Act::append(name, expected, events(&cx, 2));
        let start = Arc::new(Barrier::new(6));
        let senders: Vec<_> = (0..6)
            .map(|sender| {
                // Most through one handle, so that they meet in one group; some through the other.
                let store = if sender < 4 { store.clone() } else { other.clone() };
                let (act, start, cx) = (act.clone(), Arc::clone(&start), cx.clone());
                tokio::spawn(async move {
                    start.wait().await;
                    store.append(&cx, act).await
                })
            })
            .collect();
        let mut first = 0;
        for sender in senders {
            let done = sender.await.unwrap().unwrap();
            assert_eq!(done.versions[0].1, Version(2));
            first += usize::from(!done.repeated);
        }
        assert_eq!(first, 1, "answers that say they were first, round {round}");
    }
    assert_whole(&[&store, &other], ROUNDS * 2).await;
}

/// Promise 3: an id names one event for ever. Anything else under it is refused, and nothing is written.
pub async fn an_id_taken_by_another_event_is_refused<H: Harness>(harness: &H) {
    let store = harness.open().await;
    let other = harness.again(&store).await;
    let (cx, a, b) = (cx(), stream("a"), stream("b"));
    let [x, y, z] = ["X", "Y", "Z"].map(|name| event(&cx, name).tagged(tag("t")).tagged(tag("u")));
    let append = |stream: &StreamName, events: &[&NewEvent]| {
        Act::append(stream.clone(), Expected::Any, events.iter().map(|&event| event.clone()).collect())
    };
    let changed = |change: fn(&mut NewEvent)| {
        let mut event = x.clone();
        change(&mut event);
        append(&a, &[&event, &y])
    };
    store.append(&cx, append(&a, &[&x, &y])).await.unwrap();
    store.append(&cx, append(&b, &[&z])).await.unwrap();
    let fresh = event(&cx, "Fresh");
    let taken = [
        ("another payload", changed(|event| event.payload = Payload::plain(*b"other"))),
        ("sealed bytes", changed(|event| event.payload.key = Some(KeyId::new("k").unwrap()))),
        ("another type", changed(|event| event.event_type = kind("Other"))),
        ("another schema", changed(|event| event.schema = 2)),
        ("a tag less", changed(|event| drop(event.tags.pop()))),
        ("another order of tags", changed(|event| event.tags.reverse())),
        ("another stream", append(&b, &[&x, &y])),
        ("another order", append(&a, &[&y, &x])),
        ("only one new, last", append(&a, &[&x, &y, &fresh])),
        ("only one new, first", append(&a, &[&fresh, &x])),
        (
            "recorded by two acts, and one new",
            append(&a, &[&x]).and(b.clone(), Expected::Any, vec![fresh.clone()]),
        ),
        ("the same id twice", append(&a, &[&fresh, &fresh])),
    ];
    for (what, act) in taken {
        let refused = refusal(store.append(&cx, act).await);
        assert!(matches!(refused, Refusal::IdTaken { .. }), "{what}: {refused}");
        assert_eq!(refused.retry(), Retry::Never);
        assert_whole(&[&store, &other], 3).await;
    }
    // A part of an earlier act, in its order, is recorded: whoever hands it in again is told so.
    for part in [append(&a, &[&x]), append(&a, &[&y])] {
        assert!(other.append(&cx, part).await.unwrap().repeated);
    }
    // Two different events with one id at the same moment: one is recorded.
    for round in 0..10 {
        let id = cx.new_id();
        let start = Arc::new(Barrier::new(4));
        let senders: Vec<_> = (0..4)
            .map(|sender| {
                let store = if sender < 3 { store.clone() } else { other.clone() };
                let (start, cx) = (Arc::clone(&start), cx.clone());
                tokio::spawn(async move {
                    let event = NewEvent::new(id, kind("Racer"), Payload::plain([sender]));
                    let act = Act::append(
                        stream(format!("race-{round}-{}", sender % 2)),
                        Expected::Any,
                        vec![event],
                    );
                    start.wait().await;
                    store.append(&cx, act).await
                })
            })
            .collect();
        let mut won = 0;
        for sender in senders {
            match sender.await.unwrap() {
                Ok(_) => won += 1,
                ended => assert!(matches!(refusal(ended), Refusal::IdTaken { id: taken, .. } if taken == id)),
            }
        }
        assert_eq!(won, 1);
    }
    assert_whole(&[&store, &other], 3 + 10).await;
}

/// Promise 4: streams of one act are written together, in the act's order, or not at all.
pub async fn several_streams_in_one_act<H: Harness>(harness: &H) {
    let store = harness.open().await;
    let other = harness.again(&store).await;
    let cx = cx();
    let [a, b, c] = ["a", "b", "c"].map(stream);
    let part = |names: &[&str]| names.iter().map(|name| event(&cx, name)).collect::<Vec<_>>();
    let all = Act::append(b.clone(), Expected::Empty, part(&["B1", "B2"]))
        .and(a.clone(), Expected::Empty, part(&["A1"]))
        .and(c.clone(), Expected::Any, part(&["C1", "C2"]));
    let done = store.append(&cx, all).await.unwrap();
    assert_eq!(done.versions, [(b.clone(), Version(2)), (a.clone(), Version(1)), (c.clone(), Version(2))]);
    settled(harness, &other, &done.receipt).await;
    assert_eq!(names(&feed(&other).await), ["B1", "B2", "A1", "C1", "C2"]);

    // Whichever part conflicts, and wherever the others stand: nothing of any of them is written.
    for conflicting in 0..3 {
        let mut act = Act::default();
        for (i, (name, version)) in [(&a, 1), (&b, 2), (&c, 2)].into_iter().enumerate() {
            let version = if i == conflicting { version + 1 } else { version };
            act = act.and(name.clone(), Expected::Exactly(Version(version)), part(&["No"]));
        }
        let refused = refusal(store.append(&cx, act).await);
        let (name, actual) = [(&a, 1), (&b, 2), (&c, 2)][conflicting];
        assert!(
            matches!(&refused, Refusal::Conflict { stream, actual: now, .. } if stream == name && now.0 == actual),
            "{refused}"
        );
        assert_whole(&[&store, &other], 5).await;
    }

    // Transfers between two streams, through two handles, while somebody looks: both sides or none.
    let writers: Vec<_> = (0..4)
        .map(|writer| {
            let store = if writer % 2 == 0 { store.clone() } else { other.clone() };
            tokio::spawn(async move {
                let cx = super::kit::cx();
                for _ in 0..10 {
                    let act = act(&cx, &stream("from"), Expected::Any).and(
                        stream("to"),
                        Expected::Any,
                        vec![event(&cx, "In")],
                    );
                    store.append(&cx, act).await.unwrap();
                }
            })
        })
        .collect();
    for _ in 0..30 {
        // Read in this order, a half-done act would show more on the left than on the right.
        let from = version(&other, &stream("from")).await;
        let to = version(&other, &stream("to")).await;
        assert!(from <= to, "{from} events left, {to} arrived");
    }
    for writer in writers {
        writer.await.unwrap();
    }
    assert_whole(&[&store, &other], 5 + 80).await;
}

/// Promise 4: a stream that is named without events is held to what is expected of it, and stays as it is.
pub async fn a_stream_without_events_is_only_checked<H: Harness>(harness: &H) {
    let store = harness.open().await;
    let other = harness.again(&store).await;
    let (cx, account, limit) = (cx(), stream("account"), stream("limit"));
    store.append(&cx, Act::append(limit.clone(), Expected::Empty, events(&cx, 2))).await.unwrap();
    let withdraw = |expected| act(&cx, &account, Expected::Any).and(limit.clone(), expected, vec![]);
    let done = store.append(&cx, withdraw(Expected::Exactly(Version(2)))).await.unwrap();
    assert_eq!(done.versions, [(account.clone(), Version(1)), (limit.clone(), Version(2))]);
    for wrong in [Expected::Exactly(Version(1)), Expected::Exactly(Version(3)), Expected::Empty] {
        let refused = refusal(store.append(&cx, withdraw(wrong)).await);
        let expected = Refusal::Conflict { stream: limit.clone(), expected: wrong, actual: Version(2) };
        assert_eq!(refused, expected);
    }
    // An act of checks alone records nothing; it is acknowledged or refused all the same.
    let check = |expected| Act::append(limit.clone(), expected, vec![]);
    let done = other.append(&cx, check(Expected::Exists)).await.unwrap();
    assert_eq!((done.versions, done.repeated), (vec![(limit.clone(), Version(2))], false));
    settled(harness, &store, &done.receipt).await;
    refusal(other.append(&cx, check(Expected::Empty)).await);
    assert_whole(&[&store, &other], 3).await;
}
