//! Looking at nodes: who leads, who answers, and how far each is behind.

use std::sync::PoisonError;
use std::time::Duration;

use mainstay_envelope::{Context, Monotonic};
use mainstay_event_store::Store;

use super::{LOOK_EVERY, Node};
use crate::store::Postgres;

/// A node that takes longer to answer is not reachable.
const ANSWERED_WITHIN: Duration = Duration::from_secs(1);

/// How often a node that could not be opened is tried again.
const OPEN_EVERY: Duration = Duration::from_secs(1);

/// What was seen last.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Look {
    pub(super) leads: bool,
    pub(super) reachable: bool,
    /// When it was asked, and how old its heartbeat was then.
    beat: Option<(Monotonic, Duration)>,
}

impl Look {
    /// How much it may lack now, at most.
    pub(super) fn staleness(&self, now: Monotonic) -> Option<Duration> {
        self.beat.map(|(asked, age)| age + now.saturating_since(asked))
    }
}

/// Looks at a node until it is dropped.
pub(super) async fn keep(cx: Context, node: std::sync::Arc<Node>) {
    loop {
        let pause = if node.store().is_some() { LOOK_EVERY } else { OPEN_EVERY };
        tokio::time::sleep(pause).await;
        if node.store().is_none()
            && let Some(options) = node.options.clone()
            && let Ok(store) = Postgres::open(&cx, options).await
            && store.id() == node.id
        {
            *node.store.write().unwrap_or_else(PoisonError::into_inner) = Some(store);
        }
        once(&cx, &node).await;
    }
}

pub(super) async fn once(cx: &Context, node: &Node) {
    // Before the question: what came after it may not be in the answer.
    let asked = cx.now();
    let answer = async {
        let store = node.store()?;
        tokio::time::timeout(ANSWERED_WITHIN, store.heartbeat()).await.ok()?.ok()
    };
    let answer = answer.await;
    node.look.send_modify(|look| match answer {
        Some((leads, age)) => *look = Look { leads, reachable: true, beat: age.map(|age| (asked, age)) },
        // What it was is kept: its data grow old and are not gone.
        None => look.reachable = false,
    });
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn between_two_looks_a_node_grows_older() {
        let asked = Monotonic::default() + Duration::from_secs(10);
        let look = Look { leads: false, reachable: true, beat: Some((asked, Duration::from_millis(300))) };
        assert_eq!(look.staleness(asked), Some(Duration::from_millis(300)));
        assert_eq!(look.staleness(asked + Duration::from_secs(2)), Some(Duration::from_millis(2_300)));
        assert_eq!(Look::default().staleness(asked), None);
    }
}
