//! Promises 14 and 15, the relay's side of the outbox: what was sent, what may go, and by which numbers rows are
//! known.

use std::collections::BTreeSet;

use mainstay_envelope::{ContentHash, ManualClock, Producer, Timestamp};

use super::Harness;
use super::kit::*;
use crate::*;

/// Writes so many rows, each in a transaction with `cx`.
async fn publish<S: Store>(store: &S, cx: &mainstay_envelope::Context, count: usize) {
    let write = store.transact(cx, move |tx| {
        for _ in 0..count {
            tx.outbox(&message("m"))?;
        }
        Ok::<_, Abort<String>>(())
    });
    placed(store, &write.await.unwrap().receipt).await;
}

async fn mark<S: Store>(store: &S, seqs: &[u64]) -> Result<(), TransactError<String>> {
    let seqs = seqs.to_vec();
    transact(store, move |tx| Ok(tx.outbox_sent(&seqs)?)).await.map(drop)
}

/// The numbers of all unsent rows after one, read in pages of `max`.
async fn unsent<S: Store>(store: &S, after: u64, max: usize) -> Vec<u64> {
    let (mut seqs, mut after) = (Vec::new(), after);
    loop {
        let page = store.outbox_unsent(after, max).await.unwrap();
        assert!(page.len() <= max, "a page of {} rows, {max} were asked for", page.len());
        let Some(last) = page.last() else { return seqs };
        assert!(page[0].seq > after, "the page begins again");
        after = last.seq;
        seqs.extend(page.iter().map(|row| row.seq));
    }
}

/// Rows are marked by their numbers, in any order and as often as one likes; what is not marked is read in order,
/// through every handle, whatever lies between.
pub async fn sent_rows_are_marked_by_number<H: Harness>(harness: &H) {
    const ROWS: u64 = 120;
    let store = harness.open().await;
    let other = harness.again(&store).await;
    assert!(mark(&store, &[]).await.is_ok(), "no row is nothing to refuse");
    assert!(is_invalid(&tx_refusal(mark(&store, &[1]).await)), "there is no row yet");
    publish(&store, &cx(), ROWS as usize).await;
    assert_eq!(other.outbox_unsent(ROWS, 10).await.unwrap(), []);
    assert_eq!(other.outbox_unsent(u64::MAX, 10).await.unwrap(), []);
    assert_eq!(other.outbox_unsent(0, 0).await.unwrap(), []);

    let mut chance = Chance(7);
    let mut naive: BTreeSet<u64> = (1..=ROWS).collect();
    for round in 0.. {
        let batch: Vec<u64> = if naive.len() < 20 {
            // The last ones, greatest first.
            naive.iter().rev().copied().collect()
        } else {
            (0..chance.below(9)).map(|_| 1 + chance.below(ROWS)).collect()
        };
        let writer = if round % 2 == 0 { &store } else { &other };
        mark(writer, &batch).await.unwrap();
        // The same again, as after a lost answer.
        mark(writer, &batch).await.unwrap();
        naive.retain(|seq| !batch.contains(seq));
        let left: Vec<u64> = naive.iter().copied().collect();
        for max in [1, 7, 1_000] {
            assert_eq!(unsent(&other, 0, max).await, left, "after {batch:?} in round {round}");
        }
        let after = chance.below(ROWS);
        let later: Vec<u64> = left.iter().copied().filter(|seq| *seq > after).collect();
        assert_eq!(unsent(&store, after, 1_000).await, later, "after row {after}");
        assert_eq!(other.outbox_status().await.unwrap().unsent, left.len() as u64);
        if left.is_empty() {
            break;
        }
    }
    publish(&other, &cx(), 1).await;
    assert_eq!(unsent(&store, 0, 10).await, [ROWS + 1], "a new row is not sent");
    assert_eq!(
        store.outbox_after(0, 1_000).await.unwrap().len() as u64,
        ROWS + 1,
        "sent rows are still there"
    );
}

/// A mark for no row, or too many, refuses the transaction with all its marks; one that is rolled back marks
/// nothing; marks from several writers at once all count.
pub async fn marks_are_part_of_their_transaction<H: Harness>(harness: &H) {
    let store = harness.open().await;
    let other = harness.again(&store).await;
    publish(&store, &cx(), 200).await;
    mark(&store, &[1, 2, 5]).await.unwrap();
    let before = unsent(&store, 0, 1_000).await;
    for unknown in [0, 201, u64::MAX] {
        let ended = transact(&store, move |tx| {
            tx.outbox_sent(&[3, 4])?;
            Ok(tx.outbox_sent(&[6, unknown])?)
        });
        let refused = tx_refusal(ended.await);
        assert!(is_invalid(&refused) && refused.retry() == Retry::Never, "{unknown}: {refused}");
        assert_eq!(unsent(&other, 0, 1_000).await, before, "{unknown}");
    }
    let many = vec![1; outbox::MARKS_MAX + 1];
    assert!(is_invalid(&tx_refusal(mark(&store, &many).await)));
    mark(&store, &many[1..]).await.unwrap();
    let ended = transact(&store, |tx| {
        tx.outbox_sent(&[3, 4, 100])?;
        Err::<(), _>(Abort::User("no".into()))
    });
    assert!(matches!(ended.await, Err(TransactError::User(_))));
    assert_eq!(unsent(&other, 0, 1_000).await, before);
    assert_eq!(other.outbox_status().await.unwrap().unsent, 197);

    let tasks: Vec<_> = (0..4u64)
        .map(|task| {
            let store = if task % 2 == 0 { store.clone() } else { other.clone() };
            tokio::spawn(async move {
                for step in 0..25 {
                    let row = 8 * step + 2 * task + 1;
                    mark(&store, &[row + 1, row]).await.unwrap();
                }
            })
        })
        .collect();
    for task in tasks {
        task.await.unwrap();
    }
    assert_eq!(unsent(&store, 0, 1_000).await, [0u64; 0]);
    assert_eq!(other.outbox_status().await.unwrap().unsent, 0);
}

/// The status tells the last row, what is unsent, since when the oldest of it waits, and what was removed. Of the
/// beginning only what is sent and old enough is removed, and numbers go on as if it were there.
pub async fn a_prune_removes_a_sent_prefix<H: Harness>(harness: &H) {
    let store = harness.open().await;
    let other = harness.again(&store).await;
    let status = |last, unsent, oldest: Option<i64>, pruned_to| OutboxStatus {
        last,
        unsent,
        oldest_unsent: oldest.map(Timestamp::from_millis),
        epoch: 1,
        epoch_after: 0,
        pruned_to,
    };
    let prune = async |store: &H::Store, before: i64, max: usize| {
        commit(store, move |tx| Ok(tx.outbox_prune(Timestamp::from_millis(before), max)?)).await
    };
    let rows = async |store: &H::Store| -> Vec<u64> {
        store.outbox_after(0, 100).await.unwrap().iter().map(|row| row.seq).collect()
    };
    assert_eq!(store.outbox_status().await.unwrap(), status(0, 0, None, 0));
    assert!(!prune(&store, i64::MAX, 10).await, "nothing to remove");
    // Row n was handed in at n·10, but row 6 at 1000: a wall clock that was set back afterwards.
    let clock = ManualClock::default();
    let cx = cx_at(&clock);
    for n in 1..=9 {
        clock.set_wall(Timestamp::from_millis(if n == 6 { 1_000 } else { n * 10 }));
        publish(&store, &cx, 1).await;
    }
    assert_eq!(other.outbox_status().await.unwrap(), status(9, 9, Some(10), 0));
    assert!(!prune(&store, i64::MAX, 10).await, "nothing is sent");
    mark(&store, &[1, 2, 3, 4, 5, 6, 8]).await.unwrap();
    assert_eq!(other.outbox_status().await.unwrap(), status(9, 2, Some(70), 0));
    assert!(!prune(&store, 10, 10).await, "nothing is older than the first row");
    assert_eq!(rows(&other).await.len(), 9);
    assert!(prune(&store, 50, 2).await, "rows 3 and 4 could go too");
    assert_eq!(rows(&other).await, [3, 4, 5, 6, 7, 8, 9]);
    assert!(!prune(&other, 50, 2).await, "row 5 is as old as the limit, not older");
    assert_eq!(rows(&store).await, [5, 6, 7, 8, 9]);
    assert!(prune(&store, 100, 0).await, "none was to go, but row 5 could");
    assert!(!prune(&store, 100, 10).await, "row 6 stands in the way: it is younger");
    assert_eq!(rows(&store).await, [6, 7, 8, 9]);
    let ended = transact(&store, |tx| {
        tx.outbox_prune(Timestamp::from_millis(5_000), 10)?;
        Err::<(), _>(Abort::User("no".into()))
    });
    assert!(ended.await.is_err());
    assert_eq!(rows(&other).await, [6, 7, 8, 9], "a prune that was rolled back");
    assert!(!prune(&store, 5_000, 10).await, "row 7 is not sent, and row 8 lies behind it");
    assert_eq!(rows(&other).await, [7, 8, 9]);
    assert_eq!(unsent(&other, 0, 10).await, [7, 9]);
    assert_eq!(unsent(&other, 3, 10).await, [7, 9]);
    assert_eq!(other.outbox_status().await.unwrap(), status(9, 2, Some(70), 6));
    let left = other.outbox_after(0, 1).await.unwrap();
    assert_eq!((left[0].seq, left[0].epoch, left[0].number, left[0].row.clone()), (7, 1, 7, message("m")));
    // A relay that lost the answer marks rows that are gone by now.
    mark(&store, &[2, 6, 7]).await.unwrap();
    mark(&store, &[9]).await.unwrap();
    assert!(!prune(&store, 5_000, 10).await);
    assert_eq!(rows(&other).await, [0u64; 0]);
    assert_eq!(other.outbox_status().await.unwrap(), status(9, 0, None, 9));
    let third = harness.again(&store).await;
    publish(&third, &cx, 1).await;
    publish(&other, &cx, 1).await;
    publish(&store, &cx, 1).await;
    assert_eq!(rows(&third).await, [10, 11, 12], "numbers go on after the last row that ever was");
    if !harness.features().positions_at_commit {
        // A transaction does not know the numbers of its own rows.
        return;
    }
    // A transaction may remove what it wrote itself.
    let all = transact(&store, |tx| {
        tx.outbox(&message("m"))?;
        tx.outbox_sent(&[10, 11, 12, 13])?;
        let more = tx.outbox_prune(Timestamp::from_millis(i64::MAX), 10)?;
        tx.outbox(&message("m"))?;
        Ok(more)
    });
    assert!(!all.await.unwrap().value);
    assert_eq!(rows(&other).await, [14]);
    let at = other.outbox_after(0, 1).await.unwrap()[0].at.as_millis();
    assert_eq!(store.outbox_status().await.unwrap(), status(14, 1, Some(at), 13));
}

/// An epoch numbers the rows after its beginning from 1, those already there included; their marks are taken
/// back. It can't begin where numbers would be given twice or would never be sent.
pub async fn a_new_epoch_numbers_rows_anew<H: Harness>(harness: &H) {
    let store = harness.open().await;
    let other = harness.again(&store).await;
    let open = async |store: &H::Store, after: u64| {
        transact(store, move |tx| Ok(tx.outbox_new_epoch(after)?)).await.map(|done| done.value)
    };
    let numbers = async |store: &H::Store| -> Vec<(u64, u32, u64)> {
        let rows = store.outbox_after(0, 100).await.unwrap();
        rows.iter().map(|row| (row.seq, row.epoch, row.number)).collect()
    };
    assert!(is_invalid(&tx_refusal(open(&store, 1).await)), "past the last row");
    publish(&store, &cx(), 6).await;
    mark(&store, &[1, 2, 3, 5]).await.unwrap();
    let ended = transact(&store, |tx| {
        assert_eq!(tx.outbox_new_epoch(2)?, 2);
        Err::<(), _>(Abort::User("no".into()))
    });
    assert!(ended.await.is_err());
    assert_eq!(unsent(&other, 0, 100).await, [4, 6], "an epoch that was rolled back takes no mark with it");
    assert!(is_invalid(&tx_refusal(open(&other, 7).await)), "past the last row");
    assert!(is_invalid(&tx_refusal(open(&other, u64::MAX).await)), "past the last row");
    assert_eq!(other.outbox_status().await.unwrap().epoch, 1);
    assert_eq!(open(&other, 2).await.unwrap(), 2);
    let expected = [(1, 1, 1), (2, 1, 2), (3, 2, 1), (4, 2, 2), (5, 2, 3), (6, 2, 4)];
    assert_eq!(numbers(&store).await, expected);
    assert_eq!(unsent(&store, 0, 100).await, [3, 4, 5, 6], "under their new numbers they were not sent");
    let status = store.outbox_status().await.unwrap();
    assert_eq!((status.unsent, status.epoch, status.epoch_after), (4, 2, 2));
    assert_eq!(other.outbox_epochs().await.unwrap(), [outbox::Epoch { epoch: 2, after: 2 }]);
    publish(&store, &cx(), 1).await;
    publish(&other, &cx(), 1).await;
    assert_eq!(numbers(&other).await[6..], [(7, 2, 5), (8, 2, 6)]);
    assert!(is_invalid(&tx_refusal(open(&store, 1).await)), "numbers of epoch 1 would be given twice");
    // Restored twice from one copy: the same beginning again.
    assert_eq!(open(&store, 2).await.unwrap(), 3);
    assert_eq!(open(&store, 8).await.unwrap(), 4);
    publish(&other, &cx(), 1).await;
    assert_eq!(numbers(&store).await[1..4], [(2, 1, 2), (3, 3, 1), (4, 3, 2)]);
    assert_eq!(numbers(&store).await[7..], [(8, 3, 6), (9, 4, 1)]);
    // The same names through every reading, and through a handle opened now.
    let third = harness.again(&store).await;
    let rows = third.outbox_unsent(0, 100).await.unwrap();
    assert_eq!(rows, store.outbox_after(2, 100).await.unwrap());
    assert_eq!(third.outbox_status().await.unwrap().epoch, 4);
    let identity = rows[6].identity(third.id());
    assert_eq!(identity.producer, Producer::new(store.id().0.simple().to_string()).unwrap());
    assert_eq!((identity.epoch, identity.partition, identity.seq), (4, 0, 1));
    assert_eq!(identity.content, rows[6].content());
    assert_ne!(identity.content, ContentHash::of(b"m"), "more than the payload counts");
    // A row written and an epoch opened before it, in one transaction.
    // (Where numbers are not known before the commit: in two.)
    let numbers_known = harness.features().positions_at_commit;
    if !numbers_known {
        publish(&store, &cx(), 1).await;
    }
    let both = transact(&store, move |tx| {
        if numbers_known {
            tx.outbox(&message("m"))?;
        }
        Ok((tx.outbox_new_epoch(9)?, tx.outbox_new_epoch(10)?))
    });
    assert_eq!(both.await.unwrap().value, (5, 6));
    assert_eq!(numbers(&third).await[8..], [(9, 4, 1), (10, 5, 1)]);

    mark(&store, &(1..=10).collect::<Vec<_>>()).await.unwrap();
    let soon = Timestamp::from_millis(cx().wall().as_millis() + 3_600_000);
    commit(&store, move |tx| Ok(tx.outbox_prune(soon, 10)?)).await;
    publish(&store, &cx(), 1).await;
    assert_eq!(open(&store, 10).await.unwrap(), 7);
    commit(&store, move |tx| {
        tx.outbox_sent(&[11])?;
        Ok(tx.outbox_prune(soon, 10)?)
    })
    .await;
    assert!(is_invalid(&tx_refusal(open(&store, 10).await)), "row 11 would never be sent again");
}

/// The first row's topic is the store's: a row of another one refuses its transaction, through every handle, also when
/// the rows are removed. One that was rolled back says nothing.
pub async fn an_outbox_has_one_topic<H: Harness>(harness: &H) {
    let store = harness.open().await;
    let other = harness.again(&store).await;
    let row = |topic: &str| OutboxRow { topic: Topic::new(topic).unwrap(), ..message("m") };
    let given_up = row("given-up");
    let ended = transact(&store, move |tx| {
        tx.outbox(&given_up)?;
        Err::<(), _>(Abort::User("no".into()))
    });
    assert!(ended.await.is_err());
    let (mine, again) = (row("mine"), row("mine"));
    commit(&store, move |tx| Ok(tx.outbox(&mine)?)).await;
    for handle in [&store, &other, &harness.again(&store).await] {
        let theirs = row("theirs");
        let refused = tx_refusal(transact(handle, move |tx| Ok(tx.outbox(&theirs)?)).await);
        let told = refused.to_string();
        assert!(is_invalid(&refused) && refused.retry() == Retry::Never, "{told}");
        assert!(told.contains("\"theirs\"") && told.contains("\"mine\""), "{told}");
    }
    commit(&other, move |tx| Ok(tx.outbox(&again)?)).await;
    mark(&store, &[1, 2]).await.unwrap();
    commit(&store, |tx| Ok(tx.outbox_prune(Timestamp::from_millis(i64::MAX), 10)?)).await;
    assert_eq!(store.outbox_after(0, 10).await.unwrap(), []);
    for handle in [&store, &harness.again(&store).await] {
        let (theirs, mine) = (row("theirs"), row("mine"));
        assert!(is_invalid(&tx_refusal(transact(handle, move |tx| Ok(tx.outbox(&theirs)?)).await)));
        commit(handle, move |tx| Ok(tx.outbox(&mine)?)).await;
    }
    // Refused with its transaction, also when it comes second in it.
    let (mine, theirs) = (row("mine"), row("theirs"));
    let ended = transact(&store, move |tx| {
        tx.outbox(&mine)?;
        Ok(tx.outbox(&theirs)?)
    });
    assert!(is_invalid(&tx_refusal(ended.await)));
    assert_eq!(unsent(&other, 0, 10).await, [3, 4]);
}

/// Rows that a store hands out without reading them are those that it would read, in every detail, and none of them was
/// marked before it was handed out by this handle; where it can't be sure it hands out nothing. A store that keeps none
/// passes.
pub async fn what_is_recent_is_what_is_recorded<H: Harness>(harness: &H) {
    let store = harness.open().await;
    let other = harness.again(&store).await;
    let mut handed_out = 0;
    let mut last = 0;
    for round in 0..24u64 {
        match round % 8 {
            // Rows that are taken back, behind some that are not.
            1 => {
                let ended = transact(&store, |tx| {
                    tx.outbox(&message("gone"))?;
                    Err::<(), _>(Abort::User("no".into()))
                });
                assert!(ended.await.is_err());
                publish(&store, &cx(), 2).await;
            }
            // Another process's.
            3 => publish(&other, &cx(), 2).await,
            4 => mark(&store, &[last]).await.unwrap(),
            // Numbered anew, the last of them too.
            6 => transact(&store, move |tx| Ok(tx.outbox_new_epoch(last.saturating_sub(1))?))
                .await
                .map(drop)
                .unwrap(),
            // Several in one transaction, with an event between them.
            7 => {
                let write = transact(&store, move |tx| {
                    tx.outbox(&message("one"))?;
                    tx.append(&stream("s"), Expected::Any, &events(&cx(), 1))?;
                    Ok(tx.outbox(&message("two"))?)
                });
                write.await.unwrap();
            }
            _ => publish(&store, &cx(), 3).await,
        }
        last = outbox_end(&store).await;
        for after in last.saturating_sub(9)..=last + 1 {
            for max in [1, 2, 100] {
                let Some(recent) = store.outbox_recent(after, max) else { continue };
                let recorded = store.outbox_after(after, max).await.unwrap();
                assert!(!recent.is_empty() && recent.len() <= max, "round {round}, after {after}");
                assert_eq!(recent, recorded[..recent.len()], "round {round}, after {after}");
                handed_out += recent.len();
            }
        }
    }
    // Whatever it keeps, it does not keep what was marked.
    let marked = store.outbox_unsent(0, 1_000).await.unwrap();
    mark(&store, &marked.iter().map(|row| row.seq).collect::<Vec<_>>()).await.unwrap();
    assert!(
        store.outbox_recent(last - 1, 10).is_none(),
        "the last row is marked; {handed_out} were handed out"
    );
}

async fn outbox_end<S: Store>(store: &S) -> u64 {
    store.outbox_status().await.unwrap().last
}
