//! Promises 10, 16 and 17, the outbox: messages recorded with the facts that they tell of.

use std::time::Duration;

use mainstay_envelope::{Context, ManualClock, Timestamp};

use super::Harness;
use super::kit::*;
use crate::*;

/// Outbox rows are numbered densely in commit order, keep all that was handed in, and are read in pages.
pub async fn outbox_rows_are_numbered_in_commit_order<H: Harness>(harness: &H) {
    const TASKS: u64 = 6;
    const ROUNDS: u64 = 10;
    let store = harness.open().await;
    let other = harness.again(&store).await;
    let tasks: Vec<_> = (0..TASKS)
        .map(|task| {
            let store = if task % 2 == 0 { store.clone() } else { other.clone() };
            tokio::spawn(async move {
                for round in 0..ROUNDS {
                    let batch = events(&super::kit::cx(), 1);
                    let ended = transact(&store, move |tx| {
                        let version = tx.append(&stream("order"), Expected::Any, &batch)?;
                        tx.outbox(&message(&format!("{version}/1")))?;
                        tx.outbox(&message(&format!("{version}/2")))?;
                        if (task + round) % 4 == 0 { Err(Abort::User("no".into())) } else { Ok(version) }
                    });
                    let ended = ended.await;
                    assert_eq!(ended.is_err(), (task + round) % 4 == 0, "{ended:?}");
                }
            })
        })
        .collect();
    for task in tasks {
        task.await.unwrap();
    }
    let events = whole(&other, &stream("order")).await;
    let count = events.len() as u64 * 2;
    for max in [1, 7, 1_000] {
        let mut rows: Vec<OutboxRecord> = Vec::new();
        loop {
            let page = other.outbox_after(rows.len() as u64, max).await.unwrap();
            assert!(page.len() <= max);
            if page.is_empty() {
                break;
            }
            rows.extend(page);
            assert!(rows.len() as u64 <= count, "more rows than were committed: {}", rows.len());
        }
        assert_eq!(rows.iter().map(|row| row.seq).collect::<Vec<_>>(), (1..=count).collect::<Vec<_>>());
        for (i, row) in rows.iter().enumerate() {
            assert_eq!((row.epoch, row.number), (1, row.seq), "no epoch was ever opened");
            // The stream tells in which order the transactions committed.
            let expected = message(&format!("{}/{}", i / 2 + 1, i % 2 + 1));
            assert_eq!(row.row, expected);
            let event = &events[i / 2];
            assert_eq!(
                (row.at, &row.envelope[..]),
                (event.at, &event.envelope[..]),
                "who wrote it, and when"
            );
        }
    }
    assert_eq!(other.outbox_after(count, 10).await.unwrap(), []);
    assert_eq!(other.outbox_after(u64::MAX, 10).await.unwrap(), []);
    assert_eq!(other.outbox_after(0, 0).await.unwrap(), []);
}

/// A row says how far the feed has come with its transaction: as far as the transaction's receipt says, whether
/// it was handed in before or after the events, or beside none, and however large its neighbours are.
pub async fn an_outbox_row_carries_the_mark_of_its_receipt<H: Harness>(harness: &H) {
    const TASKS: usize = 6;
    let store = harness.open().await;
    let other = harness.again(&store).await;
    let tasks: Vec<_> = (0..TASKS)
        .map(|task| {
            let store = if task % 2 == 0 { store.clone() } else { other.clone() };
            tokio::spawn(async move {
                let mut receipts = Vec::new();
                for round in 0..8 {
                    let (kind, batch) = ((task + round) % 4, events(&super::kit::cx(), 3));
                    let ended = transact(&store, move |tx| {
                        let append = |from: usize, to: usize| {
                            tx.append(&stream(format!("s-{task}")), Expected::Any, &batch[from..to])
                        };
                        let publish = || tx.outbox(&message(&format!("{task}/{round}")));
                        match kind {
                            0 => publish().and_then(|()| append(0, 3))?,
                            1 => append(0, 1).and_then(|_| publish()).and_then(|()| append(1, 3))?,
                            2 => append(0, 3).and_then(|version| publish().map(|()| version))?,
                            _ => publish().map(|()| Version::EMPTY)?,
                        };
                        publish()?;
                        Ok(())
                    });
                    receipts.push((format!("{task}/{round}"), (kind < 3, ended.await.unwrap().receipt)));
                }
                receipts
            })
        })
        .collect();
    let mut receipts = std::collections::HashMap::new();
    for task in tasks {
        receipts.extend(task.await.unwrap());
    }
    let rows = other.outbox_after(0, 1_000).await.unwrap();
    assert_eq!(rows.len(), TASKS * 8 * 2);
    for row in &rows {
        let (has_events, receipt) = receipts[std::str::from_utf8(&row.row.payload).unwrap()];
        let end = settled(harness, &other, &receipt).await;
        if harness.features().positions_at_commit {
            assert_eq!(row.position.0, receipt.mark(), "{row:?}");
        } else if has_events {
            assert_eq!(row.position, end, "{row:?}");
        } else {
            // Without events of its own it stands where the feed was; where it is asked for, the feed may be further.
            assert!(row.position <= end, "{row:?}");
        }
    }
    assert!(rows.windows(2).all(|pair| pair[0].position <= pair[1].position), "positions go backwards");

    // More than a store keeps in memory until the transaction has ended.
    let batch = events(&cx(), 5);
    let large = transact(&store, move |tx| {
        for event in &batch {
            let payload = vec![7; limits::ROW_BYTES_MAX];
            tx.outbox(&OutboxRow { payload, ..message("") })?;
            tx.outbox(&OutboxRow { payload: vec![7; limits::ROW_BYTES_MAX], ..message("") })?;
            tx.append(&stream("large"), Expected::Any, std::slice::from_ref(event))?;
        }
        Ok(())
    });
    let end = settled(harness, &other, &large.await.unwrap().receipt).await;
    let mut found = Vec::new();
    loop {
        let after = (rows.len() + found.len()) as u64;
        let page = other.outbox_after(after, 100).await.unwrap();
        if page.is_empty() {
            break;
        }
        found.extend(page.into_iter().map(|row| (row.row.payload.len(), row.position.0)));
    }
    assert_eq!(found, vec![(limits::ROW_BYTES_MAX, end.0); 10]);
}

/// What follows [`Tx::acting_for`] carries that fact's envelope and nothing else of it; what came before, and the
/// next transaction, carry their context's.
pub async fn acting_for_changes_the_envelope_of_what_follows<H: Harness>(harness: &H) {
    let store = harness.open().await;
    let other = harness.again(&store).await;
    let clock = ManualClock::new(Timestamp::from_millis(1_000));
    let cx = cx_at(&clock);
    let (first, second) = (Context::system().fact(), Context::system().fact());
    assert_ne!(first, second);
    let mut expected = Vec::new();
    // The second round ends in a refusal, the third in the closure's own error: neither may leave a fact behind.
    for ends in ["", "refused", "given up", ""] {
        let (facts, batch) = ([first.clone(), second.clone()], events(&cx, 3));
        let write = store.transact(&cx, move |tx| {
            let write = |n: usize| {
                tx.append(&stream("s"), Expected::Any, std::slice::from_ref(&batch[n]))?;
                tx.outbox(&message(""))
            };
            write(0)?;
            tx.acting_for(&facts[0])?;
            write(1)?;
            tx.acting_for(&facts[1])?;
            write(2)?;
            assert_eq!(tx.at(), Timestamp::from_millis(1_000), "a fact is no clock");
            match ends {
                "refused" => tx.fence(&consumer("nobody"), 7).map_err(Abort::from),
                "given up" => Err(Abort::User(())),
                _ => Ok(()),
            }
        });
        assert_eq!(write.await.is_ok(), ends.is_empty(), "{ends}");
        let batch = events(&cx, 1);
        let plain = store.transact(&cx, move |tx| {
            tx.append(&stream("s"), Expected::Any, &batch)?;
            Ok::<_, Abort<()>>(tx.outbox(&message(""))?)
        });
        plain.await.unwrap();
        if ends.is_empty() {
            expected.extend([cx.fact(), first.clone(), second.clone()]);
        }
        expected.push(cx.fact());
    }
    store.append(&cx, act(&cx, &stream("alone"), Expected::Any)).await.unwrap();
    caught_up(&store).await;
    let events = whole(&other, &stream("s")).await;
    let facts: Vec<_> = events.iter().map(|event| event.fact().unwrap()).collect();
    assert_eq!(facts, expected);
    assert_eq!(whole(&other, &stream("alone")).await[0].fact().unwrap(), cx.fact());
    let rows = other.outbox_after(0, 100).await.unwrap();
    assert_eq!(rows.len(), events.len());
    for (row, event) in rows.iter().zip(&events) {
        assert_eq!((row.at, &row.envelope[..]), (event.at, &event.envelope[..]));
    }
    assert_whole(&[&store, &other], expected.len() + 1).await;
}

/// A relay that waits for the next row is woken by it, also when no event comes with it.
pub async fn a_waiting_relay_is_woken<H: Harness>(harness: &H) {
    const LONG: Duration = Duration::from_secs(3_600);
    let store = harness.open().await;
    for seq in 0..20 {
        let waiter = store.clone();
        let woken = tokio::spawn(async move { waiter.wait_outbox(seq, LONG).await });
        if seq % 2 == 0 {
            tokio::task::yield_now().await;
        }
        commit(&store, |tx| Ok(tx.outbox(&message(""))?)).await;
        woken.await.unwrap();
        assert_eq!(store.outbox_status().await.unwrap().last, seq + 1);
    }
    // Waiting for what never comes ends when it is over.
    store.wait_outbox(20, Duration::from_millis(1)).await;
    // Waiting for what is there already returns at once.
    store.wait_outbox(19, LONG).await;
}
