//! Work: one transaction of a service.

use std::sync::{Arc, Mutex};

use mainstay_event_store::memory::Memory;
use mainstay_event_store::{
    Abort, Act, Expected, OutboxRecord, Position, Query, Refusal, Row, Store, StreamName, TransactError, Tx,
    Version, ViewName,
};
use mainstay_flow::correlation;
use mainstay_flow::saga::Participant;
use mainstay_flow::unit_of_work::{Entity, Publisher, Work, transact};
use uuid::Uuid;

use crate::bank::{Account, Ask, Create, Deposit, No, Withdraw, bank, cx, quick, raw, stream};
use crate::faulty::{Fault, Faulty};

fn publisher() -> Publisher {
    Publisher::new(&Participant::new("bank").starts("DepositMade").announces("Unused")).unwrap()
}

/// Commands account 7 with each in turn, in one work.
async fn command<S: Store>(
    store: &S,
    entity: &Entity<Account>,
    asks: Vec<Ask>,
) -> Result<i64, TransactError<No>> {
    let (entity, cx) = (entity.clone(), cx());
    let done = transact(store, &cx, &publisher(), move |work| {
        let mut balance = 0;
        for ask in &asks {
            let decided = work.act(&entity, &stream("account-7"), "7", ask)?.map_err(Abort::User)?;
            balance = decided.state.balance;
        }
        Ok(balance)
    });
    Ok(done.retry(quick(5)).await?.value)
}

async fn published(store: &impl Store) -> Vec<OutboxRecord> {
    store.outbox_after(0, 100).await.unwrap()
}

#[tokio::test]
async fn what_a_work_does_commits_together_or_not_at_all() {
    let (store, entity) = (Memory::new(), Entity::kept().unwrap());
    let create = || Create { owner: "ada".into() };
    let refused =
        command(&store, &entity, vec![create(), Deposit { amount: 5 }, Withdraw { amount: 6 }]).await;
    assert_eq!(refused, Err(TransactError::User(No::Overdrawn { by: 1 })));
    assert_eq!((store.head().await.unwrap().position, published(&store).await.len()), (Position::START, 0));
    let done = command(&store, &entity, vec![create(), Deposit { amount: 5 }, Withdraw { amount: 4 }]).await;
    assert_eq!(done, Ok(1), "a work sees what it did before");
    assert_eq!((store.head().await.unwrap().position, published(&store).await.len()), (Position(3), 1));
}

#[tokio::test]
async fn only_what_is_declared_is_published() {
    let (store, entity) = (Memory::new(), Entity::replayed());
    command(&store, &entity, vec![Create { owner: "ada".into() }, Deposit { amount: 5 }]).await.unwrap();
    let rows = published(&store).await;
    assert_eq!(rows.len(), 1, "AccountCreated is the bank's own");
    let recorded = store.read(&Query::all(), Position::START, 10).await.unwrap().events;
    let row = &rows[0].row;
    assert_eq!((row.topic.as_str(), row.key.as_str()), ("bank", "7"));
    assert_eq!(row.payload, recorded[1].payload.bytes);
    let id = recorded[1].id.to_string();
    assert_eq!(row.headers, [("id".to_owned(), id), ("type".to_owned(), "DepositMade".to_owned())]);
    // Two commands that decide nothing publish nothing.
    command(&store, &entity, vec![Deposit { amount: 0 }, Deposit { amount: 0 }]).await.unwrap();
    assert_eq!(published(&store).await.len(), 1);
}

/// Every length, with somebody else who keeps no state, and with a kept state of another schema in between.
#[tokio::test]
async fn a_kept_state_is_the_replay_whoever_appends() {
    let store = Memory::new();
    let (kept, replayed) = (Entity::<Account>::kept().unwrap(), Entity::<Account>::replayed());
    let (others, cx) = (bank(&store), cx());
    for n in 1..=30_i64 {
        match n % 5 {
            0 => drop(others.command(&cx, "account-7", Deposit { amount: n }).await.unwrap()),
            3 => {
                // Lost, as a row of another schema is passed over.
                let view = ViewName::new("mainstay.snapshots").unwrap();
                let spoil = move |tx: &mainstay_event_store::memory::Transaction| {
                    let row = Row::new("account/account-7", *b"{\"schema\":99,\"version\":1,\"state\":null}");
                    Ok::<_, Abort<()>>(tx.view_put(&view, &row)?)
                };
                store.transact(&cx, spoil).await.unwrap();
            }
            _ => drop(command(&store, &kept, vec![Deposit { amount: n }]).await.unwrap()),
        }
        let states = transact(&store, &cx, &publisher(), {
            let (kept, replayed) = (kept.clone(), replayed.clone());
            move |work| {
                let stream = stream("account-7");
                Ok::<_, Abort<()>>((work.state(&kept, &stream)?, work.state(&replayed, &stream)?))
            }
        });
        let (one, two) = states.await.unwrap().value;
        assert_eq!(one, two, "after {n}");
    }
}

#[tokio::test]
async fn a_hot_stream_is_not_replayed() {
    let (store, entity, cx) = (Memory::new(), Entity::<Account>::kept().unwrap(), cx());
    for _ in 0..10 {
        command(&store, &entity, vec![Deposit { amount: 1 }]).await.unwrap();
    }
    // What stands in the row is believed: were the stream read, its balance would show.
    let view = ViewName::new("mainstay.snapshots").unwrap();
    let row = store.view_get(&view, "account/account-7").await.unwrap().unwrap();
    let text = String::from_utf8(row).unwrap();
    assert!(text.contains("\"balance\":10") && text.contains("\"version\":10"), "{text}");
    let other = text.replace("\"balance\":10", "\"balance\":1000");
    store
        .transact(&cx, move |tx| {
            Ok::<_, Abort<()>>(tx.view_put(&view, &Row::new("account/account-7", other.clone()))?)
        })
        .await
        .unwrap();
    assert_eq!(command(&store, &entity, vec![Deposit { amount: 1 }]).await, Ok(1_001));
}

#[tokio::test]
async fn a_work_that_runs_again_makes_the_same_ids() {
    let store = Faulty::new([Fault::Busy, Fault::None]);
    let seen: Arc<Mutex<Vec<[Uuid; 3]>>> = Arc::default();
    let heard = Arc::clone(&seen);
    let cx = cx();
    // A store that is busy while it commits, as the closure finds out: run again.
    let work = transact(&store, &cx, &publisher(), move |work: &Work<'_, Faulty>| {
        let ids = [work.new_id(), work.new_id(), work.new_id()];
        let mut seen = heard.lock().unwrap();
        seen.push(ids);
        if seen.len() < 3 {
            Err(Abort::Refused(Refusal::Busy { why: "a test".into() }))
        } else {
            Ok::<_, Abort<()>>(ids)
        }
    });
    let done = work.retry(quick(9)).await.unwrap().value;
    assert_eq!(*seen.lock().unwrap(), [done; 3]);
    assert!(done[0] != done[1] && done[1] != done[2] && done[0] != done[2]);
    let other = transact(&store, &cx, &publisher(), |work| Ok::<_, Abort<()>>(work.new_id())).await.unwrap();
    assert!(!done.contains(&other.value));
}

#[tokio::test]
async fn every_event_is_found_by_its_correlation() {
    let (store, entity) = (Memory::new(), Entity::<Account>::replayed());
    let calls =
        [cx(), cx().with_envelope(mainstay_envelope::Envelope::begin(Default::default(), &**cx().chance()))];
    for call in &calls {
        let entity = entity.clone();
        let work = transact(&store, call, &publisher(), move |work| {
            let done = work.command(&entity, &stream("account-7"), &Deposit { amount: 1 })?;
            done.map(drop).map_err(Abort::User)
        });
        work.await.unwrap();
    }
    for call in &calls {
        let tag = correlation::tag(call.fact().correlation).unwrap();
        let found = store.read(&Query::tags([tag]), Position::START, 10).await.unwrap().events;
        assert_eq!(found.len(), 1);
        assert_eq!(found[0].fact().unwrap().correlation, call.fact().correlation);
    }
}

#[tokio::test]
async fn a_stream_that_can_not_be_read_is_named_and_nothing_is_decided() {
    let (store, cx) = (Memory::new(), cx());
    let act = Act::append(stream("account-7"), Expected::Empty, vec![raw("DepositMade", 1, "{}")]);
    store.append(&cx, act).await.unwrap();
    let refused = command(&store, &Entity::replayed(), vec![Deposit { amount: 1 }]).await.unwrap_err();
    let TransactError::Store(error) = refused else { panic!("{refused:?}") };
    assert!(error.to_string().contains("account-7 can't be replayed, version 1"), "{error}");
    assert_eq!(store.head().await.unwrap().position, Position(1));
    let versions = [StreamName::new("account-7").unwrap()];
    let version =
        store.read_stream(&versions[0], Version(1), mainstay_event_store::Direction::Forwards, 9).await;
    assert_eq!(version.unwrap().version, Version(1));
}
