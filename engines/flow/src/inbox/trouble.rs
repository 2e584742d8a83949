//! What it means that a step of a lane did not succeed.

use mainstay_envelope::Context;
use mainstay_event_store::{Abort, AppendError, ReadError, Refusal, Retry, Store, TransactError};
use mainstay_messaging::Log;

use super::error::FollowError;
use super::lane_work::{Ended, LaneWork, Place, Trouble};
use super::parking::release::Stopped;
use crate::pace::Pace;
use crate::saga::Reactor;

impl<S: Store, L: Log, R: Reactor<S>> LaneWork<'_, S, L, R> {
    pub(super) async fn transact<T: Send + 'static>(
        &self,
        cx: &Context,
        closure: impl Fn(&S::Tx) -> Result<T, Abort<Stopped>> + Send + 'static,
    ) -> Result<T, Ended> {
        let refusal = match self.route.store.transact(cx, closure).await {
            Ok(done) => return Ok(done.value),
            Err(TransactError::User(stopped)) => return Err(Ended::Stopped(stopped)),
            // The checkpoint tells what was written.
            Err(TransactError::Store(AppendError::Unknown { why })) => {
                return Err(Ended::Trouble(Trouble::Passing(why)));
            }
            Err(TransactError::Store(AppendError::Refused(refusal))) => refusal,
        };
        Err(match &refusal {
            Refusal::CheckpointMoved { consumer, .. } if *consumer == self.lane.checkpoint => {
                Ended::Trouble(Trouble::Elsewhere)
            }
            refusal if refusal.retry() == Retry::Later => {
                Ended::Trouble(Trouble::Passing(refusal.to_string()))
            }
            // Not the message's doing, and it will not pass.
            Refusal::Unavailable { .. } => {
                let (group, topic) = self.names();
                Ended::Trouble(Trouble::Fatal(FollowError::Store { group, topic, why: refusal }))
            }
            _ => Ended::Dropped(refusal),
        })
    }

    /// What a transaction's end means where no single message can be at fault.
    pub(super) fn trouble(&self, ended: Ended) -> Trouble {
        match ended {
            Ended::Trouble(trouble) => trouble,
            Ended::Stopped(Stopped::Full) => Trouble::Passing(format!(
                "{} has parked as many messages of {} as it may ({}): nothing more is handled until some are \
                 released or discarded",
                self.lane.group, self.lane.topic, self.route.parked_max
            )),
            Ended::Stopped(Stopped::Stale) => Trouble::Elsewhere,
            Ended::Stopped(Stopped::At(_, failure)) => Trouble::Passing(failure.to_string()),
            Ended::Dropped(why) => {
                let (group, topic) = self.names();
                Trouble::Fatal(FollowError::Store { group, topic, why })
            }
        }
    }

    pub(super) async fn wait_out(
        &self,
        cx: &Context,
        pace: &mut Pace,
        trouble: Trouble,
        place: &mut Option<Place>,
    ) -> Result<(), FollowError> {
        // Whatever it was: the checkpoint knows what was handled.
        *place = None;
        match trouble {
            Trouble::Fatal(error) => Err(error),
            Trouble::Elsewhere => Ok(()),
            Trouble::Passing(why) => {
                self.tell(&why);
                pace.again(cx).await.map_err(|reason| {
                    let (group, topic) = self.names();
                    FollowError::GaveUp {
                        group,
                        topic,
                        tries: pace.failures(),
                        why: format!("{why}; {reason}"),
                    }
                })
            }
        }
    }

    pub(super) fn names(&self) -> (String, String) {
        (self.lane.group.clone(), self.lane.topic.clone())
    }

    pub(super) fn reading(&self, why: ReadError) -> Trouble {
        match why {
            ReadError::Unavailable { passing: true, .. } => Trouble::Passing(why.to_string()),
            why => {
                let (group, topic) = self.names();
                Trouble::Fatal(FollowError::Read { group, topic, why })
            }
        }
    }
}
