//! Receipts at another service: met when their act is handled there, and not before.

use std::time::Duration;

use mainstay_event_store::memory::Memory;
use mainstay_event_store::{Abort, Receipt, Store};
use mainstay_flow::inbox::{DeadLetters, Followed, Follower, NotSeen};
use mainstay_messaging::Log;
use mainstay_messaging::memory::Memory as MemoryLog;

use crate::bank::{cx, quick};
use crate::faulty_log::FaultyLog;
use crate::post::{Keeper, follower, kept, relay, send, send_together};

const NO_TIME: Duration = Duration::ZERO;

async fn met(followed: &Followed, receipt: &Receipt) -> bool {
    match followed.wait(receipt, NO_TIME).await {
        Ok(()) => true,
        Err(NotSeen::NotYet { .. }) => false,
        Err(foreign) => panic!("{foreign}"),
    }
}

fn following<L: Log>(
    home: &Memory,
    log: &L,
    keeper: &Keeper<Memory>,
) -> (Follower<Memory, L, Keeper<Memory>>, Followed) {
    let followed = Followed::new(home.id());
    (follower(home, log, keeper).followed(&followed).parking_retry(quick(2)), followed)
}

#[tokio::test]
async fn a_receipt_is_met_when_its_act_is_handled() {
    let (cx, desk, log, home) = (cx(), Memory::new(), MemoryLog::default(), Memory::new());
    let (follower, followed) = following(&home, &log, &Keeper::new());
    let first = send(&desk, &cx, "a", &[1, 2]).await;
    assert!(!met(&followed, &first).await, "recorded only");
    relay(&desk, &log).run_until_empty(&cx).await.unwrap();
    assert!(!met(&followed, &first).await, "published only");
    follower.run_until_caught_up(&cx).await.unwrap();
    assert!(met(&followed, &first).await);
    let second = send(&desk, &cx, "b", &[3]).await;
    assert!(!met(&followed, &second).await);
    // Whoever waits is woken by the handling.
    relay(&desk, &log).run_until_empty(&cx).await.unwrap();
    let (waited, handled) =
        tokio::join!(followed.wait(&second, Duration::from_secs(30)), follower.run_until_caught_up(&cx));
    handled.unwrap();
    waited.unwrap();
    assert_eq!(kept(&home, "b").await, [3]);
}

#[tokio::test]
async fn a_process_started_anew_knows_from_the_log_what_was_handled() {
    let (cx, desk, log, home) = (cx(), Memory::new(), MemoryLog::default(), Memory::new());
    let receipt = send(&desk, &cx, "a", &[1, 2]).await;
    relay(&desk, &log).run_until_empty(&cx).await.unwrap();
    following(&home, &log, &Keeper::new()).0.run_until_caught_up(&cx).await.unwrap();
    let (anew, followed) = following(&home, &log, &Keeper::new());
    assert!(!met(&followed, &receipt).await);
    anew.run_until_caught_up(&cx).await.unwrap();
    assert!(met(&followed, &receipt).await);
}

#[tokio::test]
async fn half_of_a_transaction_does_not_meet_its_receipt() {
    let (cx, desk, log, home) = (cx(), Memory::new(), MemoryLog::default(), Memory::new());
    let first = send(&desk, &cx, "a", &[1]).await;
    let receipt = send_together(&desk, &cx, "a", &[2, 3]).await;
    relay(&desk, &log).run_until_empty(&cx).await.unwrap();
    // Only the first message can be read.
    let damaged = FaultyLog::over(log.clone(), []).damaged_after(1);
    let (stopped, followed) = following(&home, &damaged, &Keeper::new());
    stopped.batch_max(1).run_until_caught_up(&cx).await.unwrap_err();
    assert_eq!(kept(&home, "a").await, [1]);
    assert!(!met(&followed, &first).await, "nobody has seen yet that no more of its transaction follows");
    // The message it stands at, and the one after it.
    let damaged = FaultyLog::over(log.clone(), []).damaged_after(2);
    let (stopped, followed) = following(&home, &damaged, &Keeper::new());
    stopped.batch_max(1).run_until_caught_up(&cx).await.unwrap_err();
    assert_eq!(kept(&home, "a").await, [1, 2]);
    assert!(met(&followed, &first).await);
    assert!(!met(&followed, &receipt).await, "its second message is missing");
    // Whoever begins there finds that out too.
    let damaged = FaultyLog::over(log.clone(), []).damaged_after(1);
    let (stopped, followed) = following(&home, &damaged, &Keeper::new());
    stopped.run_until_caught_up(&cx).await.unwrap_err();
    assert!(met(&followed, &first).await && !met(&followed, &receipt).await);
    let (whole, followed) = following(&home, &log, &Keeper::new());
    whole.run_until_caught_up(&cx).await.unwrap();
    assert!(met(&followed, &receipt).await);
}

#[tokio::test]
async fn what_is_parked_is_not_handled() {
    let (cx, desk, log, home, keeper) =
        (cx(), Memory::new(), MemoryLog::default(), Memory::new(), Keeper::new());
    keeper.poisoned_by(2);
    let before = send(&desk, &cx, "a", &[1]).await;
    let parked = send(&desk, &cx, "b", &[2]).await;
    let after = send(&desk, &cx, "c", &[3]).await;
    relay(&desk, &log).run_until_empty(&cx).await.unwrap();
    let (follower, followed) = following(&home, &log, &keeper);
    follower.run_until_caught_up(&cx).await.unwrap();
    assert_eq!(kept(&home, "c").await, [3]);
    assert!(met(&followed, &before).await);
    assert!(!met(&followed, &parked).await);
    assert!(!met(&followed, &after).await, "everything up to it: that is not so");
    let (anew, again) = following(&home, &log, &keeper);
    anew.run_until_caught_up(&cx).await.unwrap();
    assert!(met(&again, &before).await && !met(&again, &parked).await, "nor after a new start");
    keeper.goes_well(2);
    let letters = DeadLetters::new(home.clone()).unwrap();
    let id = letters.list(None, 1).await.unwrap().0[0].id.clone();
    letters.retry(&cx, &id).await.unwrap();
    follower.run_until_caught_up(&cx).await.unwrap();
    assert!(met(&followed, &parked).await && met(&followed, &after).await);
}

#[tokio::test]
async fn own_receipts_are_met_and_foreign_ones_refused() {
    let (cx, desk, log, home) = (cx(), Memory::new(), MemoryLog::default(), Memory::new());
    let (follower, followed) = following(&home, &log, &Keeper::new());
    send(&desk, &cx, "a", &[1]).await;
    relay(&desk, &log).run_until_empty(&cx).await.unwrap();
    follower.run_until_caught_up(&cx).await.unwrap();
    let own = home.transact(&cx, |_| Ok::<_, Abort<()>>(())).await.unwrap().receipt;
    assert!(met(&followed, &own).await);
    let stranger = Memory::new();
    let foreign = send(&stranger, &cx, "a", &[1]).await;
    let refused = followed.wait(&foreign, Duration::from_secs(3600)).await;
    assert_eq!(refused, Err(NotSeen::NotFollowed { store: stranger.id() }));
}
