//! Promises on groups: each gets everything, its members share it, what is not acknowledged comes again.

use std::collections::HashSet;
use std::time::Duration;

use super::Harness;
use super::kit::*;
use crate::*;

async fn join<H: Harness>(
    harness: &H,
    log: &H::Log,
    offsets: &H::Offsets,
    name: &str,
) -> Consumer<H::Log, H::Offsets> {
    Consumer::join(harness.again(log).await, offsets.clone(), group(name), topic("t")).await.unwrap()
}

/// Takes all that is there, acknowledging each batch.
async fn drain<L: Log, O: Offsets>(consumer: &mut Consumer<L, O>, max: usize) -> Vec<u64> {
    let mut seen = Vec::new();
    while let Some(batch) = consumer.next(&cx(), max, Duration::ZERO).await.unwrap() {
        assert!(batch.messages.len() <= max);
        seen.extend(numbers(&batch.messages));
        consumer.ack(&cx(), &batch).await.unwrap();
    }
    seen
}

/// Two groups get every message, each at its own pace; a member that joins goes on where its group stands.
pub async fn groups_are_independent<H: Harness>(harness: &H) {
    let (log, offsets) = (harness.open(1).await, harness.offsets().await);
    let mut slow = join(harness, &log, &offsets, "slow").await;
    let mut quick = join(harness, &log, &offsets, "quick").await;
    log.append(&cx(), messages("t", "k", 1..=10)).await.unwrap();
    assert_eq!(drain(&mut quick, 3).await, (1..=10).collect::<Vec<_>>());
    let batch = slow.next(&cx(), 4, Duration::ZERO).await.unwrap().unwrap();
    assert_eq!(numbers(&batch.messages), [1, 2, 3, 4]);
    slow.ack(&cx(), &batch).await.unwrap();
    log.append(&cx(), messages("t", "k", 11..=12)).await.unwrap();
    drop((slow, quick));
    assert_eq!(drain(&mut join(harness, &log, &offsets, "quick").await, 10).await, [11, 12]);
    assert_eq!(
        drain(&mut join(harness, &log, &offsets, "slow").await, 10).await,
        (5..=12).collect::<Vec<_>>()
    );
    assert_eq!(
        drain(&mut join(harness, &log, &offsets, "new").await, 10).await,
        (1..=12).collect::<Vec<_>>()
    );
}

/// A group is set back to the start and gets everything again, in the same order; others don't notice. Where the
/// log does not replay, this case checks nothing.
pub async fn replay_begins_at_the_start<H: Harness>(harness: &H) {
    let (log, offsets) = (harness.open(2).await, harness.offsets().await);
    if !log.promises().replay {
        return;
    }
    for key in 1..=20 {
        log.append(&cx(), vec![message("t", &format!("key-{key}"), key)]).await.unwrap();
    }
    let mut consumer = join(harness, &log, &offsets, "replayed").await;
    let mut untouched = join(harness, &log, &offsets, "untouched").await;
    let (mut first, _) = (drain(&mut consumer, 7).await, drain(&mut untouched, 7).await);
    for partition in 0..2 {
        consumer.seek(&cx(), partition, Offset::START).await.unwrap();
    }
    let mut second = drain(&mut join(harness, &log, &offsets, "replayed").await, 3).await;
    first.sort_unstable();
    second.sort_unstable();
    assert_eq!(first, (1..=20).collect::<Vec<_>>());
    assert_eq!(second, first);
    assert!(drain(&mut untouched, 7).await.is_empty());
}

/// What was handed out and not acknowledged comes again, to the same member and to another one.
pub async fn what_is_not_acknowledged_comes_again<H: Harness>(harness: &H) {
    let (log, offsets) = (harness.open(1).await, harness.offsets().await);
    log.append(&cx(), messages("t", "k", 1..=6)).await.unwrap();
    let mut first = join(harness, &log, &offsets, "g").await;
    for _ in 0..3 {
        let batch = first.next(&cx(), 2, Duration::ZERO).await.unwrap().unwrap();
        assert_eq!(numbers(&batch.messages), [1, 2]);
    }
    let batch = first.next(&cx(), 2, Duration::ZERO).await.unwrap().unwrap();
    first.ack(&cx(), &batch).await.unwrap();
    let unacknowledged = first.next(&cx(), 2, Duration::ZERO).await.unwrap().unwrap();
    assert_eq!(numbers(&unacknowledged.messages), [3, 4]);
    drop(first); // it dies
    assert_eq!(drain(&mut join(harness, &log, &offsets, "g").await, 10).await, [3, 4, 5, 6]);
}

/// The effect is done and the acknowledgement is lost: the messages come again, under the same identities, and
/// whoever remembers these does nothing twice.
pub async fn a_lost_acknowledgement_redelivers<H: Harness>(harness: &H) {
    let (log, offsets) = (harness.open(1).await, harness.offsets().await);
    log.append(&cx(), messages("t", "k", 1..=40)).await.unwrap();
    let (mut inbox, mut effects, mut redelivered) = (HashSet::new(), Vec::new(), 0);
    let mut round = 0;
    let mut consumer = join(harness, &log, &offsets, "g").await;
    while let Some(batch) = consumer.next(&cx(), 7, Duration::ZERO).await.unwrap() {
        for delivered in &batch.messages {
            if inbox.insert(delivered.message.identity.clone()) {
                effects.push(delivered.message.identity.seq);
            } else {
                redelivered += 1;
            }
        }
        round += 1;
        if round % 3 == 0 {
            consumer.ack(&cx(), &batch).await.unwrap();
        } else {
            // Dead between effect and acknowledgement.
            consumer = join(harness, &log, &offsets, "g").await;
        }
        assert!(round < 100, "no progress");
    }
    assert_eq!(effects, (1..=40).collect::<Vec<_>>());
    assert_eq!(redelivered, 2 * 40);
}

/// Of two members that acknowledge from one place, one succeeds; the other is told where the group stands, and
/// its commit changed nothing.
pub async fn competing_commits_are_fenced<H: Harness>(harness: &H) {
    let (log, offsets) = (harness.open(1).await, harness.offsets().await);
    log.append(&cx(), messages("t", "k", 1..=10)).await.unwrap();
    let mut one = join(harness, &log, &offsets, "g").await;
    let mut two = join(harness, &log, &offsets, "g").await;
    let of_one = one.next(&cx(), 2, Duration::ZERO).await.unwrap().unwrap();
    let of_two = two.next(&cx(), 5, Duration::ZERO).await.unwrap().unwrap();
    two.ack(&cx(), &of_two).await.unwrap();
    let stands = of_two.messages[4].offset;
    match one.ack(&cx(), &of_one).await.unwrap_err() {
        ConsumeError::Commit(CommitError::Moved { expected: Offset::START, actual }) => {
            assert_eq!(actual, stands)
        }
        other => panic!("{other}"),
    }
    assert_eq!(offsets.committed(&group("g"), &topic("t"), 0).await.unwrap(), stands);
    // It goes on where the group stands.
    assert_eq!(drain(&mut one, 10).await, [6, 7, 8, 9, 10]);
}

/// Members that compete handle everything at least once between them, and every place is acknowledged by one.
pub async fn members_of_a_group_share_the_work<H: Harness>(harness: &H) {
    const MESSAGES: u64 = 120;
    let (log, offsets) = (harness.open(2).await, harness.offsets().await);
    for number in 1..=MESSAGES {
        log.append(&cx(), vec![message("t", &format!("key-{}", number % 10), number)]).await.unwrap();
    }
    let mut members = Vec::new();
    for _ in 0..3 {
        let mut member = join(harness, &log, &offsets, "g").await;
        members.push(tokio::spawn(async move {
            let mut acknowledged = Vec::new();
            loop {
                let Some(batch) = member.next(&cx(), 5, Duration::ZERO).await.unwrap() else {
                    return acknowledged;
                };
                match member.ack(&cx(), &batch).await {
                    Ok(()) => acknowledged.extend(numbers(&batch.messages)),
                    Err(ConsumeError::Commit(CommitError::Moved { .. })) => {}
                    Err(other) => panic!("{other}"),
                }
            }
        }));
    }
    let mut acknowledged = Vec::new();
    for member in members {
        acknowledged.extend(member.await.unwrap());
    }
    acknowledged.sort_unstable();
    assert_eq!(acknowledged, (1..=MESSAGES).collect::<Vec<_>>());
}

/// A group's places in two topics and two partitions, and two groups' places in one, have nothing in common.
pub async fn places_are_apart<H: Harness>(harness: &H) {
    let offsets = harness.offsets().await;
    let long = "g".repeat(Group::BYTES_MAX);
    let places =
        [("g", "t", 0), ("g", "t", 1), ("g", "t2", 0), ("gt", "t", 0), ("g", "tt", 0), (&long, "t", 0)];
    for (i, (name, topic_name, partition)) in places.iter().enumerate() {
        let (name, topic_name) = (group(name), topic(topic_name));
        assert_eq!(offsets.committed(&name, &topic_name, *partition).await.unwrap(), Offset::START);
        let to = Offset(i as u64 + 1);
        offsets.commit(&cx(), &name, &topic_name, *partition, Offset::START, to).await.unwrap();
    }
    for (i, (name, topic_name, partition)) in places.iter().enumerate() {
        let found = offsets.committed(&group(name), &topic(topic_name), *partition).await.unwrap();
        assert_eq!(found, Offset(i as u64 + 1), "{name} {topic_name} {partition}");
    }
    let (name, topic_name) = (group("g"), topic("t"));
    let cx = cx();
    let from = |from| offsets.commit(&cx, &name, &topic_name, 0, from, Offset(9));
    let moved = CommitError::Moved { expected: Offset::START, actual: Offset(1) };
    assert_eq!(from(Offset::START).await, Err(moved));
    assert_eq!(from(Offset(1)).await, Ok(()));
}
