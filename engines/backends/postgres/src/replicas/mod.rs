//! A leader and its replicas as one store: what a read may miss is chosen for each ([`Consistency`]).
//!
//! ```text
//!            writes ─────────────► leader ──streaming──► replica r1, r2 …
//!   at(Strong) ──────────────────►   ▲                      ▲
//!   at(ReadYourWrites(receipt)) ─────┴── whoever has it ────┤
//!   at(BoundedStaleness(2 s)) ─────── whoever is so fresh ──┤
//!   at(Eventual) ────────────────────────── whoever answers ┘
//! ```
//! A node's lag is the age of the heartbeat that the active sequencer writes every 250 ms, by the clock of the node that
//! is asked: where nodes' clocks differ, a bound is off by that much. It is looked at every 250 ms; between two looks it
//! is taken to have grown by the time that has passed, so that a bound is never too low. A sequencer that stands makes
//! every replica seem stale, which sends bounded reads to the leader.
//!
//! `Strong` is what the leader says that the given URL leads to. A server that was cut off and replaced, and does not
//! know it, is not found out here: let `synchronous_standby_names` make it unable to acknowledge anything.

mod look;
mod reads;

use std::sync::{Arc, PoisonError, RwLock};
use std::time::Duration;

use mainstay_envelope::Context;
use mainstay_event_store::consistency::{Choice, Seen, choose};
use mainstay_event_store::{Consistency, IfCutOff, Located, ReadError, Receipt, Store, StoreId};
use tokio::sync::watch;

use crate::open::OpenError;
use crate::options::Options;
use crate::store::Postgres;
use look::Look;

/// How often nodes are looked at, and how soon a read that waits for one looks again.
const LOOK_EVERY: Duration = Duration::from_millis(250);
const AGAIN_AFTER: Duration = Duration::from_millis(5);

/// A leader and its replicas. Clones share everything but what they ask for ([`Replicated::at`]).
#[derive(Debug, Clone)]
pub struct Replicated {
    inner: Arc<Inner>,
    asked: Consistency,
    if_cut_off: IfCutOff,
}

#[derive(Debug)]
struct Inner {
    cx: Context,
    leader: Postgres,
    nodes: Vec<Arc<Node>>,
    at_most: Duration,
    looking: Vec<tokio::task::JoinHandle<()>>,
}

impl Drop for Inner {
    fn drop(&mut self) {
        for looking in &self.looking {
            looking.abort();
        }
    }
}

/// One server.
#[derive(Debug)]
struct Node {
    name: String,
    /// How it is opened, once it can be reached; none for the leader, which is open.
    options: Option<Options>,
    id: StoreId,
    /// None until it could be opened.
    store: RwLock<Option<Postgres>>,
    look: watch::Sender<Look>,
}

impl Node {
    fn store(&self) -> Option<Postgres> {
        self.store.read().unwrap_or_else(PoisonError::into_inner).clone()
    }

    fn look(&self) -> Look {
        *self.look.borrow()
    }

    /// Returns when it is seen not to answer.
    async fn lost(&self) {
        // The sender is this node's own: it is there as long as we are.
        let _ = self.look.subscribe().wait_for(|look| !look.reachable).await;
    }
}

/// Who answers a read, and how well.
#[derive(Debug, Clone)]
pub struct Picked {
    /// To read with. A replica refuses writes.
    pub store: Postgres,
    /// `leader`, or the name that the replica was given.
    pub node: String,
    /// How much it may lack, at most; zero for the leader, none where nobody knows.
    pub staleness: Option<Duration>,
    /// Is it what was asked for? False only where serving stale was chosen.
    pub met: bool,
}

impl Replicated {
    /// A leader that is open, and its replicas by name, each with its URL; their other settings are the leader's. A
    /// replica that can't be reached now is tried again, once a second.
    ///
    /// # Errors
    /// A replica that answers, and is none of this store's, or can't be used.
    pub async fn open(
        cx: &Context,
        leader: Postgres,
        replicas: Vec<(String, Options)>,
    ) -> Result<Self, OpenError> {
        let id = leader.id();
        let mut nodes = vec![Arc::new(Node {
            name: "leader".to_owned(),
            options: None,
            id,
            store: RwLock::new(Some(leader.clone())),
            look: watch::Sender::default(),
        })];
        for (name, options) in replicas {
            let options = options.read_only();
            let store = match Postgres::open(cx, options.clone()).await {
                Ok(store) if store.id() == id => Some(store),
                Ok(store) => {
                    let why = format!(
                        "node {name} holds store {}, the leader {id}: it is no replica of it",
                        store.id()
                    );
                    return Err(OpenError::Failed { schema: leader.schema().name().to_owned(), why });
                }
                Err(OpenError::Unreachable { .. }) => None,
                Err(error) => return Err(error),
            };
            nodes.push(Arc::new(Node {
                name,
                options: Some(options),
                id,
                store: RwLock::new(store),
                look: watch::Sender::default(),
            }));
        }
        for node in &nodes {
            look::once(cx, node).await;
        }
        let looking =
            nodes.iter().map(|node| tokio::spawn(look::keep(cx.clone(), Arc::clone(node)))).collect();
        let at_most = Duration::from_secs(2);
        let inner = Arc::new(Inner { cx: cx.clone(), leader, nodes, at_most, looking });
        Ok(Self { inner, asked: Consistency::default(), if_cut_off: IfCutOff::default() })
    }

    /// The same store, whose reads may miss what `asked` lets them miss, and do `if_cut_off` in a partition. A handle begins
    /// with [`Consistency::Strong`] and [`IfCutOff::Refuse`]. Costs nothing: make one for a single read.
    pub fn at(&self, asked: Consistency, if_cut_off: IfCutOff) -> Self {
        Self { inner: Arc::clone(&self.inner), asked, if_cut_off }
    }

    /// The node that writes go to.
    pub fn leader(&self) -> &Postgres {
        &self.inner.leader
    }

    /// The node for one read, or for several that are to see the same one. Waits 2 s at most, for a receipt's act.
    ///
    /// # Errors
    /// [`ReadError::Unavailable`] when nobody that can be reached will do; a receipt of another store.
    pub async fn pick(&self) -> Result<Picked, ReadError> {
        self.chosen().await.map(|(_, picked)| picked)
    }

    async fn chosen(&self) -> Result<(Arc<Node>, Picked), ReadError> {
        let Inner { cx, nodes, at_most, .. } = &*self.inner;
        let until = cx.now() + *at_most;
        let mut pause = AGAIN_AFTER;
        loop {
            let mut seen = Vec::with_capacity(nodes.len());
            for node in nodes {
                seen.push(self.seen(node).await?);
            }
            let may_wait = cx.now() < until;
            match choose(&self.asked, self.if_cut_off, &seen, may_wait, cx.next_u64()) {
                Choice::Node { index, met } => {
                    return self.picked(index, met).ok_or_else(|| self.nobody(&seen));
                }
                // An act's place comes in some milliseconds, a replica's lag in more: asked for less and less often.
                Choice::Later => {
                    tokio::time::sleep(pause).await;
                    pause = (pause * 2).min(LOOK_EVERY);
                }
                Choice::Nobody => return Err(self.nobody(&seen)),
            }
        }
    }

    fn picked(&self, index: usize, met: bool) -> Option<(Arc<Node>, Picked)> {
        let node = self.inner.nodes.get(index)?;
        let look = node.look();
        let staleness = if look.leads { Some(Duration::ZERO) } else { look.staleness(self.inner.cx.now()) };
        let picked = Picked { store: node.store()?, node: node.name.clone(), staleness, met };
        Some((Arc::clone(node), picked))
    }

    async fn seen(&self, node: &Node) -> Result<Seen, ReadError> {
        let look = node.look();
        let mut seen = Seen {
            leads: look.leads,
            reachable: look.reachable,
            staleness: look.staleness(self.inner.cx.now()),
            has_receipt: false,
        };
        if let Consistency::ReadYourWrites(receipt) = &self.asked
            && seen.reachable
            && let Some(store) = node.store()
        {
            let asked = tokio::select! {
                has = has(&store, receipt) => has,
                () = node.lost() => Err(lost(&node.name)),
            };
            match asked {
                Ok(has) => seen.has_receipt = has,
                Err(error @ ReadError::ForeignReceipt { .. }) => return Err(error),
                Err(_) => seen.reachable = false,
            }
        }
        Ok(seen)
    }

    fn nobody(&self, seen: &[Seen]) -> ReadError {
        let nodes: Vec<String> = self
            .inner
            .nodes
            .iter()
            .zip(seen)
            .map(|(node, seen)| match (seen.reachable, seen.leads, seen.staleness) {
                (false, ..) => format!("{} does not answer", node.name),
                (_, true, _) => format!("{} leads", node.name),
                (_, _, Some(lacks)) => format!("{} is {} ms behind", node.name, lacks.as_millis()),
                (_, _, None) => format!("{} has no heartbeat", node.name),
            })
            .collect();
        let asked = match self.asked {
            Consistency::Strong => "the leader".to_owned(),
            Consistency::ReadYourWrites(receipt) => format!("a node that has act {receipt}"),
            Consistency::BoundedStaleness(most) => format!("a node at most {} ms behind", most.as_millis()),
            Consistency::Eventual => "any node".to_owned(),
        };
        let why = format!(
            "{asked} was asked for, and can't be reached ({}); nothing was read; ask again, or let this read be served \
             stale",
            nodes.join(", ")
        );
        ReadError::Unavailable { why, passing: true }
    }
}

/// What a read is told whose node ceased to answer while it was asked.
fn lost(node: &str) -> ReadError {
    let why = format!("{node} does not answer any more; nothing was read; ask again");
    ReadError::Unavailable { why, passing: true }
}

/// Has this node the receipt's act, with its place in the feed?
async fn has(store: &Postgres, receipt: &Receipt) -> Result<bool, ReadError> {
    match store.position(receipt).await {
        Ok(Located::At(_)) => Ok(true),
        // A copy that has not come so far yet.
        Ok(Located::NotYet) | Err(ReadError::PastEnd { .. }) => Ok(false),
        Err(error) => Err(error),
    }
}
