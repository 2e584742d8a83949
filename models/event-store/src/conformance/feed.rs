//! Promises 7 and 11: the feed of all events, and receipts.

use super::Harness;
use super::kit::*;
use crate::*;

/// Promise 7: positions are dense from 1, whatever was refused or rolled back in between, and what was handed
/// out never changes.
pub async fn positions_are_dense<H: Harness>(harness: &H) {
    const WRITERS: u64 = 6;
    const ROUNDS: u64 = 12;
    let store = harness.open().await;
    let other = harness.again(&store).await;
    assert_eq!(feed(&other).await, []);
    assert_eq!(
        other.head().await.unwrap(),
        Head { position: Position::START, hash: chain::genesis(store.id()) }
    );
    let writers: Vec<_> = (0..WRITERS)
        .map(|writer| {
            let store = if writer % 2 == 0 { store.clone() } else { other.clone() };
            tokio::spawn(async move {
                let (cx, mut chance) = (super::kit::cx(), Chance(writer));
                let (own, shared) = (stream(format!("own-{writer}")), stream("shared"));
                for round in 0..ROUNDS {
                    let count = 1 + chance.below(3) as usize;
                    let good = Act::append(own.clone(), Expected::Any, vec![event(&cx, "Own")]).and(
                        shared.clone(),
                        Expected::Any,
                        events(&cx, count - 1),
                    );
                    // Refused and rolled back between the good ones: each could tear a hole into the numbers.
                    match chance.below(4) {
                        0 => {
                            let bad = Act::append(own.clone(), Expected::Any, events(&cx, 2)).and(
                                shared.clone(),
                                Expected::Exactly(Version(u64::MAX)),
                                events(&cx, 2),
                            );
                            refusal(store.append(&cx, bad).await);
                        }
                        1 => {
                            let (own, events) = (own.clone(), events(&cx, 3));
                            let ended = transact(&store, move |tx| {
                                tx.append(&own, Expected::Any, &events)?;
                                Err::<(), _>(Abort::User("changed my mind".into()))
                            });
                            assert_eq!(ended.await, Err(TransactError::User("changed my mind".into())));
                        }
                        _ => {}
                    }
                    if round % 3 == 0 {
                        commit(&store, move |tx| {
                            for part in &good.streams {
                                tx.append(&part.stream, part.expected, &part.events)?;
                            }
                            Ok(())
                        })
                        .await;
                    } else {
                        store.append(&cx, good).await.unwrap();
                    }
                }
            })
        })
        .collect();
    let mut seen: Vec<Recorded> = Vec::new();
    for _ in 0..10 {
        let now = feed(&other).await;
        assert!(now.len() >= seen.len() && now[..seen.len()] == seen, "what was handed out changed");
        seen = now;
    }
    for writer in writers {
        writer.await.unwrap();
    }
    let count = loop {
        // A sequencer behind the writers may need a moment to number the last of them.
        let (head, own) = (store.head().await.unwrap(), feed(&store).await);
        let mut numbered = 0;
        for writer in 0..WRITERS {
            numbered += version(&store, &stream(format!("own-{writer}"))).await.0;
        }
        numbered += version(&store, &stream("shared")).await.0;
        if own.len() as u64 == numbered {
            assert!(own[..seen.len()] == seen, "what was handed out changed");
            break own.len();
        }
        assert!(!harness.features().positions_at_commit, "{} of {numbered} events in the feed", own.len());
        store.wait_past(head.position, RECHECK).await;
    };
    assert_whole(&[&store, &other], count).await;
    for (i, event) in feed(&store).await.iter().enumerate() {
        assert_eq!(event.position, Position(i as u64 + 1));
    }
}

/// Promise 7: a query selects by type and tag what [`Query::selects`] says, in the feed's order, on pages of
/// any size.
pub async fn queries_select_by_type_and_tag<H: Harness>(harness: &H) {
    let store = harness.open().await;
    let other = harness.again(&store).await;
    let (cx, mut chance) = (cx(), Chance(7));
    let kinds = ["A", "B", "a", "A%", "AB"].map(kind);
    let tags = ["x", "y", "X", "x:", "x:1", "%", "_"].map(tag);
    for _ in 0..12 {
        let mut batch = events(&cx, 10);
        for event in &mut batch {
            event.event_type = kinds[chance.below(kinds.len() as u64) as usize].clone();
            event.tags = tags.iter().filter(|_| chance.below(3) == 0).cloned().collect();
        }
        let name = stream(format!("s{}", chance.below(4)));
        let done = store.append(&cx, Act::append(name, Expected::Any, batch)).await.unwrap();
        settled(harness, &other, &done.receipt).await;
    }
    let all = feed(&other).await;
    assert_eq!(all.len(), 120);
    let mut pick = |names: usize, most: u64| -> Vec<usize> {
        let mut picked: Vec<_> =
            (0..chance.below(most + 1)).map(|_| chance.below(names as u64) as usize).collect();
        picked.sort_unstable();
        picked.dedup();
        picked
    };
    for round in 0..40 {
        let items = (0..round % 4).map(|_| QueryItem {
            types: pick(kinds.len(), 2).into_iter().map(|i| kinds[i].clone()).collect(),
            tags: pick(tags.len(), 3).into_iter().map(|i| tags[i].clone()).collect(),
        });
        let query =
            Query { items: items.filter(|item| !item.types.is_empty() || !item.tags.is_empty()).collect() };
        let after = Position(round * 17 % 121);
        let expected: Vec<_> =
            all.iter().filter(|event| event.position > after && query.selects(event)).cloned().collect();
        for max in [1, 3, 1_000] {
            let found = select(&other, &query, after, max).await;
            assert_eq!(found, expected, "{query:?} after {after}, pages of {max}");
        }
    }
}

/// A reader whose position lies past the end is told so: it remembers another life of the store.
pub async fn reading_past_the_end_is_refused<H: Harness>(harness: &H) {
    let store = harness.open().await;
    let cx = cx();
    let done = store.append(&cx, Act::append(stream("s"), Expected::Any, events(&cx, 3))).await.unwrap();
    assert_eq!(settled(harness, &store, &done.receipt).await, Position(3));
    let at_end = store.read(&Query::all(), Position(3), 10).await.unwrap();
    assert_eq!((at_end.events.len(), at_end.next, at_end.head), (0, Position(3), Position(3)));
    assert!(at_end.at_end());
    for asked in [Position(4), Position(i64::MAX as u64), Position(u64::MAX)] {
        for query in [Query::all(), Query::types([kind("E1")])] {
            let ended = store.read(&query, asked, 10).await;
            assert_eq!(ended, Err(ReadError::PastEnd { asked, ends: Position(3) }));
            let ended = store.subscribe(query, asked).next_page().await;
            assert_eq!(ended, Err(ReadError::PastEnd { asked, ends: Position(3) }));
        }
        assert_eq!(store.head_at(asked).await.unwrap(), None);
    }
}

/// Promise 11: a reader that has come to a receipt's position has seen its act; a foreign receipt is refused.
pub async fn a_receipt_locates_its_act<H: Harness>(harness: &H) {
    let store = harness.open().await;
    let other = harness.again(&store).await;
    let stranger = harness.open().await;
    let cx = cx();
    assert_eq!(other.id(), store.id());
    assert_ne!(stranger.id(), store.id(), "two stores with one identity");
    for round in 0..8 {
        let (name, batch) = (stream(format!("s{round}")), events(&cx, 3));
        let last = batch[2].id;
        let receipt = if round % 2 == 0 {
            store.append(&cx, Act::append(name.clone(), Expected::Any, batch)).await.unwrap().receipt
        } else {
            let name = name.clone();
            let done =
                transact(&store, move |tx| Ok(tx.append(&name, Expected::Any, &batch)?)).await.unwrap();
            assert_eq!(done.value, Version(3));
            done.receipt
        };
        let end = settled(harness, &other, &receipt).await;
        let seen = select(&other, &Query::all(), Position::START, 1_000).await;
        let seen: Vec<_> =
            seen.into_iter().filter(|event| event.position <= end && event.stream == name).collect();
        assert_eq!(seen.len(), 3, "a reader at the receipt's position must have seen the whole act");
        assert_eq!((seen[2].id, seen[2].position), (last, end), "and no later position is asked for");
        // Its text form is the same receipt, for a client that carries it.
        let carried: Receipt = receipt.to_string().parse().unwrap();
        assert_eq!(other.position(&carried).await.unwrap(), Located::At(end));
        let refused = stranger.position(&receipt).await;
        assert_eq!(refused, Err(ReadError::ForeignReceipt { theirs: store.id(), ours: stranger.id() }));
    }
    // A transaction without events has a receipt as well: whoever has come there has seen all that it saw.
    let done = transact(&store, |tx| Ok(tx.view_put(&view("v"), &Row::new("k", "1"))?)).await.unwrap();
    settled(harness, &other, &done.receipt).await;
    assert_eq!(other.view_get(&view("v"), "k").await.unwrap(), Some(b"1".to_vec()));
    // A forged one of this store names nothing that was ever written here.
    let forged = Receipt::new(store.id(), i64::MAX as u64);
    assert!(!matches!(store.position(&forged).await, Ok(Located::At(_))), "a forged receipt was located");
}
