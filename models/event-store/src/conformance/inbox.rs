//! Promise 10, the inbox: an effect happens once, however often its message comes.

use std::collections::HashSet;

use mainstay_envelope::{ContentHash, MessageIdentity, Producer};

use super::Harness;
use super::kit::*;
use crate::inbox::{HOLES_MAX, RECENT};
use crate::*;

/// Message `seq` of a producer, with a content.
pub(super) fn identity(seq: u64, content: u8) -> MessageIdentity {
    MessageIdentity {
        producer: Producer::new("producer").unwrap(),
        epoch: 1,
        partition: 0,
        seq,
        content: ContentHash([content; 32]),
    }
}

/// Marks a message in a transaction of its own.
async fn mark<S: Store>(store: &S, message: MessageIdentity) -> Mark {
    commit(store, move |tx| Ok(tx.inbox_mark(&consumer("c"), &message)?)).await
}

/// First, repeated, altered; apart for each consumer, producer, epoch and partition; in any order; at once.
pub async fn inbox_marks_make_an_effect_happen_once<H: Harness>(harness: &H) {
    let store = harness.open().await;
    let other = harness.again(&store).await;
    assert_eq!(mark(&store, identity(1, 1)).await, Mark::First);
    assert_eq!(mark(&other, identity(1, 1)).await, Mark::Repeated);
    assert_eq!(mark(&other, identity(1, 2)).await, Mark::Altered);
    assert_eq!(mark(&store, identity(1, 1)).await, Mark::Repeated, "an altered one must not take its place");
    let others = [
        MessageIdentity { producer: Producer::new("Producer").unwrap(), ..identity(1, 2) },
        MessageIdentity { epoch: 2, ..identity(1, 2) },
        MessageIdentity { partition: 1, ..identity(1, 2) },
    ];
    for message in others {
        assert_eq!(mark(&store, message.clone()).await, Mark::First, "{message:?}");
        assert_eq!(mark(&other, message).await, Mark::Repeated);
    }
    let of_another = commit(&store, |tx| Ok(tx.inbox_mark(&consumer("C"), &identity(1, 2))?));
    assert_eq!(of_another.await, Mark::First);
    // The mark of a transaction that failed was never made.
    for _ in 0..2 {
        let ended = transact(&store, |tx| {
            let marks = [
                tx.inbox_mark(&consumer("c"), &identity(9, 1))?,
                tx.inbox_mark(&consumer("c"), &identity(7, 1))?,
            ];
            Err::<(), _>(Abort::User(format!("{marks:?}")))
        });
        assert_eq!(ended.await, Err(TransactError::User("[First, First]".into())));
    }

    // In any order, with repetitions, now and then rolled back: as a set of everything seen would say.
    let (mut chance, mut seen) = (Chance(5), HashSet::from([1]));
    for round in 0..60 {
        let seqs: Vec<u64> = (0..6).map(|_| 1 + chance.below(120)).collect();
        let keep = round % 5 != 0;
        let mut expected = Vec::new();
        let mut then = seen.clone();
        for &seq in &seqs {
            expected.push(if then.insert(seq) { Mark::First } else { Mark::Repeated });
        }
        let wanted = format!("{expected:?}");
        let ended = transact(if round % 2 == 0 { &store } else { &other }, move |tx| {
            let mut marks = Vec::new();
            for &seq in &seqs {
                marks.push(tx.inbox_mark(&consumer("c"), &identity(seq, 1))?);
            }
            let said = format!("{marks:?}");
            if keep { Ok(said) } else { Err(Abort::User(said)) }
        });
        match ended.await {
            Ok(done) => {
                assert_eq!(done.value, wanted, "round {round}");
                seen = then;
            }
            Err(TransactError::User(said)) => assert_eq!(said, wanted, "round {round}"),
            Err(error) => panic!("{error}"),
        }
    }
    for seq in 1..=120 {
        let said = mark(&other, identity(seq, 2)).await;
        assert_eq!(said, if seen.contains(&seq) { Mark::Altered } else { Mark::First }, "message {seq}");
    }

    // The same messages delivered to several copies of the consumer at once: each effect once.
    let copies: Vec<_> = (0..6)
        .map(|copy| {
            let store = if copy % 2 == 0 { store.clone() } else { other.clone() };
            tokio::spawn(async move {
                for seq in 201..=212 {
                    let effect = events(&super::kit::cx(), 1);
                    commit(&store, move |tx| {
                        if tx.inbox_mark(&consumer("c"), &identity(seq, 1))? == Mark::First {
                            tx.append(&stream(format!("effect-{seq}")), Expected::Any, &effect)?;
                        }
                        Ok(())
                    })
                    .await;
                }
            })
        })
        .collect();
    for copy in copies {
        copy.await.unwrap();
    }
    for seq in 201..=212 {
        assert_eq!(version(&other, &stream(format!("effect-{seq}"))).await, Version(1), "effects of {seq}");
    }
}

/// A message far back is still repeated, though its content is forgotten; too many missing ranges are refused
/// until some are filled.
pub async fn the_inbox_remembers_for_ever_in_bounded_space<H: Harness>(harness: &H) {
    let store = harness.open().await;
    let other = harness.again(&store).await;
    /// Marks these numbers, a few hundred in each transaction; all must be new.
    async fn mark_all<S: Store>(store: &S, seqs: impl Iterator<Item = u64>) {
        let seqs: Vec<u64> = seqs.collect();
        for part in seqs.chunks(400) {
            let part = part.to_vec();
            commit(store, move |tx| {
                for &seq in &part {
                    assert_eq!(
                        tx.inbox_mark(&consumer("c"), &identity(seq, 1))?,
                        Mark::First,
                        "message {seq}"
                    );
                }
                Ok(())
            })
            .await;
        }
    }
    mark_all(&store, 1..=RECENT + 2).await;
    for old in [1, 2] {
        assert_eq!(
            mark(&other, identity(old, 2)).await,
            Mark::Repeated,
            "its content is forgotten, not the message"
        );
    }
    for recent in [3, RECENT + 2] {
        assert_eq!(mark(&other, identity(recent, 2)).await, Mark::Altered);
        assert_eq!(mark(&other, identity(recent, 1)).await, Mark::Repeated);
    }
    // Every other number is missing, until there are too many ranges.
    let base = RECENT + 2;
    mark_all(&store, (1..=HOLES_MAX).map(|i| base + 2 * i)).await;
    let top = base + 2 * HOLES_MAX;
    let refused = tx_refusal(
        transact(&store, move |tx| Ok(tx.inbox_mark(&consumer("c"), &identity(top + 2, 1))?)).await,
    );
    assert!(matches!(refused, Refusal::Busy { .. }) && refused.retry() == Retry::Later, "{refused}");
    assert_eq!(mark(&other, identity(top, 1)).await, Mark::Repeated);
    assert_eq!(mark(&other, identity(top + 1, 1)).await, Mark::First, "the next in order makes no range");
    assert_eq!(mark(&other, identity(base + 1, 1)).await, Mark::First, "fills a range");
    assert_eq!(mark(&store, identity(top + 3, 1)).await, Mark::First, "so that there is room for another");
    assert_eq!(mark(&store, identity(base + 1, 1)).await, Mark::Repeated);
    // Numbers that no message has.
    for seq in [0, inbox::SEQ_MAX + 1, u64::MAX] {
        let ended = transact(&store, move |tx| Ok(tx.inbox_mark(&consumer("c"), &identity(seq, 1))?)).await;
        assert!(is_invalid(&tx_refusal(ended)), "{seq}");
    }
}
