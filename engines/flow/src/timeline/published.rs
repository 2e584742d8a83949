//! When a timeline's events were published: the part of a wait that is the relay's.

use std::collections::HashMap;

use mainstay_messaging::{BadName, Log, Offset, ReadError, Topic, limits};
use uuid::Uuid;

use super::Timeline;

impl Timeline {
    /// Notes of a participant's events when they came into its log. Of each partition at most the last `look_back`
    /// places are looked at, since a log has no index by correlation; what stands before them, or is not kept any
    /// more, stays without a time. A message that stands there twice counts from the first time.
    ///
    /// # Errors
    /// The log's; the timeline is lost with it, so keep a clone if it matters.
    pub async fn with_published<L: Log>(
        mut self,
        participant: &str,
        log: &L,
        look_back: u64,
    ) -> Result<Self, ReadError> {
        let events = self.events.iter_mut().filter(|entry| entry.participant == participant);
        let mut missing: HashMap<Uuid, _> = events.map(|entry| (entry.id, &mut entry.published)).collect();
        let topic = Topic::new(participant)
            .map_err(|BadName { kind, why, .. }| ReadError::Invalid { what: kind, why })?;
        for partition in 0..log.partitions() {
            let end = log.end(&topic, partition).await?;
            let mut after = Offset(end.0.saturating_sub(look_back));
            while after < end && !missing.is_empty() {
                let page = match log.read(&topic, partition, after, limits::PAGE_MESSAGES_MAX).await {
                    // Retention has been there: begin with what is kept.
                    Err(ReadError::Truncated { first, .. }) if first > after => {
                        after = first;
                        continue;
                    }
                    page => page?,
                };
                for delivered in page.messages {
                    let id = Uuid::parse_str(delivered.message.event.id()).ok();
                    if let Some(published) = id.and_then(|id| missing.remove(&id)) {
                        *published = Some(delivered.published);
                    }
                }
                if page.next <= after {
                    break;
                }
                after = page.next;
            }
        }
        Ok(self)
    }
}
