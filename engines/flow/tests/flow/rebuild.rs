//! Rebuilds: beside the old rows, while both sides go on, resumed after a crash.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use mainstay_event_store::memory::Memory;
use mainstay_event_store::{Scan, Store, ViewName};
use mainstay_flow::projection::Consistency::{Eventual, ReadYourWrites};
use mainstay_flow::projection::{ProjectionError, Projector, Reader};

use crate::bank::{Balance, Balances, BalancesInCents, Deposit, Many, bank, cx, length, quick};
use crate::faulty::{Fault, Faulty, Meanwhile};

async fn rows(store: &impl Store, generation: u64) -> usize {
    let view = ViewName::new(format!("balances#{generation}")).unwrap();
    store.view_scan(&Scan::keys(view, 1_000)).await.unwrap().rows.len()
}

async fn accounts(store: &Memory, count: usize) {
    let (bank, cx) = (bank(store), cx());
    for account in 0..count {
        bank.command(&cx, format!("account-{account}"), Many { deposits: 3 }).await.unwrap();
    }
}

#[tokio::test]
async fn a_new_version_is_filled_beside_the_old_one_and_read_at_once() {
    let (store, cx) = (Memory::new(), cx());
    accounts(&store, 20).await;
    let old = Projector::new(store.clone(), store.clone(), Balances).unwrap();
    old.run_until_caught_up(&cx).await.unwrap();
    let new = Projector::new(store.clone(), store.clone(), BalancesInCents).unwrap().page_max(7);
    let reader = new.reader();
    let (mut seen, mut last) = (Vec::new(), 0);
    let rebuilt = new
        .rebuild(&cx, |progress| {
            assert!(progress.at.0 > last && progress.at <= progress.head && progress.generation == 2);
            last = progress.at.0;
            seen.push(last);
        })
        .await
        .unwrap();
    assert_eq!((rebuilt.generation, rebuilt.at.0, last), (2, 60, 60));
    assert!(seen.len() >= 9, "in pages: {seen:?}");
    assert_eq!(
        reader.get(&cx, "account-3", Eventual).await.unwrap(),
        Some(Balance { amount: 300, events: 3 })
    );
    assert_eq!((rows(&store, 1).await, rows(&store, 2).await), (0, 20), "the old rows are gone");
    new.run_until_caught_up(&cx).await.unwrap();
    let error = old.run_until_caught_up(&cx).await.unwrap_err();
    assert!(matches!(error, ProjectionError::OtherVersion { stored: 2, ours: 1, .. }), "{error}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn writers_readers_and_the_projector_go_on_meanwhile() {
    let (store, cx) = (Memory::new(), cx());
    accounts(&store, 200).await;
    let balances =
        Projector::new(store.clone(), store.clone(), Balances).unwrap().page_max(20).retry(quick(1_000));
    balances.run_until_caught_up(&cx).await.unwrap();
    let (stop, stopped) = tokio::sync::watch::channel(false);
    let (end, ended) = tokio::sync::oneshot::channel::<()>();
    let live = tokio::spawn({
        let (balances, cx) = (balances.clone(), cx.clone());
        async move { balances.run(&cx, async { drop(ended.await) }).await }
    });
    let writer = tokio::spawn({
        let (bank, cx, reader, stopped) = (bank(&store), cx.clone(), balances.reader(), stopped.clone());
        async move {
            let mut written = 0;
            while !*stopped.borrow() {
                written += 1;
                let done = bank.command(&cx, "busy", Deposit { amount: 1 }).await.unwrap();
                // Never less than was written, in whichever generation it is read.
                let row = reader.get(&cx, "busy", ReadYourWrites(&done.receipt)).await.unwrap().unwrap();
                assert_eq!((row.amount, row.events), (written, written as u64));
            }
            written
        }
    });
    let whole = tokio::spawn({
        let (cx, reader, stopped) = (cx.clone(), balances.reader(), stopped.clone());
        async move {
            while !*stopped.borrow() {
                // A half-filled or half-cleared generation would show here.
                let row = reader.get(&cx, "account-199", Eventual).await.unwrap();
                assert_eq!(row, Some(Balance { amount: 3, events: 3 }));
                tokio::task::yield_now().await;
            }
        }
    });
    for generation in 2..=6 {
        // Each time, something has been written since the last.
        let written = length(&store, "busy").await;
        while length(&store, "busy").await == written {
            assert!(!writer.is_finished(), "the writer has failed: its message is above");
            tokio::task::yield_now().await;
        }
        assert_eq!(balances.rebuild(&cx, |_| {}).await.unwrap().generation, generation);
    }
    stop.send_replace(true);
    let written = writer.await.unwrap();
    whole.await.unwrap();
    // Last: the writer reads what it wrote, and waits for the projector.
    end.send(()).unwrap();
    live.await.unwrap().unwrap();
    balances.run_until_caught_up(&cx).await.unwrap();
    let row = balances.reader().get(&cx, "busy", Eventual).await.unwrap().unwrap();
    assert_eq!((row.amount, row.events), (written, written as u64));
    assert_eq!((rows(&store, 5).await, rows(&store, 6).await), (0, 201));
}

/// Dies at each write in turn, before and after it; started anew, it goes on.
#[tokio::test]
async fn a_rebuild_that_dies_anywhere_is_resumed() {
    let (source, cx) = (Memory::new(), cx());
    accounts(&source, 20).await;
    for fault in [Fault::CrashBefore, Fault::CrashAfter] {
        let mut died = true;
        let mut survived = 0;
        while died {
            let target = Memory::new();
            let old = Projector::new(source.clone(), target.clone(), Balances).unwrap();
            old.run_until_caught_up(&cx).await.unwrap();
            let reader = Reader::<Balances, _, _>::new(source.clone(), target.clone());
            let plan = std::iter::repeat_n(Fault::None, survived).chain([fault.clone()]);
            let process = Faulty::over(target.clone(), plan);
            let rebuild =
                Projector::new(source.clone(), process.clone(), BalancesInCents).unwrap().page_max(9);
            died = tokio::select! {
                rebuilt = rebuild.rebuild(&cx, |_| {}) => rebuilt.is_err(),
                () = process.crashed() => true,
            };
            let between = reader.get(&cx, "account-3", Eventual).await.unwrap().unwrap();
            assert!([3, 300].contains(&between.amount), "whole rows at any moment: {between:?}");

            let again = Projector::new(source.clone(), target.clone(), BalancesInCents).unwrap().page_max(9);
            again.rebuild(&cx, |_| {}).await.unwrap();
            for account in 0..20 {
                let row = again.reader().get(&cx, &format!("account-{account}"), Eventual).await.unwrap();
                assert_eq!(row, Some(Balance { amount: 300, events: 3 }), "{fault:?} after {survived}");
            }
            assert_eq!(rows(&target, 1).await, 0, "the old rows are gone");
            survived += 1;
        }
        assert!(survived > 8, "begin, pages, switch, clear: {survived}");
    }
}

#[tokio::test]
async fn what_was_half_filled_by_another_version_is_dropped() {
    let (source, target, cx) = (Memory::new(), Memory::new(), cx());
    accounts(&source, 20).await;
    let old = Projector::new(source.clone(), target.clone(), Balances).unwrap();
    old.run_until_caught_up(&cx).await.unwrap();
    let process = Faulty::over(target.clone(), [Fault::None, Fault::None, Fault::CrashBefore]);
    let newer = Projector::new(source.clone(), process.clone(), BalancesInCents).unwrap().page_max(9);
    tokio::select! {
        _ = newer.rebuild(&cx, |_| {}) => panic!("it was to die"),
        () = process.crashed() => {}
    }
    assert!(rows(&target, 2).await > 0, "half filled");
    let rebuilt = old.rebuild(&cx, |_| {}).await.unwrap();
    assert_eq!(rebuilt.generation, 3);
    assert_eq!((rows(&target, 1).await, rows(&target, 2).await, rows(&target, 3).await), (0, 0, 20));
    let row = old.reader().get(&cx, "account-3", Eventual).await.unwrap();
    assert_eq!(row, Some(Balance { amount: 3, events: 3 }));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn an_inline_projection_is_rebuilt_while_commands_go_on() {
    let (store, cx) = (Memory::new(), cx());
    // Events from before the projection was added.
    accounts(&store, 100).await;
    let bank = bank(&store).inline(Balances).unwrap();
    bank.command(&cx, "busy", Deposit { amount: 1 }).await.unwrap();
    let balances = Projector::new(store.clone(), store.clone(), Balances).unwrap().inline().page_max(20);
    let reader = balances.reader();
    assert_eq!(reader.get(&cx, "account-3", Eventual).await.unwrap(), None);
    let done = Arc::new(AtomicBool::new(false));
    let writer = tokio::spawn({
        let (bank, cx, done) = (bank.clone(), cx.clone(), Arc::clone(&done));
        async move {
            let mut written = 1;
            while !done.load(Ordering::Relaxed) {
                bank.command(&cx, "busy", Deposit { amount: 1 }).await.unwrap();
                written += 1;
                // A store in memory never makes a task wait by itself.
                tokio::task::yield_now().await;
            }
            written
        }
    });
    for generation in 2..=4 {
        assert_eq!(balances.rebuild(&cx, |_| {}).await.unwrap().generation, generation);
    }
    done.store(true, Ordering::Relaxed);
    let written = writer.await.unwrap();
    let row = reader.get(&cx, "busy", Eventual).await.unwrap().unwrap();
    assert_eq!(
        (row.amount, row.events),
        (written, written as u64),
        "each event once, none between the generations"
    );
    let row = reader.get(&cx, "account-3", Eventual).await.unwrap();
    assert_eq!(row, Some(Balance { amount: 3, events: 3 }));
}

#[tokio::test]
async fn after_a_restore_the_rows_are_rebuilt_from_what_is_there() {
    let id = mainstay_event_store::StoreId(cx().new_id());
    let (lost, restored, target, cx) = (Memory::with_id(id), Memory::with_id(id), Memory::new(), cx());
    accounts(&lost, 20).await;
    accounts(&restored, 5).await;
    Projector::new(lost, target.clone(), Balances).unwrap().run_until_caught_up(&cx).await.unwrap();
    let balances = Projector::new(restored, target.clone(), Balances).unwrap();
    let error = balances.run_until_caught_up(&cx).await.unwrap_err();
    assert!(matches!(error, ProjectionError::Rewritten { .. }), "{error}");
    assert_eq!(balances.rebuild(&cx, |_| {}).await.unwrap().at.0, 15);
    assert_eq!((rows(&target, 1).await, rows(&target, 2).await), (0, 5));
    assert_eq!(balances.run_until_caught_up(&cx).await.unwrap().0, 15);
}

/// Finishes work over stores in memory, which is never kept waiting, from inside a callback.
fn finish<T>(work: impl Future<Output = T>) -> T {
    let mut task = std::task::Context::from_waker(std::task::Waker::noop());
    match std::pin::pin!(work).poll(&mut task) {
        std::task::Poll::Ready(value) => value,
        std::task::Poll::Pending => panic!("it waits for something"),
    }
}

#[tokio::test]
async fn readers_never_go_back_behind_what_they_were_shown() {
    let (store, cx) = (Memory::new(), cx());
    accounts(&store, 3).await;
    let balances = Projector::new(store.clone(), store.clone(), Balances).unwrap();
    balances.run_until_caught_up(&cx).await.unwrap();
    let mut once = true;
    let late = || {
        // Between the last page and the switch: an event, and readers are shown it.
        finish(bank(&store).command(&cx, "late", Deposit { amount: 1 }).into_future()).unwrap();
        finish(balances.run_until_caught_up(&cx)).unwrap();
    };
    let rebuilt = balances
        .rebuild(&cx, |_| {
            if std::mem::take(&mut once) {
                late()
            }
        })
        .await
        .unwrap();
    assert_eq!(rebuilt.at.0, 10);
    let row = balances.reader().get(&cx, "late", Eventual).await.unwrap();
    assert_eq!(row, Some(Balance { amount: 1, events: 1 }));
}

#[tokio::test]
async fn readers_never_go_back_however_late_the_event_comes() {
    // After each of the rebuild's reads, just before the write that rests on it.
    for at_write in 0..4 {
        let (store, cx) = (Memory::new(), cx());
        accounts(&store, 3).await;
        let live = Projector::new(store.clone(), store.clone(), Balances).unwrap();
        live.run_until_caught_up(&cx).await.unwrap();
        let late = {
            let (store, live, cx) = (store.clone(), live.clone(), cx.clone());
            move || {
                finish(bank(&store).command(&cx, "late", Deposit { amount: 1 }).into_future()).unwrap();
                finish(live.run_until_caught_up(&cx)).unwrap();
            }
        };
        let plan =
            std::iter::repeat_n(Fault::None, at_write).chain([Fault::Meanwhile(Meanwhile(Arc::new(late)))]);
        let process = Faulty::over(store.clone(), plan);
        let rebuild = Projector::new(store.clone(), process.clone(), Balances).unwrap();
        rebuild.rebuild(&cx, |_| {}).await.unwrap();
        assert!(process.writes() > at_write);
        let row = live.reader().get(&cx, "late", Eventual).await.unwrap();
        // After the last of these writes, the switch, the old rows are not followed any more.
        assert_eq!(row, Some(Balance { amount: 1, events: 1 }), "before write {at_write}");
    }
}

#[tokio::test]
async fn inline_commands_are_held_up_only_when_a_rebuild_would_not_end_otherwise() {
    let (store, cx) = (Memory::new(), cx());
    let bank = bank(&store).inline(Balances).unwrap().trouble_retry(quick(1));
    bank.command(&cx, "busy", Deposit { amount: 1 }).await.unwrap();
    let balances = Projector::new(store.clone(), store.clone(), Balances).unwrap().inline();
    let (mut written, mut held_up) = (1, 0);
    let rebuilt = balances
        .rebuild(&cx, |_| match finish(bank.command(&cx, "busy", Deposit { amount: 1 }).into_future()) {
            Ok(_) => written += 1,
            Err(error) => {
                assert!(error.to_string().contains("is switching"), "{error}");
                held_up += 1;
            }
        })
        .await
        .unwrap();
    assert_eq!((written, held_up, rebuilt.at.0), (4, 1, 4), "free three times, then held up once");
    bank.command(&cx, "busy", Deposit { amount: 1 }).await.unwrap();
    let row = balances.reader().get(&cx, "busy", Eventual).await.unwrap();
    assert_eq!(row, Some(Balance { amount: 5, events: 5 }), "none missing, none twice");
}

#[tokio::test]
async fn whoever_was_overtaken_by_another_rebuild_writes_nothing_more() {
    let (source, target, cx) = (Memory::new(), Memory::new(), cx());
    accounts(&source, 20).await;
    let old = Projector::new(source.clone(), target.clone(), Balances).unwrap();
    let newer = Projector::new(source, target.clone(), BalancesInCents).unwrap().page_max(9);
    let mut once = true;
    let overtake = || assert_eq!(finish(old.rebuild(&cx, |_| {})).unwrap().generation, 3);
    let error = newer
        .rebuild(&cx, |_| {
            if std::mem::take(&mut once) {
                overtake()
            }
        })
        .await
        .unwrap_err();
    assert!(matches!(error, ProjectionError::Overtaken { .. }), "{error}");
    assert_eq!((rows(&target, 2).await, rows(&target, 3).await), (0, 20));
}
