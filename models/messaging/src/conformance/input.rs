//! Promises on bad input: refused with its reason, before anything is done.

use super::Harness;
use super::kit::*;
use crate::*;

/// What is too large, too long or too many is refused with its reason, also as the last of a good batch; what is
/// just small enough is accepted.
pub async fn bad_input_is_refused_before_anything_is_appended<H: Harness>(harness: &H) {
    let log = harness.open(1).await;
    let with = |change: fn(&mut Message)| {
        let mut batch = messages("t", "k", 1..=3);
        change(&mut batch[2]);
        batch
    };
    let large = |count| {
        let mut batch = messages("t", "k", 1..=count);
        batch.iter_mut().for_each(|message| message.data = vec![0; limits::DATA_BYTES_MAX].into());
        batch
    };
    for (what, batch) in [
        ("key", with(|message| message.key = "k".repeat(limits::KEY_BYTES_MAX + 1))),
        ("data", with(|message| message.data = vec![0; limits::DATA_BYTES_MAX + 1].into())),
        ("number", with(|message| message.identity.seq = i64::MAX as u64 + 1)),
        ("number", with(|message| message.identity.seq = 0)),
        ("mark", with(|message| message.mark = u64::MAX)),
        ("messages", messages("t", "k", 1..=limits::APPEND_MESSAGES_MAX as u64 + 1)),
        ("bytes", large(16)),
    ] {
        let error = log.append(&cx(), batch).await.unwrap_err();
        assert!(matches!(error, AppendError::Invalid { .. }), "{what}: {error}");
        assert_eq!(error.retry(), Retry::Never);
        let text = error.to_string();
        assert!(text.contains("nothing was appended") && text.contains(what), "{what}: {text}");
    }
    let other = harness.again(&log).await;
    assert_eq!(whole(&other, &topic("t"), 0).await, []);
    assert_eq!(other.newest(&producer("suite"), 1, 0).await.unwrap(), None);
    assert_eq!(log.append(&cx(), Vec::new()).await.unwrap(), []);
    let most = limits::APPEND_MESSAGES_MAX as u64;
    assert_eq!(log.append(&cx(), messages("t", "k", 1..=most)).await.unwrap().len() as u64, most);
    assert_eq!(log.append(&cx(), large(15)).await.unwrap().len(), 15);
    // Pages end by bytes too, and hold at least one message.
    let found = rest(&other, &topic("t"), 0, Offset(most), 1_000).await;
    assert_eq!(found.len(), 15);
    let page = other.read(&topic("t"), 0, Offset(most), 1_000).await.unwrap();
    assert!((1..=5).contains(&page.messages.len()) && !page.at_end(), "{} messages", page.messages.len());
}

/// A page that is too large is cut, one of nothing is empty, a partition that is not there is refused.
pub async fn reads_are_cut_or_refused<H: Harness>(harness: &H) {
    let log = harness.open(2).await;
    for first in [1, 601] {
        log.append(&cx(), messages("t", "k", first..=first + 599)).await.unwrap();
    }
    let partition = partition_of("k", 2);
    let page = log.read(&topic("t"), partition, Offset::START, usize::MAX).await.unwrap();
    assert_eq!((page.messages.len(), page.end), (limits::PAGE_MESSAGES_MAX, Offset(1_200)));
    let page = log.read(&topic("t"), partition, Offset(3), 0).await.unwrap();
    assert_eq!((page.messages.len(), page.next), (0, Offset(3)));
    for partition in [2, u32::MAX] {
        let read = log.read(&topic("t"), partition, Offset::START, 1).await;
        assert!(matches!(read, Err(ReadError::Invalid { .. })), "{read:?}");
        let end = log.end(&topic("t"), partition).await;
        assert!(matches!(end, Err(ReadError::Invalid { .. })), "{end:?}");
    }
}

/// A reader that stands past the end is told so, never answered "nothing new": its memory is another log's.
pub async fn a_place_past_the_end_is_told<H: Harness>(harness: &H) {
    let log = harness.open(1).await;
    log.append(&cx(), messages("t", "k", 1..=3)).await.unwrap();
    let other = harness.again(&log).await;
    for (name, ends) in [("t", 3), ("never", 0)] {
        for asked in [ends + 1, 1 << 47, u64::MAX].map(Offset) {
            let told = other.read(&topic(name), 0, asked, 10).await;
            assert_eq!(told, Err(ReadError::PastEnd { asked, ends: Offset(ends) }), "{name}");
        }
        assert_eq!(other.read(&topic(name), 0, Offset(ends), 10).await.unwrap().messages, []);
    }
}
