//! Promise 10, checkpoints: where a consumer stands, written with what it did.

use super::Harness;
use super::kit::*;
use crate::*;

/// A checkpoint moves only for whoever knows where it is.
pub async fn checkpoints_move_only_from_where_they_are<H: Harness>(harness: &H) {
    let store = harness.open().await;
    let other = harness.again(&store).await;
    let (c, d) = (consumer("c"), consumer("d"));
    let go = async |store: &H::Store, name: &ConsumerName, from: u64, to: u64| {
        let name = name.clone();
        transact(store, move |tx| Ok(tx.move_checkpoint(&name, Position(from), Position(to))?))
            .await
            .map(drop)
    };
    assert_eq!(store.checkpoint(&c).await.unwrap(), None);
    let moved = |actual: u64, expected: u64| Refusal::CheckpointMoved {
        consumer: c.clone(),
        expected: Position(expected),
        actual: Position(actual),
    };
    assert_eq!(tx_refusal(go(&store, &c, 3, 5).await), moved(0, 3));
    go(&store, &c, 0, 5).await.unwrap();
    for wrong in [0, 4, 6] {
        let refused = tx_refusal(go(&other, &c, wrong, 9).await);
        assert_eq!(refused, moved(5, wrong));
        assert_eq!(refused.retry(), Retry::Never);
        assert_eq!(store.checkpoint(&c).await.unwrap(), Some(Position(5)));
    }
    go(&other, &c, 5, 8).await.unwrap();
    go(&store, &c, 8, 8).await.unwrap();
    // Back to the beginning, for a rebuild; a position of another store's feed may be beyond this one's end.
    go(&store, &c, 8, 0).await.unwrap();
    go(&store, &c, 0, i64::MAX as u64).await.unwrap();
    assert_eq!(other.checkpoint(&c).await.unwrap(), Some(Position(i64::MAX as u64)));
    assert_eq!(other.checkpoint(&d).await.unwrap(), None);
    go(&other, &d, 0, 1).await.unwrap();
    assert_eq!(store.checkpoint(&c).await.unwrap(), Some(Position(i64::MAX as u64)));

    // Copies of one consumer at the same moment: one moves it.
    let copies: Vec<_> = (0..8)
        .map(|copy| {
            let (store, d) = (if copy % 2 == 0 { store.clone() } else { other.clone() }, d.clone());
            tokio::spawn(async move {
                let ended = transact(&store, move |tx| {
                    Ok(tx.move_checkpoint(&d, Position(1), Position(10 + copy))?)
                });
                ended.await.is_ok()
            })
        })
        .collect();
    let mut won = 0;
    for copy in copies {
        won += u64::from(copy.await.unwrap());
    }
    assert_eq!(won, 1);
}
