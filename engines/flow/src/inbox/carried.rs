//! Messages that have no effect here, carried along until the next one that has.
//!
//! Most services consume few of the facts that they follow. Marked by themselves, the others would cost a flush of the
//! disk each; so they wait, a second at most and some hundreds at most, and are marked together with the next one that
//! has an effect. After a crash they are read again, which harms nobody.

use mainstay_envelope::Context;
use mainstay_event_store::Store;
use mainstay_event_store::inbox::SEQ_MAX;
use mainstay_messaging::Log;

use super::lane_work::{Carried, LaneWork, Page, Place, Trouble};
use crate::saga::Reactor;

/// Messages that wait for their marks.
const CARRIED_MAX: usize = 256;

impl<S: Store, L: Log, R: Reactor<S>> LaneWork<'_, S, L, R> {
    /// Is there nothing to do for a page but to mark its messages?
    pub(super) fn has_no_effect(&self, page: &Page) -> bool {
        page.messages.iter().all(|ready| {
            // One without a number is an alarm.
            let numbered = (1..=SEQ_MAX).contains(&ready.delivered.message.identity.seq);
            numbered && !self.route.handler.consumes.contains(ready.event_type())
        })
    }

    /// Puts a page without an effect to those that wait; marks them all when they are many.
    pub(super) async fn carry(&self, cx: &Context, place: &mut Place, page: &Page) -> Result<(), Trouble> {
        // A receipt is met when nothing is left to be done for it.
        self.note_marks(place, page, 0..page.messages.len());
        let carried = place.carried.get_or_insert_with(|| Carried {
            messages: Vec::new(),
            next: page.next,
            at_end: page.at_end,
            since: cx.now(),
        });
        carried.messages.extend(page.messages.iter().cloned());
        (carried.next, carried.at_end) = (page.next, page.at_end);
        if carried.messages.len() >= CARRIED_MAX {
            return self.hand_over(cx, place).await;
        }
        self.tell_marks(place).await
    }

    /// Marks what waits.
    pub(super) async fn hand_over(&self, cx: &Context, place: &mut Place) -> Result<(), Trouble> {
        let Some(Carried { messages, next, at_end, .. }) = place.carried.take() else { return Ok(()) };
        self.handle(cx, place, Page { from: place.at, messages: messages.into(), next, at_end }).await
    }

    /// A page, behind what was carried up to it.
    pub(super) fn with_carried(&self, place: &mut Place, page: Page) -> Page {
        let Some(Carried { mut messages, .. }) = place.carried.take() else { return page };
        messages.extend(page.messages.iter().cloned());
        Page { from: place.at, messages: messages.into(), ..page }
    }
}
