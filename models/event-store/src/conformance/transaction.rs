//! Promise 10: whatever a transaction writes commits together or not at all.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use super::Harness;
use super::inbox::identity;
use super::kit::*;
use crate::*;

/// Everything that can be written in a transaction, so that each part is missed when it is lost.
fn write_everything<T: Tx>(tx: &T, events: &[NewEvent]) -> Result<(), Abort<String>> {
    tx.append(&stream("a"), Expected::Empty, &events[..2])?;
    tx.append(&stream("b"), Expected::Any, &events[2..])?;
    tx.outbox(&message("m1"))?;
    tx.outbox(&message("m2"))?;
    assert_eq!(tx.inbox_mark(&consumer("c"), &identity(1, 1))?, Mark::First);
    tx.move_checkpoint(&consumer("c"), Position::START, Position(7))?;
    tx.view_put(&view("v"), &Row::new("k", "1").indexed("i", IndexValue::Integer(5)))?;
    let leased = tx.acquire_lease(&consumer("c"), "me", Duration::from_secs(60))?;
    assert!(matches!(leased, Leased::Held(lease) if lease.epoch == 1));
    Ok(())
}

/// What a store shows of [`write_everything`]: nothing of it, or all of it.
async fn assert_everything<S: Store>(store: &S, there: bool) {
    let count = usize::from(there);
    assert_eq!(whole(store, &stream("a")).await.len(), 2 * count);
    assert_eq!(whole(store, &stream("b")).await.len(), count);
    let rows = store.outbox_after(0, 10).await.unwrap();
    assert_eq!(rows.iter().map(|row| row.seq).collect::<Vec<_>>(), if there { vec![1, 2] } else { vec![] });
    assert_eq!(store.checkpoint(&consumer("c")).await.unwrap(), there.then_some(Position(7)));
    assert_eq!(store.view_get(&view("v"), "k").await.unwrap(), there.then(|| b"1".to_vec()));
    let by_index = Scan::equal(view("v"), "i", IndexValue::Integer(5), 10);
    assert_eq!(store.view_scan(&by_index).await.unwrap().rows.len(), count);
    assert_eq!(store.lease(&consumer("c")).await.unwrap().map(|lease| lease.epoch), there.then_some(1));
    let mark = transact(store, |tx| {
        let mark = tx.inbox_mark(&consumer("c"), &identity(1, 1))?;
        Err::<(), _>(Abort::User(format!("{mark:?}")))
    });
    let said = if there { "Repeated" } else { "First" };
    assert_eq!(mark.await, Err(TransactError::User(said.into())), "the inbox mark");
}

/// A transaction that ends with its own error, or with a refusal of its last write, leaves nothing; one that
/// ends well leaves everything, for every handle.
pub async fn a_transaction_is_all_or_nothing<H: Harness>(harness: &H) {
    let store = harness.open().await;
    let other = harness.again(&store).await;
    let batch = events(&cx(), 3);

    let mine = batch.clone();
    let ended = transact(&store, move |tx| {
        write_everything(tx, &mine)?;
        Err::<(), _>(Abort::User("no".into()))
    });
    assert_eq!(ended.await, Err(TransactError::User("no".into())));
    for store in [&store, &other] {
        assert_everything(store, false).await;
    }

    type Last<T> = fn(&T) -> Result<(), Refusal>;
    let refused: [(&str, Last<<H::Store as Store>::Tx>); 6] = [
        ("append", |tx| tx.append(&stream("a"), Expected::Empty, &events(&cx(), 1)).map(drop)),
        ("require", |tx| {
            tx.require(&Condition { query: Query::types([kind("E0")]), after: Position::START })
        }),
        ("checkpoint", |tx| tx.move_checkpoint(&consumer("c"), Position(1), Position(2))),
        ("fence", |tx| tx.fence(&consumer("c"), 2)),
        ("release", |tx| tx.release_lease(&consumer("c"), 2)),
        ("view", |tx| tx.view_put(&view("v"), &Row::new("", ""))),
    ];
    for (what, last) in refused {
        let mine = batch.clone();
        let ended = transact(&store, move |tx| {
            write_everything(tx, &mine)?;
            Ok(last(tx)?)
        });
        let refused = tx_refusal(ended.await);
        let right = match what {
            "append" => matches!(refused, Refusal::Conflict { actual: Version(2), .. }),
            "require" => matches!(refused, Refusal::ConditionFailed { .. }),
            "checkpoint" => matches!(refused, Refusal::CheckpointMoved { actual: Position(7), .. }),
            "fence" | "release" => matches!(refused, Refusal::Fenced { held: 2, actual: 1, .. }),
            _ => is_invalid(&refused),
        };
        assert!(right, "{what}: {refused}");
        for store in [&store, &other] {
            assert_everything(store, false).await;
        }
    }

    let mine = batch.clone();
    let done = transact(&store, move |tx| write_everything(tx, &mine)).await.unwrap();
    settled(harness, &other, &done.receipt).await;
    for store in [&store, &other] {
        assert_everything(store, true).await;
    }
    assert_whole(&[&store, &other], 3).await;
}

/// Whoever looks while transactions commit sees of each of them everything or nothing, whatever it asks first.
pub async fn what_commits_together_is_seen_together<H: Harness>(harness: &H) {
    const ROUNDS: u64 = 30;
    let store = harness.open().await;
    let other = harness.again(&store).await;
    let writer = tokio::spawn({
        let store = store.clone();
        async move {
            for round in 1..=ROUNDS {
                let batch = events(&cx(), 1);
                commit(&store, move |tx| {
                    tx.append(&stream("s"), Expected::Any, &batch)?;
                    tx.outbox(&message(""))?;
                    tx.move_checkpoint(&consumer("c"), Position(round - 1), Position(round))?;
                    Ok(tx.view_put(&view("v"), &Row::new("k", vec![0; round as usize]))?)
                })
                .await;
            }
        }
    });
    let at_commit = harness.features().positions_at_commit;
    let mut round = 0;
    while round < ROUNDS {
        let done = writer.is_finished();
        for store in [&store, &other] {
            // Each later answer must be at least as far as the one before it.
            let before = version(store, &stream("s")).await.0;
            let in_view =
                store.view_get(&view("v"), "k").await.unwrap().map_or(0, |bytes| bytes.len() as u64);
            let at = store.checkpoint(&consumer("c")).await.unwrap().unwrap_or_default().0;
            let numbered = store.outbox_after(0, 1_000).await.unwrap().len() as u64;
            let after = version(store, &stream("s")).await.0;
            // A sequencer numbers outbox rows after the commit: they may be seen later than the rest, not earlier.
            let seen = [before, in_view, at, after];
            assert!(
                numbered >= if at_commit { at } else { 0 } && numbered <= after,
                "{numbered} rows, {seen:?}"
            );
            assert!(seen.is_sorted(), "a part of a transaction was seen without the rest: {seen:?}");
            round = after;
        }
        assert!(round == ROUNDS || !done, "the writer is done, but only {round} rounds are there");
        tokio::task::yield_now().await;
    }
    writer.await.unwrap();
}

/// Inside a transaction every write is seen by the reads that follow it, and by nobody else before the commit.
pub async fn a_transaction_reads_its_own_writes<H: Harness>(harness: &H) {
    let store = harness.open().await;
    let other = harness.again(&store).await;
    let cx = cx();
    store.append(&cx, Act::append(stream("a"), Expected::Empty, events(&cx, 2))).await.unwrap();
    let knows_positions = harness.features().positions_at_commit;
    let batch = events(&cx, 3);
    let mine = batch.clone();
    commit(&store, move |tx| {
        let (a, v, c) = (stream("a"), view("v"), consumer("c"));
        assert_eq!(tx.version(&a)?, Version(2));
        assert_eq!(tx.version(&stream("none"))?, Version::EMPTY);
        assert_eq!(tx.append(&a, Expected::Exactly(Version(2)), &mine)?, Version(5));
        assert_eq!(tx.version(&a)?, Version(5));
        let read = tx.read_stream(&a, Version(2), 10)?;
        assert_eq!(names(&read), ["E1", "E0", "E1", "E2"]);
        assert_eq!(read.iter().map(|event| event.version.0).collect::<Vec<_>>(), [2, 3, 4, 5]);
        assert_eq!((read[3].id, &read[3].payload), (mine[2].id, &mine[2].payload));
        assert_eq!(read[3].at, tx.at());
        assert!(!knows_positions || read[3].position == Position(5));
        assert_eq!(tx.read_stream(&a, Version(4), 1)?.len(), 1);
        assert!(tx.read_stream(&a, Version(6), 1)?.is_empty());

        assert_eq!(tx.view_get(&v, "k")?, None);
        tx.view_put(&v, &Row::new("k", "1"))?;
        tx.view_put(&v, &Row::new("k", "2"))?;
        tx.view_put(&v, &Row::new("l", "3"))?;
        assert_eq!(tx.view_get(&v, "k")?, Some(b"2".to_vec()));
        assert_eq!(tx.view_scan(&Scan::keys(v.clone(), 10))?.rows.len(), 2);
        assert!(tx.view_delete(&v, "k")?);
        assert!(!tx.view_delete(&v, "k")?, "deleted twice");
        assert_eq!(tx.view_get(&v, "k")?, None);

        assert_eq!(tx.checkpoint(&c)?, None);
        tx.move_checkpoint(&c, Position::START, Position(3))?;
        assert_eq!(tx.checkpoint(&c)?, Some(Position(3)));
        assert_eq!(tx.inbox_mark(&c, &identity(1, 1))?, Mark::First);
        assert_eq!(tx.inbox_mark(&c, &identity(1, 1))?, Mark::Repeated);
        Ok(())
    })
    .await;
    assert_eq!(version(&other, &stream("a")).await, Version(5));
    assert_eq!(
        other.view_scan(&Scan::keys(view("v"), 10)).await.unwrap().rows,
        [("l".into(), b"3".to_vec())]
    );
    assert_whole(&[&store, &other], 5).await;
}

/// A refusal decides the transaction, also when its closure goes on as if nothing had happened.
pub async fn a_swallowed_refusal_still_refuses<H: Harness>(harness: &H) {
    let store = harness.open().await;
    let other = harness.again(&store).await;
    let batch = events(&cx(), 2);
    let ended = transact(&store, move |tx| {
        let _ = tx.fence(&consumer("lease"), 1);
        tx.append(&stream("a"), Expected::Any, &batch)?;
        let _ = tx.require(&Condition { query: Query::all(), after: Position::START });
        tx.view_put(&view("v"), &Row::new("k", "1"))?;
        Ok(())
    });
    let refused = tx_refusal(ended.await);
    assert!(
        matches!(refused, Refusal::Fenced { held: 1, actual: 0, .. }),
        "the first refusal counts: {refused}"
    );
    assert_eq!(other.view_get(&view("v"), "k").await.unwrap(), None);
    assert_whole(&[&store, &other], 0).await;
}

/// A panic ends its own transaction as a refusal, and nothing else.
pub async fn a_panic_in_a_closure_harms_nobody<H: Harness>(harness: &H) {
    let store = harness.open().await;
    let other = harness.again(&store).await;
    let tasks: Vec<_> = (0..8)
        .map(|task| {
            let store = if task % 2 == 0 { store.clone() } else { other.clone() };
            tokio::spawn(async move {
                let batch = events(&super::kit::cx(), 1);
                let ended = transact(&store, move |tx| {
                    tx.append(&stream(format!("s{task}")), Expected::Empty, &batch)?;
                    tx.outbox(&message(&task.to_string()))?;
                    assert!(task % 4 != 0, "a bug in the closure of task {task}");
                    Ok(())
                });
                match ended.await {
                    Ok(_) => assert!(task % 4 != 0),
                    ended => {
                        let refused = tx_refusal(ended);
                        assert!(matches!(refused, Refusal::Closure { .. }) && task % 4 == 0, "{refused}");
                        assert_eq!(refused.retry(), Retry::Never);
                        assert!(refused.to_string().contains("a bug in the closure"), "{refused}");
                    }
                }
            })
        })
        .collect();
    for task in tasks {
        task.await.unwrap();
    }
    assert_whole(&[&store, &other], 6).await;
    assert_eq!(other.outbox_after(0, 100).await.unwrap().len(), 6);
    // The store goes on, through both handles.
    for store in [&store, &other] {
        commit(store, |tx| Ok(tx.outbox(&message("after"))?)).await;
    }
}

/// Many transactions at once, some of which fail in each possible way: exactly the others are there, numbers
/// of positions and outbox rows without a gap.
pub async fn failing_transactions_leave_no_trace_among_neighbours<H: Harness>(harness: &H) {
    const TASKS: u64 = 12;
    const ROUNDS: u64 = 8;
    let store = harness.open().await;
    let other = harness.again(&store).await;
    store.append(&cx(), act(&cx(), &stream("taken"), Expected::Empty)).await.unwrap();
    let tasks: Vec<_> = (0..TASKS)
        .map(|task| {
            let store = if task % 3 == 0 { other.clone() } else { store.clone() };
            tokio::spawn(async move {
                let mut chance = Chance(task);
                let mut good = Vec::new();
                for round in 0..ROUNDS {
                    let fate = chance.below(6);
                    let name = format!("{task}-{round}-{}", if fate < 3 { "good" } else { "bad" });
                    let (mine, batch) = (name.clone(), events(&super::kit::cx(), 2));
                    let ended = transact(&store, move |tx| {
                        tx.append(&stream("shared"), Expected::Any, &batch[..1])?;
                        tx.append(&stream(&mine), Expected::Empty, &batch[1..])?;
                        tx.view_put(&view("v"), &Row::new(&mine, "x").indexed("i", IndexValue::Integer(1)))?;
                        tx.outbox(&message(&mine))?;
                        match fate {
                            3 => Err(Abort::User("its own error".into())),
                            4 => Ok(tx
                                .append(&stream("taken"), Expected::Empty, &events(&super::kit::cx(), 1))
                                .map(drop)?),
                            5 if round == 0 => panic!("a bug in the closure"),
                            5 => Ok(tx.fence(&consumer("nobody's"), 1)?),
                            _ => Ok(()),
                        }
                    });
                    match ended.await {
                        Ok(_) if fate < 3 => good.push(name),
                        Err(_) if fate >= 3 => {}
                        ended => panic!("fate {fate} ended as {ended:?}"),
                    }
                }
                good
            })
        })
        .collect();
    let mut good = Vec::new();
    for task in tasks {
        good.extend(task.await.unwrap());
    }
    good.sort();
    assert!(good.len() > 20 && good.len() < (TASKS * ROUNDS) as usize - 20, "{} good ones", good.len());
    let count = good.len();
    assert_whole(&[&store, &other], 1 + 2 * count).await;
    for store in [&store, &other] {
        assert_eq!(version(store, &stream("shared")).await, Version(count as u64));
        for scan in [Scan::keys(view("v"), 1_000), Scan::equal(view("v"), "i", IndexValue::Integer(1), 1_000)]
        {
            let rows = store.view_scan(&scan).await.unwrap().rows;
            assert_eq!(rows.into_iter().map(|(key, _)| key).collect::<Vec<_>>(), good);
        }
        let outbox = store.outbox_after(0, 1_000).await.unwrap();
        assert_eq!(
            outbox.iter().map(|row| row.seq).collect::<Vec<_>>(),
            (1..=count as u64).collect::<Vec<_>>()
        );
        let mut sent: Vec<_> =
            outbox.into_iter().map(|row| String::from_utf8(row.row.payload).unwrap()).collect();
        sent.sort();
        assert_eq!(sent, good);
    }
}

/// Transactions that read and then write what they read, at once, through two handles: none is lost.
pub async fn concurrent_transactions_lose_no_update<H: Harness>(harness: &H) {
    const TASKS: u64 = 8;
    const ROUNDS: u64 = 10;
    let store = harness.open().await;
    let other = harness.again(&store).await;
    let tasks: Vec<_> = (0..TASKS)
        .map(|task| {
            let store = if task % 2 == 0 { store.clone() } else { other.clone() };
            tokio::spawn(async move {
                for _ in 0..ROUNDS {
                    let ended = loop {
                        let ended = transact(&store, |tx| {
                            let now = tx.view_get(&view("v"), "sum")?.map_or(0, |bytes| bytes.len());
                            tx.view_put(&view("v"), &Row::new("sum", vec![0; now + 1]))?;
                            let at = tx.checkpoint(&consumer("c"))?.unwrap_or_default();
                            tx.move_checkpoint(&consumer("c"), at, at.next())?;
                            Ok(now + 1 == at.next().0 as usize)
                        });
                        match ended.await {
                            // A store may say that it is a matter of time; then nothing was written.
                            Err(TransactError::Store(AppendError::Refused(refused)))
                                if refused.retry() == Retry::Later => {}
                            ended => break ended,
                        }
                    };
                    assert!(ended.unwrap().value, "two parts of one transaction were seen apart");
                }
            })
        })
        .collect();
    for task in tasks {
        task.await.unwrap();
    }
    let sum = (TASKS * ROUNDS) as usize;
    assert_eq!(other.view_get(&view("v"), "sum").await.unwrap().map(|bytes| bytes.len()), Some(sum));
    assert_eq!(store.checkpoint(&consumer("c")).await.unwrap(), Some(Position(sum as u64)));
}

/// A closure may be run more than once: what stays, and what is answered, is of one and the same run.
pub async fn only_the_last_run_of_a_closure_counts<H: Harness>(harness: &H) {
    let store = harness.open().await;
    let other = harness.again(&store).await;
    let tasks: Vec<_> = (0..10)
        .map(|task| {
            let store = if task % 2 == 0 { store.clone() } else { other.clone() };
            tokio::spawn(async move {
                let runs = Arc::new(AtomicU64::new(0));
                let ended = transact(&store, {
                    let runs = Arc::clone(&runs);
                    move |tx| {
                        let run = runs.fetch_add(1, Ordering::SeqCst) + 1;
                        tx.view_put(&view("v"), &Row::new(format!("{task}-{run}"), run.to_string()))?;
                        tx.outbox(&message(&format!("{task}-{run}")))?;
                        // Some fail beside the others, which a store may answer by running its group again.
                        if task % 3 == 0 { Err(Abort::User(run.to_string())) } else { Ok(run) }
                    }
                });
                match ended.await {
                    Ok(done) => {
                        assert!(done.value >= 1 && done.value <= runs.load(Ordering::SeqCst));
                        Some(format!("{task}-{}", done.value))
                    }
                    Err(TransactError::User(_)) => None,
                    Err(error) => panic!("{error}"),
                }
            })
        })
        .collect();
    let mut told = Vec::new();
    for task in tasks {
        told.extend(task.await.unwrap());
    }
    told.sort();
    let rows = other.view_scan(&Scan::keys(view("v"), 100)).await.unwrap().rows;
    assert_eq!(rows.into_iter().map(|(key, _)| key).collect::<Vec<_>>(), told);
    let outbox = other.outbox_after(0, 100).await.unwrap();
    let mut sent: Vec<_> =
        outbox.into_iter().map(|row| String::from_utf8(row.row.payload).unwrap()).collect();
    sent.sort();
    assert_eq!(sent, told);
}

/// Appends inside a transaction keep promises 2 and 3.
pub async fn events_of_a_transaction_are_checked_and_idempotent<H: Harness>(harness: &H) {
    let store = harness.open().await;
    let other = harness.again(&store).await;
    let cx = cx();
    let batch = events(&cx, 3);
    let append = async |store: &H::Store, expected: Expected, batch: &[NewEvent]| {
        let batch = batch.to_vec();
        transact(store, move |tx| Ok(tx.append(&stream("a"), expected, &batch)?)).await.map(|done| done.value)
    };
    assert_eq!(append(&store, Expected::Empty, &batch[..2]).await, Ok(Version(2)));
    for (expected, actual) in [(Expected::Empty, 2), (Expected::Exactly(Version(1)), 2)] {
        let refused = tx_refusal(append(&other, expected, &batch[2..]).await);
        assert_eq!(refused, Refusal::Conflict { stream: stream("a"), expected, actual: Version(actual) });
    }
    assert_eq!(append(&other, Expected::Exactly(Version(2)), &batch[2..]).await, Ok(Version(3)));
    // Again, whatever it expects; also what an act recorded, as an act what a transaction recorded, and twice
    // in one transaction.
    assert_eq!(append(&other, Expected::Empty, &batch[..2]).await, Ok(Version(2)));
    assert_eq!(append(&store, Expected::Any, &[]).await, Ok(Version(3)));
    let again = Act::append(stream("a"), Expected::Empty, batch.clone());
    assert!(other.append(&cx, again).await.unwrap().repeated);
    let twice = events(&cx, 1);
    let versions = commit(&store, move |tx| {
        let first = tx.append(&stream("b"), Expected::Empty, &twice)?;
        let second = tx.append(&stream("b"), Expected::Empty, &twice)?;
        Ok((first, second))
    });
    assert_eq!(versions.await, (Version(1), Version(1)));
    // Half of it recorded, another content, another stream.
    let mut other_content = batch.clone();
    other_content[1].schema = 9;
    for batch in [vec![batch[2].clone(), event(&cx, "New")], other_content] {
        let refused = tx_refusal(append(&store, Expected::Any, &batch).await);
        assert!(matches!(refused, Refusal::IdTaken { .. }), "{refused}");
    }
    let elsewhere = batch.clone();
    let ended = transact(&store, move |tx| Ok(tx.append(&stream("c"), Expected::Any, &elsewhere)?)).await;
    assert!(matches!(tx_refusal(ended), Refusal::IdTaken { .. }));
    assert_whole(&[&store, &other], 4).await;

    // A condition sees what was recorded before, by whomever, and what this transaction itself recorded.
    let own = events(&cx, 1);
    let head = store.head().await.unwrap().position;
    let ended = transact(&store, move |tx| {
        tx.require(&Condition { query: Query::all(), after: head })?;
        tx.append(&stream("d"), Expected::Any, &own)?;
        Ok(tx.require(&Condition { query: Query::types([kind("E0")]), after: head })?)
    });
    assert!(matches!(tx_refusal(ended.await), Refusal::ConditionFailed { .. }));
    assert_whole(&[&store, &other], 4).await;
}
