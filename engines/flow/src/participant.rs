//! What a service declares about its part in a choreography: pure data.

use std::collections::{BTreeMap, BTreeSet};

use mainstay_event_store::{BadName, ConsumerName, EventType, Topic};

/// Reactions of one participant; more are refused by [`Participant::check`].
const REACTIONS_MAX: usize = 256;
/// Event types of one list in a declaration.
const TYPES_MAX: usize = 64;

/// A service's part in a choreography: what a request to it begins, what it announces, and how it reacts to
/// the facts of others. Its name is the topic on which it publishes.
///
/// Names are kept as written; [`Participant::check`] is where they are checked.
///
/// ```
/// use mainstay_flow::saga::Participant;
///
/// let payment: Participant = Participant::new("payment")
///     .on("OrderCreated", "order").produces("PaymentProcessed").fails_with("PaymentRefused")
///     .on("StockShort", "inventory").produces("PaymentRefunded")
///     .into();
/// payment.check()?;
/// assert_eq!(payment.follows()["order"], ["OrderCreated"].into());
/// assert!(payment.publishes().contains("PaymentRefused"));
/// # Ok::<(), mainstay_flow::saga::BadParticipant>(())
/// ```
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Participant {
    name: String,
    starts: Vec<String>,
    announces: Vec<String>,
    reactions: Vec<Reaction>,
}

impl Participant {
    /// A participant that does nothing yet. At most 128 bytes: the name is a topic and a consumer too.
    pub fn new(name: impl Into<String>) -> Self {
        Self { name: name.into(), starts: Vec::new(), announces: Vec::new(), reactions: Vec::new() }
    }

    /// What a request to this participant begins a saga with.
    #[must_use]
    pub fn starts(mut self, event_type: impl Into<String>) -> Self {
        self.starts.push(event_type.into());
        self
    }

    /// What this participant tells whoever listens: no saga waits for it, and nobody has to consume it.
    #[must_use]
    pub fn announces(mut self, event_type: impl Into<String>) -> Self {
        self.announces.push(event_type.into());
        self
    }

    /// Begins the reaction to a fact that the participant `from` publishes.
    pub fn on(self, event_type: impl Into<String>, from: impl Into<String>) -> Reacts {
        let reaction = Reaction {
            event_type: event_type.into(),
            from: from.into(),
            produces: Vec::new(),
            fails_with: Vec::new(),
            ends: false,
            at_most: None,
        };
        Reacts { participant: self, reaction }
    }

    /// Its name, which is its topic's too.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// The topic on which it publishes.
    pub fn topic(&self) -> Result<Topic, BadName> {
        Topic::new(&self.name)
    }

    /// The types that requests begin sagas with.
    pub fn started(&self) -> &[String] {
        &self.starts
    }

    /// The types told to whoever listens.
    pub fn announced(&self) -> &[String] {
        &self.announces
    }

    /// Its reactions, in the order in which they were declared.
    pub fn reactions(&self) -> &[Reaction] {
        &self.reactions
    }

    /// Its reaction to a type of fact that `from` publishes.
    pub fn reaction(&self, event_type: &str, from: &str) -> Option<&Reaction> {
        self.reactions.iter().find(|reaction| reaction.event_type == event_type && reaction.from == from)
    }

    /// The participants whose topics it follows, and the types it consumes from each.
    pub fn follows(&self) -> BTreeMap<&str, BTreeSet<&str>> {
        let mut follows: BTreeMap<&str, BTreeSet<&str>> = BTreeMap::new();
        for reaction in &self.reactions {
            follows.entry(&reaction.from).or_default().insert(&reaction.event_type);
        }
        follows
    }

    /// Every type it publishes: started, announced, produced, and failed with.
    pub fn publishes(&self) -> BTreeSet<&str> {
        let own = self.starts.iter().chain(&self.announces);
        let reacted = self.reactions.iter().flat_map(Reaction::makes);
        own.map(String::as_str).chain(reacted).collect()
    }

    /// Does it publish this type? What it doesn't declare, it doesn't publish.
    pub fn does_publish(&self, event_type: &str) -> bool {
        let own = self.starts.iter().chain(&self.announces);
        own.map(String::as_str)
            .chain(self.reactions.iter().flat_map(Reaction::makes))
            .any(|made| made == event_type)
    }

    /// Checks what concerns this participant alone: names, limits, and that each fact has one reaction.
    pub fn check(&self) -> Result<(), BadParticipant> {
        let refuse = |why: String| Err(BadParticipant { name: shown(&self.name), why });
        if let Err(bad) = ConsumerName::new(&self.name).and_then(|_| self.topic()) {
            return refuse(format!("its name is no name of a topic: {}", bad.why));
        }
        if self.reactions.len() > REACTIONS_MAX {
            return refuse(format!("{} reactions, at most {REACTIONS_MAX}", self.reactions.len()));
        }
        let lists = [&self.starts, &self.announces].into_iter();
        let lists = lists.chain(self.reactions.iter().flat_map(|r| [&r.produces, &r.fails_with]));
        if let Some(long) = lists.map(Vec::len).find(|len| *len > TYPES_MAX) {
            return refuse(format!("a list of {long} event types, at most {TYPES_MAX}"));
        }
        let types = self.publishes().into_iter().chain(self.reactions.iter().map(|r| r.event_type.as_str()));
        for event_type in types {
            if let Err(bad) = EventType::new(event_type) {
                return refuse(format!("event type {:?} is not usable: {}", shown(event_type), bad.why));
            }
        }
        for (i, reaction) in self.reactions.iter().enumerate() {
            let Reaction { event_type, from, .. } = reaction;
            if let Err(bad) = ConsumerName::new(from) {
                return refuse(format!(
                    "it follows {:?}, which is no participant's name: {}",
                    shown(from),
                    bad.why
                ));
            }
            if reaction.at_most == Some(0) {
                return refuse(format!("it reacts to {event_type} at most 0 times; leave the reaction out"));
            }
            if self.reactions[..i].iter().any(|r| r.event_type == *event_type && r.from == *from) {
                return refuse(format!(
                    "two reactions to {event_type} of {from}; which one holds can't be told"
                ));
            }
        }
        Ok(())
    }
}

/// What a participant does when it learns of a fact.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Reaction {
    event_type: String,
    from: String,
    produces: Vec<String>,
    fails_with: Vec<String>,
    ends: bool,
    at_most: Option<u32>,
}

impl Reaction {
    /// The type of the fact.
    pub fn event_type(&self) -> &str {
        &self.event_type
    }

    /// Whose fact it is.
    pub fn from(&self) -> &str {
        &self.from
    }

    /// What may come of it when all is well.
    pub fn produced(&self) -> &[String] {
        &self.produces
    }

    /// What comes of it when it can't be done: others have to compensate.
    pub fn failures(&self) -> &[String] {
        &self.fails_with
    }

    /// Both kinds of what may come of it.
    pub fn makes(&self) -> impl Iterator<Item = &str> {
        self.produces.iter().chain(&self.fails_with).map(String::as_str)
    }

    /// Is the saga over with it?
    pub fn is_end(&self) -> bool {
        self.ends
    }

    /// How often it may happen within one correlation; none if nothing is said.
    pub fn bound(&self) -> Option<u32> {
        self.at_most
    }
}

/// A participant whose last reaction is still being declared.
#[derive(Debug, Clone, PartialEq, Eq)]
#[must_use = "a declaration does nothing until it is used as a Participant: end it with `.done()` or `.into()`"]
pub struct Reacts {
    participant: Participant,
    reaction: Reaction,
}

impl Reacts {
    /// A fact that may come of this reaction when all is well. Several: which one is decided as it happens.
    pub fn produces(mut self, event_type: impl Into<String>) -> Self {
        self.reaction.produces.push(event_type.into());
        self
    }

    /// A fact that says it couldn't be done. Somebody must react to it in a way that leads to an end.
    pub fn fails_with(mut self, event_type: impl Into<String>) -> Self {
        self.reaction.fails_with.push(event_type.into());
        self
    }

    /// The saga ends here: what this reaction produces, if anything, needs no consumer.
    pub fn ends(mut self) -> Self {
        self.reaction.ends = true;
        self
    }

    /// How often this may happen within one correlation, at least 1: what bounds a cycle.
    pub fn at_most(mut self, times: u32) -> Self {
        self.reaction.at_most = Some(times);
        self
    }

    /// Goes on to another reaction; see [`Participant::on`].
    pub fn on(self, event_type: impl Into<String>, from: impl Into<String>) -> Self {
        self.done().on(event_type, from)
    }

    /// See [`Participant::starts`].
    #[must_use]
    pub fn starts(self, event_type: impl Into<String>) -> Participant {
        self.done().starts(event_type)
    }

    /// See [`Participant::announces`].
    #[must_use]
    pub fn announces(self, event_type: impl Into<String>) -> Participant {
        self.done().announces(event_type)
    }

    /// The participant with this reaction.
    #[must_use]
    pub fn done(mut self) -> Participant {
        self.participant.reactions.push(self.reaction);
        self.participant
    }
}

impl From<Reacts> for Participant {
    fn from(reacts: Reacts) -> Self {
        reacts.done()
    }
}

/// A declaration that can't be used; nothing was started with it.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("participant {name:?} can't take part: {why}; nothing was started; correct its declaration")]
pub struct BadParticipant {
    /// The participant.
    pub name: String,
    /// What is wrong with it.
    pub why: String,
}

fn shown(text: &str) -> String {
    text.chars().take(40).collect()
}
