//! Reading one's own writes, and what is answered when that is not possible yet.

use std::time::Duration;

use mainstay_event_store::memory::Memory;
use mainstay_event_store::{Position, ReadError};
use mainstay_flow::projection::Consistency::{Eventual, ReadYourWrites};
use mainstay_flow::projection::{Projector, Reader, ViewError};

use crate::bank::{Balances, Deposit, bank, cx, over};

#[tokio::test]
async fn a_read_of_ones_own_write_waits_for_the_projection() {
    let (source, target, cx) = (Memory::new(), Memory::new(), cx());
    let done = bank(&source).command(&cx, "account-7", Deposit { amount: 5 }).await.unwrap();
    let balances = Projector::new(source.clone(), target.clone(), Balances).unwrap();
    for reader in [balances.reader(), Reader::new(source.clone(), target.clone())] {
        assert_eq!(reader.get(&cx, "account-7", Eventual).await.unwrap(), None, "stale, as asked for");
        let late = reader.get(&over(&cx), "account-7", ReadYourWrites(&done.receipt)).await.unwrap_err();
        assert!(
            matches!(late, ViewError::NotYet { needed: Some(Position(1)), reached: None, .. }),
            "it never answers with less than was asked for: {late}"
        );
    }
    // Asked before the projection runs, answered after.
    let (heard, polled) = (balances.reader(), Reader::<Balances, _, _>::new(source.clone(), target.clone()));
    let waiting = async |reader: Reader<Balances, Memory, Memory>| {
        reader.get(&cx, "account-7", ReadYourWrites(&done.receipt)).await.unwrap().unwrap().amount
    };
    let run = async {
        tokio::task::yield_now().await;
        balances.run_until_caught_up(&cx).await.unwrap()
    };
    assert_eq!(tokio::join!(waiting(heard), waiting(polled), run), (5, 5, Position(1)));
}

#[tokio::test]
async fn a_deadline_bounds_the_wait_and_the_answer_says_where_things_stand() {
    let (store, cx) = (Memory::new(), cx());
    let bank = bank(&store);
    bank.command(&cx, "account-7", Deposit { amount: 5 }).await.unwrap();
    let balances = Projector::new(store.clone(), store.clone(), Balances).unwrap();
    balances.run_until_caught_up(&cx).await.unwrap();
    let done = bank.command(&cx, "account-7", Deposit { amount: 5 }).await.unwrap();
    let soon = cx.with_deadline(Duration::from_millis(60));
    let began = std::time::Instant::now();
    let error = balances.reader().get(&soon, "account-7", ReadYourWrites(&done.receipt)).await.unwrap_err();
    assert!(began.elapsed() >= Duration::from_millis(60), "{:?}", began.elapsed());
    assert!(
        matches!(error, ViewError::NotYet { needed: Some(Position(2)), reached: Some(Position(1)), .. }),
        "{error}"
    );
    let shown = error.to_string();
    assert!(shown.contains("has come to position 1, the receipt is at position 2"), "{shown}");
}

#[tokio::test]
async fn a_receipt_of_another_store_is_refused() {
    let (store, other, cx) = (Memory::new(), Memory::new(), cx());
    let foreign = bank(&other).command(&cx, "account-7", Deposit { amount: 5 }).await.unwrap();
    let reader = Reader::<Balances, _, _>::new(store.clone(), store.clone());
    let error = reader.get(&cx, "account-7", ReadYourWrites(&foreign.receipt)).await.unwrap_err();
    assert!(matches!(error, ViewError::Store(ReadError::ForeignReceipt { .. })), "{error}");
}

#[tokio::test]
async fn rows_of_an_inline_projection_are_never_behind() {
    let (store, cx) = (Memory::new(), cx());
    let bank = bank(&store).inline(Balances).unwrap();
    let reader = Reader::<Balances, _, _>::new(store.clone(), store.clone());
    let done = bank.command(&cx, "account-7", Deposit { amount: 5 }).await.unwrap();
    let shown = reader.get(&over(&cx), "account-7", ReadYourWrites(&done.receipt)).await.unwrap();
    assert_eq!(shown.unwrap().amount, 5);
}
