//! Promise 5: the dynamic consistency boundary.

use std::sync::Arc;

use tokio::sync::Barrier;

use super::Harness;
use super::kit::*;
use crate::*;

/// A condition refuses exactly when an event that matches its query stands after its position.
pub async fn conditions_are_checked<H: Harness>(harness: &H) {
    let store = harness.open().await;
    let other = harness.again(&store).await;
    let (cx, name) = (cx(), stream("seats"));
    let tagged =
        |kind: &str, tags: &[&str]| tags.iter().fold(event(&cx, kind), |event, text| event.tagged(tag(text)));
    let recorded = vec![
        tagged("Reserved", &["seat:1", "flight:9"]),
        tagged("Paid", &["seat:1"]),
        tagged("Reserved", &["seat:2"]),
    ];
    let done = store.append(&cx, Act::append(name.clone(), Expected::Empty, recorded)).await.unwrap();
    assert_eq!(settled(harness, &other, &done.receipt).await, Position(3));

    let item = |types: &[&str], tags: &[&str]| QueryItem {
        types: types.iter().map(kind).collect(),
        tags: tags.iter().map(tag).collect(),
    };
    let query = |items: Vec<QueryItem>| Query { items };
    let try_unless = async |conditions: Vec<(Query, u64)>| {
        let mut act = act(&cx, &stream("other"), Expected::Any);
        for (query, after) in conditions {
            act = act.unless(Condition { query, after: Position(after) });
        }
        other.append(&cx, act).await
    };
    let all = Query::all;
    let refused = [
        ("everything", vec![(all(), 0)], 0, 1),
        ("the last event is after the one before it", vec![(all(), 2)], 0, 3),
        ("a type", vec![(query(vec![item(&["Paid"], &[])]), 0)], 0, 2),
        ("any of the types", vec![(query(vec![item(&["No", "Paid"], &[])]), 1)], 0, 2),
        ("a tag", vec![(query(vec![item(&[], &["seat:2"])]), 1)], 0, 3),
        ("all of the tags", vec![(query(vec![item(&[], &["flight:9", "seat:1"])]), 0)], 0, 1),
        ("type and tag", vec![(query(vec![item(&["Reserved"], &["seat:2"])]), 0)], 0, 3),
        ("the second alternative", vec![(query(vec![item(&["No"], &[]), item(&["Paid"], &[])]), 0)], 0, 2),
        ("the second condition", vec![(query(vec![item(&["No"], &[])]), 0), (all(), 2)], 1, 3),
    ];
    for (what, conditions, index, found) in refused {
        let refused = refusal(try_unless(conditions).await);
        let Refusal::ConditionFailed { index: failed, found: at } = refused else {
            panic!("{what}: {refused}")
        };
        assert_eq!(failed, index, "{what}");
        assert!(at.is_none_or(|at| at == Position(found)), "{what}: found at {at:?}, it stands at {found}");
        assert!(at.is_some() || !harness.features().positions_at_commit, "{what}: this store knows where");
        assert_eq!(refused.retry(), Retry::AfterReading);
        assert_whole(&[&store, &other], 3).await;
    }
    let allowed = [
        ("after the match", vec![(query(vec![item(&["Paid"], &[])]), 2)]),
        ("no such type", vec![(query(vec![item(&["No"], &[])]), 0)]),
        ("no such tag, though a longer one begins so", vec![(query(vec![item(&[], &["seat:"])]), 0)]),
        ("never both tags", vec![(query(vec![item(&[], &["seat:2", "flight:9"])]), 0)]),
        ("never this type with this tag", vec![(query(vec![item(&["Paid"], &["seat:2"])]), 0)]),
        ("nothing since the end of the feed, its own event aside", vec![(all(), 8)]),
    ];
    for (i, (what, conditions)) in allowed.into_iter().enumerate() {
        let done = try_unless(conditions).await.unwrap_or_else(|error| panic!("{what}: {error}"));
        assert_eq!(settled(harness, &other, &done.receipt).await, Position(4 + i as u64));
    }
    assert_whole(&[&store, &other], 9).await;

    // A position that the feed never reached is another store's: "nothing since then" would be no answer.
    assert!(is_invalid(&refusal(try_unless(vec![(all(), 1_000)]).await)));
}

/// Of acts of which each would break the others' condition, at most one is acknowledged: through two handles,
/// at the same moment, also when they touch no common stream.
pub async fn overlapping_conditions_never_both_commit<H: Harness>(harness: &H) {
    const ROUNDS: u64 = 25;
    const RACERS: usize = 6;
    let store = harness.open().await;
    let other = harness.again(&store).await;
    for round in 0..ROUNDS {
        let head = store.head().await.unwrap().position;
        let start = Arc::new(Barrier::new(RACERS));
        let racers: Vec<_> = (0..RACERS)
            .map(|racer| {
                let store = if racer % 2 == 0 { store.clone() } else { other.clone() };
                let start = Arc::clone(&start);
                tokio::spawn(async move {
                    let cx = cx();
                    let seat = tag(format!("seat:{round}"));
                    // By turns they are told apart by type only, by tag only, or not at all.
                    let (event, query) = match (round % 3, racer % 2) {
                        (0, 0) => (event(&cx, "Even"), Query::types([kind("Odd"), kind("Even")])),
                        (0, _) => (event(&cx, "Odd"), Query::types([kind("Even"), kind("Odd")])),
                        (1, _) => (event(&cx, "Reserved").tagged(seat.clone()), Query::tags([seat])),
                        _ => (event(&cx, "Reserved"), Query::all()),
                    };
                    let act = Act::append(stream(format!("s-{round}-{racer}")), Expected::Empty, vec![event])
                        .unless(Condition { query, after: head });
                    start.wait().await;
                    store.append(&cx, act).await
                })
            })
            .collect();
        let mut won = Vec::new();
        for racer in racers {
            match racer.await.unwrap() {
                Ok(done) => won.push(done.receipt),
                ended => {
                    let refused = refusal(ended);
                    assert!(matches!(refused, Refusal::ConditionFailed { .. }), "{refused}");
                }
            }
        }
        assert_eq!(won.len(), 1, "winners in round {round}");
        settled(harness, &store, &won[0]).await;
        settled(harness, &other, &won[0]).await;
    }
    assert_whole(&[&store, &other], ROUNDS as usize).await;

    // Inside transactions the same.
    let head = store.head().await.unwrap().position;
    let start = Arc::new(Barrier::new(RACERS));
    let racers: Vec<_> = (0..RACERS)
        .map(|racer| {
            let store = if racer % 2 == 0 { store.clone() } else { other.clone() };
            let start = Arc::clone(&start);
            tokio::spawn(async move {
                let (cx, name) = (cx(), stream(format!("tx-{racer}")));
                let event = event(&cx, "Reserved");
                start.wait().await;
                transact(&store, move |tx| {
                    tx.require(&Condition { query: Query::all(), after: head })?;
                    Ok(tx.append(&name, Expected::Empty, std::slice::from_ref(&event))?)
                })
                .await
            })
        })
        .collect();
    let mut won = 0;
    for racer in racers {
        match racer.await.unwrap() {
            Ok(_) => won += 1,
            ended => assert!(matches!(tx_refusal(ended), Refusal::ConditionFailed { index: 0, .. })),
        }
    }
    assert_eq!(won, 1);
    assert_whole(&[&store, &other], ROUNDS as usize + 1).await;
}
