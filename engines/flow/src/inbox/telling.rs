//! What a lane tells while it is followed: to operators, and to those who wait for receipts.

use std::collections::BTreeMap;
use std::ops::Range;

use mainstay_event_store::Store;
use mainstay_messaging::Log;

use super::apply::Ready;
use super::lane_work::{LaneWork, Page, Place, Trouble};
use super::parking::rows::KeyRow;
use super::parking::state::Status;
use crate::saga::{Failure, Reactor};

impl<S: Store, L: Log, R: Reactor<S>> LaneWork<'_, S, L, R> {
    pub(super) fn tell(&self, what: &str) {
        (self.route.on_trouble)(what);
    }

    pub(super) fn alarm(&self, messages: &[Ready], altered: &[usize]) {
        for message in altered.iter().filter_map(|index| messages.get(*index)) {
            let identity = &message.delivered.message.identity;
            self.tell(&format!(
                "ALARM: number {} of producer {}, epoch {}, came to {} with another content than before (message {} of \
                 {}, key {:?}); it is parked and not handled: two histories of its producer have met, or somebody forges",
                identity.seq,
                identity.producer,
                identity.epoch,
                self.lane.group,
                message.delivered.offset,
                self.lane.topic,
                message.delivered.message.key,
            ));
        }
    }

    pub(super) fn tell_unnumbered(&self, messages: &[Ready], unnumbered: &[usize]) {
        for message in unnumbered.iter().filter_map(|index| messages.get(*index)) {
            let identity = &message.delivered.message.identity;
            self.tell(&format!(
                "ALARM: message {} of {} (key {:?}, producer {}) has number {}, which no producer gives, so nobody can \
                 say whether it came before; {} passes it over and will never handle it",
                message.delivered.offset,
                self.lane.topic,
                message.delivered.message.key,
                identity.producer,
                identity.seq,
                self.lane.group,
            ));
        }
    }

    pub(super) fn tell_parked(
        &self,
        messages: &[Ready],
        failed: &BTreeMap<usize, Failure>,
        range: Range<usize>,
    ) {
        for (index, failure) in failed.range(range) {
            if let Some(message) = messages.get(*index) {
                self.tell(&format!(
                    "message {} of {} (key {:?}) is parked, with what follows it under its key: {failure}",
                    message.delivered.offset, self.lane.topic, message.delivered.message.key
                ));
            }
        }
    }

    pub(super) fn tell_failed(&self, row: &KeyRow, status: Status, failure: &Failure) {
        let (head, topic, key) = (row.head_offset, &row.topic, &row.key);
        match status {
            Status::Dead { tries } => self.tell(&format!(
                "message {head} of {topic} (key {key:?}) is dead after {tries} tries: {failure}; it and {} messages \
                 behind it wait for an operator to retry or discard it",
                row.messages.saturating_sub(1)
            )),
            Status::Waiting { tries, .. } => self
                .tell(&format!("message {head} of {topic} (key {key:?}) failed again, try {tries}: {failure}")),
        }
    }

    /// Up to which mark a stretch of the page takes each producer.
    pub(super) fn note_marks(&self, place: &mut Place, page: &Page, range: Range<usize>) {
        if self.route.followed.is_none() {
            return;
        }
        let mut latest = None;
        for index in range.rev() {
            let Some(ready) = page.messages.get(index) else { continue };
            let message = &ready.delivered.message;
            // Nearly always all messages have one producer, and the last one says it all.
            if latest == Some(&message.identity.producer) {
                continue;
            }
            latest = Some(&message.identity.producer);
            let next = page.messages.get(index + 1).map(|next| &next.delivered.message);
            // A transaction's messages share its mark, and the relay appends them together: where the log ended, or
            // another mark follows, its last one was seen.
            let whole = match next {
                Some(next) => {
                    next.identity.producer == message.identity.producer && next.mark != message.mark
                }
                None => page.at_end,
            };
            note(place, ready, whole);
        }
    }

    /// After a start: what the last message that was handled says. Where it is gone, the next one will say it.
    pub(super) fn note_last(&self, place: &mut Place, last: &Ready, at_end: bool) {
        if self.route.followed.is_some() {
            note(place, last, at_end);
        }
    }

    /// Tells those who wait for receipts. What is parked is not handled, and nothing after it counts.
    pub(super) async fn tell_marks(&self, place: &Place) -> Result<(), Trouble> {
        let Some(followed) = &self.route.followed else { return Ok(()) };
        let mut marks = Vec::with_capacity(place.marks.len());
        for (producer, (_, mark)) in &place.marks {
            let mut mark = *mark;
            if !place.parked.keys.is_empty() {
                let least =
                    self.rows().least_mark(producer.as_str()).await.map_err(|why| self.reading(why))?;
                mark = least.map_or(mark, |least| mark.min(least.saturating_sub(1)));
            }
            marks.push((producer.clone(), mark));
        }
        followed.reached(&self.lane.topic, self.lane.partition, marks);
        Ok(())
    }
}

/// A later epoch's marks may be lower: its producer was restored, and its receipts count anew.
fn note(place: &mut Place, ready: &Ready, whole: bool) {
    let message = &ready.delivered.message;
    let mark = if whole { message.mark } else { message.mark.saturating_sub(1) };
    let known = place.marks.entry(message.identity.producer.clone()).or_default();
    *known = (*known).max((message.identity.epoch, mark));
}
