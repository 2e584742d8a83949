//! Promise 10, the outbox: messages recorded with the facts that they tell of.

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
