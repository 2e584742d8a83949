//! Reading the log: where a lane begins, and whether the log is still the one that it has handled.

use mainstay_envelope::Context;
use mainstay_event_store::{Abort, Position, Store, Tx};
use mainstay_messaging::{Log, Offset, ReadError, Retry};

use super::apply::Ready;
use super::error::FollowError;
use super::lane_work::{LaneWork, Page, Place, Trouble};
use super::parking::release::Stopped;
use super::parking::rows::{LaneRow, Last, Rows};
use crate::saga::Reactor;

impl<S: Store, L: Log, R: Reactor<S>> LaneWork<'_, S, L, R> {
    /// The next page, of a log that may not be what it was.
    pub(super) async fn read_first(&self, cx: &Context, place: &mut Place) -> Result<Page, Trouble> {
        let at = place.at;
        match self.read(at).await {
            Ok(page) => {
                if !place.begun {
                    // From now on it is known that what retention takes was not handled, and not only that nothing
                    // was handled yet.
                    self.begin(cx, at, at).await?;
                    place.begun = true;
                }
                Ok(page)
            }
            Err(ReadError::PastEnd { ends, .. }) => {
                let last = self.rows().lane().await.map_err(|why| self.reading(why))?.last;
                let why = format!("the log ends at {ends}");
                Err(self.anew(cx, at, last, &why).await)
            }
            Err(ReadError::Truncated { first, .. }) if !place.begun && first.0 > at => {
                self.tell(&format!(
                    "{} begins to follow {} at {first}: what stood before is no longer kept",
                    self.lane.group, self.lane.topic
                ));
                self.begin(cx, at, first.0).await?;
                Err(Trouble::Elsewhere)
            }
            Err(why) => Err(self.unread(why)),
        }
    }

    /// The next page of the log.
    pub(super) async fn read(&self, at: u64) -> Result<Page, ReadError> {
        let Self { route, lane } = self;
        let page = route.log.read(&route.topic, lane.partition, Offset(at), route.batch_max).await?;
        let at_end = page.at_end();
        let messages = page.messages.into_iter().map(|delivered| Ready::new(&lane.group, delivered));
        Ok(Page { from: at, messages: messages.collect(), next: page.next.0, at_end })
    }

    /// After a start: does the message that was handled last still stand where it stood? A log that was restored
    /// from an older copy, or made anew, and has grown past the checkpoint since, shows it by nothing else. Where
    /// retention has taken the message, nothing can be said.
    pub(super) async fn find_last(&self, cx: &Context, place: &mut Place, last: Last) -> Result<(), Trouble> {
        let Self { route, lane } = self;
        let before = Offset(last.offset.saturating_sub(1));
        let page = match route.log.read(&route.topic, lane.partition, before, 1).await {
            Ok(page) => page,
            // The first page will tell.
            Err(ReadError::Truncated { .. } | ReadError::PastEnd { .. }) => return Ok(()),
            Err(why) => return Err(self.unread(why)),
        };
        let at_end = page.at_end();
        let found = page.messages.into_iter().next().filter(|found| found.offset.0 == last.offset);
        match found {
            Some(found) if found.message.identity == last.identity => {
                self.note_last(place, &Ready::new(&lane.group, found), at_end);
                Ok(())
            }
            found => {
                let (number, producer) = (last.identity.seq, &last.identity.producer);
                let stands = found.map_or("nothing stands".to_owned(), |found| {
                    let identity = &found.message.identity;
                    format!("number {} of producer {} stands", identity.seq, identity.producer)
                });
                let why =
                    format!("at {}, where number {number} of producer {producer} was, {stands}", last.offset);
                Err(self.anew(cx, place.at, Some(last), &why).await)
            }
        }
    }

    /// Goes back to the log's beginning, since it is not the log that was handled.
    async fn anew(&self, cx: &Context, at: u64, last: Option<Last>, why: &str) -> Trouble {
        self.tell(&format!(
            "ALARM: {} has handled {} up to {at}, but {why}: the log was restored from an older copy, or made anew; \
             it is read again from its beginning, and what is known is skipped; whatever its producer has not \
             published again is lost",
            self.lane.group, self.lane.topic
        ));
        let change = move |row: &mut LaneRow| {
            if row.last != last {
                return false;
            }
            // Retention may have passed the beginning of this log, which is nothing that was missed.
            (row.begun, row.last) = (false, None);
            true
        };
        self.jump(cx, at, 0, change).await.err().unwrap_or(Trouble::Elsewhere)
    }

    /// Remembers that this lane has begun, at `to`.
    async fn begin(&self, cx: &Context, from: u64, to: u64) -> Result<(), Trouble> {
        self.jump(cx, from, to, |row| !std::mem::replace(&mut row.begun, true)).await
    }

    /// Moves the checkpoint without handling anything, if the lane's row can be changed as it was meant.
    async fn jump(
        &self,
        cx: &Context,
        from: u64,
        to: u64,
        change: impl Fn(&mut LaneRow) -> bool + Send + 'static,
    ) -> Result<(), Trouble> {
        let (lane, views) = (self.lane.clone(), self.route.views.clone());
        let moved = move |tx: &S::Tx| {
            tx.move_checkpoint(&lane.checkpoint, Position(from), Position(to))?;
            let rows = Rows { tx, views: &views, lane: &lane };
            let mut row = rows.lane()?;
            if !change(&mut row) {
                return Err(Abort::User(Stopped::Stale));
            }
            Ok(rows.put_lane(&row)?)
        };
        self.transact(cx, moved).await.map_err(|ended| self.trouble(ended))
    }

    fn unread(&self, why: ReadError) -> Trouble {
        if why.retry() == Retry::Later {
            return Trouble::Passing(why.to_string());
        }
        let (group, topic) = self.names();
        Trouble::Fatal(FollowError::Log { group, topic, why })
    }
}
