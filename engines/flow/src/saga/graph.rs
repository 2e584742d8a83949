//! The choreography as a whole: which fact leads to which reaction, and that to which facts.

use std::collections::BTreeMap;

use crate::participant::Participant;

/// Facts, reactions and the edges between them that a graph holds together. A larger one is cut, and
/// [`Graph::check`] says so and nothing else.
pub(super) const PARTS_MAX: usize = 4_000;

/// What several participants declare, put together. Facts are told apart by type and publisher; the order in
/// which participants are given makes no difference.
///
/// ```
/// use mainstay_flow::saga::{Graph, Participant};
///
/// let order = Participant::new("order")
///     .starts("OrderCreated")
///     .on("PaymentProcessed", "payment").produces("OrderConfirmed").ends()
///     .done();
/// let payment = Participant::new("payment")
///     .on("OrderCreated", "order").produces("PaymentProcessed").fails_with("PaymentRefused")
///     .done();
/// let findings = Graph::of(&[order, payment]).check();
/// assert_eq!(
///     findings[0].to_string(),
///     "payment may fail with PaymentRefused, and nobody reacts to it: what was done before is left as it is; \
///      let those who have to undo something react to PaymentRefused"
/// );
/// ```
#[derive(Debug, Clone)]
pub struct Graph {
    pub(super) participants: Vec<Participant>,
    /// By publisher and type.
    pub(super) facts: Vec<Fact>,
    /// By participant, then as declared.
    pub(super) steps: Vec<Step>,
    /// It was larger than [`PARTS_MAX`], and the rest is left out.
    pub(super) is_cut: bool,
}

/// A type of fact that a participant publishes, or is expected to.
#[derive(Debug, Clone)]
pub(super) struct Fact {
    pub(super) by: String,
    pub(super) event_type: String,
    pub(super) started: bool,
    pub(super) announced: bool,
    /// The steps that make it, and how.
    pub(super) made_by: Vec<(usize, Made)>,
    /// The steps that react to it.
    pub(super) consumers: Vec<usize>,
}

impl Fact {
    pub(super) fn is_published(&self) -> bool {
        self.started || self.announced || !self.made_by.is_empty()
    }

    pub(super) fn is_failure(&self) -> bool {
        self.made_by.iter().any(|(_, made)| *made == Made::Failing)
    }

    /// Does somebody have to consume it?
    pub(super) fn wants_consumer(&self) -> bool {
        !self.announced && (self.started || self.made_by.iter().any(|(_, made)| *made != Made::AtTheEnd))
    }
}

/// How a step makes a fact.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Made {
    /// All is well, and the saga goes on.
    Going,
    /// All is well, and the saga is over.
    AtTheEnd,
    /// It could not be done.
    Failing,
}

/// One reaction of one participant.
#[derive(Debug, Clone)]
pub(super) struct Step {
    pub(super) participant: String,
    /// What it reacts to.
    pub(super) fact: usize,
    /// What it makes, each once.
    pub(super) makes: Vec<(usize, Made)>,
    pub(super) ends: bool,
    pub(super) at_most: Option<u32>,
}

impl Graph {
    /// Puts the declarations together. They may be wrong: [`Graph::check`] says how, and the drawings show what
    /// is there.
    pub fn of(participants: &[Participant]) -> Self {
        let mut sorted = participants.to_vec();
        sorted.sort_by(|a, b| a.name().cmp(b.name()));
        let mut builder = Builder::default();
        for participant in &sorted {
            builder.add(participant);
        }
        let Builder { index, mut facts, mut steps, is_cut, .. } = builder;
        // By publisher and type, whatever the order in which they were met.
        let mut order = vec![0; facts.len()];
        for (rank, old) in index.values().enumerate() {
            order[*old] = rank;
        }
        for step in &mut steps {
            step.fact = order[step.fact];
            step.makes.iter_mut().for_each(|(fact, _)| *fact = order[*fact]);
        }
        facts.sort_by(|a, b| (&a.by, &a.event_type).cmp(&(&b.by, &b.event_type)));
        for (i, step) in steps.iter().enumerate() {
            facts[step.fact].consumers.push(i);
            for (fact, made) in &step.makes {
                facts[*fact].made_by.push((i, *made));
            }
        }
        Self { participants: sorted, facts, steps, is_cut }
    }

    /// The participants, by name.
    pub fn participants(&self) -> &[Participant] {
        &self.participants
    }

    /// Where drawings begin: what requests start, then what is announced, then what nothing makes.
    pub(super) fn roots(&self) -> Vec<usize> {
        let rank = |fact: &Fact| match fact {
            Fact { started: true, .. } => Some(0),
            Fact { announced: true, made_by, .. } if made_by.is_empty() => Some(1),
            Fact { made_by, .. } if made_by.is_empty() => Some(2),
            _ => None,
        };
        let mut roots: Vec<usize> =
            (0..self.facts.len()).filter(|f| rank(&self.facts[*f]).is_some()).collect();
        roots.sort_by_key(|fact| rank(&self.facts[*fact]));
        roots
    }
}

#[derive(Default)]
struct Builder {
    index: BTreeMap<(String, String), usize>,
    facts: Vec<Fact>,
    steps: Vec<Step>,
    parts: usize,
    is_cut: bool,
}

impl Builder {
    fn add(&mut self, participant: &Participant) {
        let name = participant.name();
        for event_type in participant.started() {
            if let Some(fact) = self.fact(name, event_type) {
                self.facts[fact].started = true;
            }
        }
        for event_type in participant.announced() {
            if let Some(fact) = self.fact(name, event_type) {
                self.facts[fact].announced = true;
            }
        }
        for reaction in participant.reactions() {
            let Some(fact) = self.fact(reaction.from(), reaction.event_type()) else { return };
            let made = if reaction.is_end() { Made::AtTheEnd } else { Made::Going };
            let produced = reaction.produced().iter().map(|event_type| (event_type, made));
            let failed = reaction.failures().iter().map(|event_type| (event_type, Made::Failing));
            let mut makes: Vec<(usize, Made)> = Vec::new();
            for (event_type, made) in produced.chain(failed) {
                let Some(fact) = self.fact(name, event_type) else { return };
                if self.takes(1) && !makes.contains(&(fact, made)) {
                    makes.push((fact, made));
                }
            }
            if self.takes(1) {
                let participant = name.to_owned();
                self.steps.push(Step {
                    participant,
                    fact,
                    makes,
                    ends: reaction.is_end(),
                    at_most: reaction.bound(),
                });
            }
        }
    }

    /// The number of a fact, new or known; none when there is no room for it.
    fn fact(&mut self, by: &str, event_type: &str) -> Option<usize> {
        let key = (by.to_owned(), event_type.to_owned());
        if let Some(known) = self.index.get(&key) {
            return Some(*known);
        }
        if !self.takes(1) {
            return None;
        }
        let (by, event_type) = key.clone();
        self.facts.push(Fact {
            by,
            event_type,
            started: false,
            announced: false,
            made_by: Vec::new(),
            consumers: Vec::new(),
        });
        self.index.insert(key, self.facts.len() - 1);
        Some(self.facts.len() - 1)
    }

    fn takes(&mut self, parts: usize) -> bool {
        self.parts += parts;
        self.is_cut |= self.parts > PARTS_MAX;
        !self.is_cut
    }
}
