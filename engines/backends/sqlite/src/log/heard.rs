//! What rings have brought along and nobody has read yet: for a follower at the end of the log its next page.
//!
//! What is here is on disk, and stands in the file at the same offsets. So nothing rests on it: a parcel that was lost
//! leaves a gap, and what lies beyond a gap is read from the file.

use std::collections::{HashMap, VecDeque};
use std::sync::{Mutex, MutexGuard, PoisonError};

use mainstay_messaging::{Offset, Page, Topic, limits};
use uuid::Uuid;

use super::parcel::{self, Run};

/// What is kept at most, in bytes and in channels. Who is further behind reads the file, and faster so.
const BYTES_MAX: usize = 1 << 20;
const CHANNELS_MAX: usize = 64;

#[derive(Debug, Default)]
pub(super) struct Heard {
    kept: Mutex<Kept>,
}

#[derive(Debug, Default)]
struct Kept {
    /// Of which log.
    log: Uuid,
    channels: HashMap<(Topic, u32), Channel>,
    bytes: usize,
}

/// Runs without a gap between them.
#[derive(Debug, Default)]
struct Channel {
    runs: VecDeque<Run>,
    /// A ring after the last run may have been lost.
    doubtful: bool,
}

/// A page from what was heard.
#[derive(Debug)]
pub(super) struct Next {
    pub(super) page: Page,
    /// Its end is the channel's, as far as rings go.
    pub(super) is_end: bool,
}

impl Kept {
    fn clear(&mut self) {
        self.channels.clear();
        self.bytes = 0;
    }

    fn push(&mut self, run: Run) {
        let name = (run.topic.clone(), run.partition);
        let is_full = self.channels.len() >= CHANNELS_MAX && !self.channels.contains_key(&name);
        if is_full || self.bytes + run.body.len() > BYTES_MAX {
            self.clear();
        }
        self.bytes += run.body.len();
        let channel = self.channels.entry(name).or_default();
        if channel.runs.back().is_some_and(|last| last.last() + 1 != run.first) {
            // What lies between is in the file only.
            let dropped: usize = channel.runs.drain(..).map(|run| run.body.len()).sum();
            self.bytes = self.bytes.saturating_sub(dropped);
        }
        channel.runs.push_back(run);
    }

    /// Drops the runs of a channel that are read up to an offset; the ones that are left.
    fn unread(&mut self, topic: &Topic, partition: u32, after: u64) -> Option<&mut Channel> {
        let channel = self.channels.get_mut(&(topic.clone(), partition))?;
        while let Some(run) = channel.runs.pop_front_if(|run| run.last() <= after) {
            self.bytes = self.bytes.saturating_sub(run.body.len());
        }
        let Some(next) = channel.runs.front() else {
            // Whoever asks for more looks into the file.
            channel.doubtful = false;
            return None;
        };
        (next.first <= after.saturating_add(1)).then_some(channel)
    }
}

impl Heard {
    fn lock(&self) -> MutexGuard<'_, Kept> {
        self.kept.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Takes in a ring. What brings nothing that can be read tells of messages that are in the file only.
    pub(super) fn push(&self, ring: &[u8]) {
        let Some((log, runs)) = parcel::unpack(ring) else { return self.doubt() };
        let mut kept = self.lock();
        if kept.log != log {
            kept.clear();
            kept.log = log;
        }
        runs.into_iter().for_each(|run| kept.push(run));
    }

    /// More may have been rung than was heard: who comes to the end of this has to look into the file.
    pub(super) fn doubt(&self) {
        self.lock().channels.values_mut().for_each(|channel| channel.doubtful = true);
    }

    /// Is there something after an offset?
    pub(super) fn has(&self, topic: &Topic, partition: u32, after: Offset) -> bool {
        self.lock().unread(topic, partition, after.0).is_some()
    }

    /// The page after an offset, if all of it was heard. It stays here until what follows it is asked for, as somebody
    /// whose work failed asks for the same again.
    pub(super) fn next(
        &self,
        log: Uuid,
        topic: &Topic,
        partition: u32,
        after: Offset,
        max: usize,
    ) -> Option<Next> {
        let max = limits::page(max);
        let (runs, doubtful) = {
            let mut kept = self.lock();
            if kept.log != log {
                return None;
            }
            let channel = kept.unread(topic, partition, after.0)?;
            (channel.runs.clone(), channel.doubtful)
        };
        let end = runs.back().map_or(after.0, Run::last);
        let mut found = Vec::new();
        for run in &runs {
            if found.len() >= max {
                break;
            }
            match parcel::messages(run, after.0) {
                Some(messages) => found.extend(messages),
                None => {
                    // Not what this build writes: the file says it better.
                    self.lock().clear();
                    return None;
                }
            }
        }
        found.truncate(max);
        let next = found.last()?.offset;
        Some(Next {
            page: Page { messages: found, next, end: Offset(end) },
            is_end: !doubtful && next.0 == end,
        })
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use bytes::Bytes;
    use mainstay_envelope::{CloudEvent, ContentHash, Context, MessageIdentity, Producer};
    use mainstay_messaging::Message;

    use super::super::append::Prepared;
    use super::*;

    const LOG: Uuid = Uuid::from_u128(5);

    fn topic() -> Topic {
        Topic::new("t").unwrap()
    }

    fn message(number: u64, bytes: usize) -> Message {
        let content = ContentHash::of(b"");
        let producer = Producer::new("p").unwrap();
        Message {
            identity: MessageIdentity { producer, epoch: 1, partition: 0, seq: number, content },
            topic: topic(),
            key: "k".into(),
            event: CloudEvent::new(number.to_string(), "/p", "E").unwrap(),
            data: Bytes::from(vec![0; bytes]),
            mark: number,
        }
    }

    /// A parcel of messages at the offsets that are their numbers.
    fn parcel(log: Uuid, partition: u32, numbers: std::ops::RangeInclusive<u64>, bytes: usize) -> Vec<u8> {
        let places: Vec<_> = numbers.clone().map(|number| (partition, Offset(number))).collect();
        let messages = numbers.map(|number| message(number, bytes)).collect();
        let prepared = Prepared::of(&Context::system(), messages, 1);
        let mut parcel = Vec::new();
        assert!(parcel::pack(&mut parcel, log, std::iter::once((&prepared, &places[..]))));
        parcel
    }

    fn of(heard: &Heard, after: u64, max: usize) -> Option<(Vec<u64>, u64, bool)> {
        let Next { page, is_end } = heard.next(LOG, &topic(), 0, Offset(after), max)?;
        let offsets: Vec<_> = page.messages.iter().map(|found| found.offset.0).collect();
        assert_eq!(offsets.last(), Some(&page.next.0));
        Some((offsets, page.end.0, is_end))
    }

    #[test]
    fn what_follows_without_a_gap_is_a_page() {
        let heard = Heard::default();
        assert_eq!(of(&heard, 0, 9), None);
        heard.push(&parcel(LOG, 0, 5..=6, 1));
        heard.push(&parcel(LOG, 0, 7..=9, 1));
        assert_eq!(of(&heard, 3, 9), None, "4 is not here");
        assert_eq!(of(&heard, 4, 9), Some((vec![5, 6, 7, 8, 9], 9, true)));
        assert_eq!(of(&heard, 4, 9), Some((vec![5, 6, 7, 8, 9], 9, true)), "asked for again");
        assert_eq!(of(&heard, 4, 3), Some((vec![5, 6, 7], 9, false)));
        assert_eq!(of(&heard, 5, 9), Some((vec![6, 7, 8, 9], 9, true)));
        assert!(heard.has(&topic(), 0, Offset(8)) && !heard.has(&topic(), 1, Offset(8)));
        assert!(!heard.has(&topic(), 0, Offset(9)));
        assert_eq!(of(&heard, u64::MAX, 9), None);
        heard.push(&parcel(LOG, 0, 10..=10, 1));
        assert_eq!(of(&heard, 9, 9), Some((vec![10], 10, true)));
        assert_eq!(of(&heard, 9, 0), None);
    }

    #[test]
    fn what_lies_before_a_gap_is_dropped_and_read_from_the_file() {
        let heard = Heard::default();
        heard.push(&parcel(LOG, 0, 1..=2, 1));
        heard.push(&parcel(LOG, 0, 4..=4, 1));
        assert_eq!((of(&heard, 0, 9), of(&heard, 2, 9)), (None, None));
        assert_eq!(of(&heard, 3, 9), Some((vec![4], 4, true)));
        // A log that was restored counts anew.
        heard.push(&parcel(LOG, 0, 2..=3, 1));
        assert_eq!((of(&heard, 1, 9), heard.lock().channels.len()), (Some((vec![2, 3], 3, true)), 1));
    }

    #[test]
    fn another_logs_messages_are_not_taken_for_this_ones() {
        let heard = Heard::default();
        heard.push(&parcel(LOG, 0, 1..=1, 1));
        heard.push(&parcel(Uuid::from_u128(6), 0, 2..=2, 1));
        assert_eq!((of(&heard, 0, 9), of(&heard, 1, 9)), (None, None));
    }

    #[test]
    fn after_a_doubt_the_end_is_looked_for() {
        let heard = Heard::default();
        heard.push(&parcel(LOG, 0, 1..=1, 1));
        heard.doubt();
        assert_eq!(of(&heard, 0, 9), Some((vec![1], 1, false)));
        heard.push(&parcel(LOG, 0, 2..=2, 1));
        assert_eq!(of(&heard, 1, 9), Some((vec![2], 2, false)), "the doubt is still there");
        assert_eq!(of(&heard, 2, 9), None);
        heard.push(&parcel(LOG, 0, 3..=3, 1));
        assert_eq!(of(&heard, 2, 9), Some((vec![3], 3, true)), "the file was looked into since");
        heard.push(&[parcel::RING]);
        assert_eq!(of(&heard, 2, 9), Some((vec![3], 3, false)), "something came that was too much to bring");
    }

    #[test]
    fn no_more_is_kept_than_allowed() {
        let heard = Heard::default();
        let kept = |heard: &Heard| {
            let kept = heard.lock();
            let bytes: usize = kept.channels.values().flat_map(|c| &c.runs).map(|run| run.body.len()).sum();
            assert_eq!(kept.bytes, bytes);
            (kept.bytes, kept.channels.len())
        };
        for number in 1..=100 {
            heard.push(&parcel(LOG, 0, number..=number, 60_000));
            assert!(kept(&heard).0 <= BYTES_MAX);
        }
        assert_eq!(of(&heard, 99, 1), Some((vec![100], 100, true)), "the newest is there");
        for partition in 0..=CHANNELS_MAX as u32 {
            heard.push(&parcel(LOG, partition, 101..=101, 1));
            assert!(kept(&heard).1 <= CHANNELS_MAX);
        }
    }
}
