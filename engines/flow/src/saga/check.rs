//! Does the whole hold together? Every way in which it may not is a finding with its own sentence.

use std::collections::VecDeque;

use serde::Serialize;

use super::graph::{Graph, Made, PARTS_MAX};

/// Something that keeps a choreography from being right. Its text says what is wrong and what to do.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, thiserror::Error)]
#[serde(tag = "finding", rename_all = "snake_case")]
#[non_exhaustive]
pub enum Finding {
    /// The graph was cut; nothing else was checked.
    #[error(
        "the choreography has more than {max} facts, reactions and edges: it was not checked; check its parts one by one"
    )]
    TooLarge {
        /// How many are looked at.
        max: usize,
    },
    /// A declaration is wrong in itself.
    #[error("{why}")]
    BadParticipant {
        /// Who.
        participant: String,
        /// The sentence of [`super::BadParticipant`].
        why: String,
    },
    /// Two declarations have one name.
    #[error(
        "{participant} is declared twice: its topic would have two owners; give one of them another name"
    )]
    Twice {
        /// Who.
        participant: String,
    },
    /// A participant reacts to what it publishes itself.
    #[error(
        "{participant} follows itself: it reacts to its own {event_type}; do both in the one transaction that \
         makes {event_type}"
    )]
    FollowsItself {
        /// Who.
        participant: String,
        /// To which fact.
        event_type: String,
    },
    /// Somebody waits for what nobody publishes.
    #[error(
        "{participant} reacts to {event_type} of {from}, and {from} {}: nothing will ever arrive; {}",
        if *.from_is_known { "publishes no such fact" } else { "is none of the participants" },
        match .published_by { Some(by) => format!("it is {by} that publishes {event_type}"),
                              None => format!("declare who publishes {event_type}, or remove the reaction") }
    )]
    NotProduced {
        /// Who waits.
        participant: String,
        /// For what.
        event_type: String,
        /// From whom.
        from: String,
        /// Is there such a participant?
        from_is_known: bool,
        /// Somebody else who publishes a fact of that type.
        published_by: Option<String>,
    },
    /// Somebody publishes what nobody consumes.
    #[error(
        "{participant} publishes {event_type}, and nobody consumes it: let a participant react to it, declare \
         that its reaction ends the saga, or that it is only announced"
    )]
    Orphan {
        /// Who publishes.
        participant: String,
        /// What.
        event_type: String,
    },
    /// A failure after which nothing, or nothing that comes to an end, happens.
    #[error(
        "{participant} may fail with {event_type}, and {}: what was done before is left as it is; {}",
        if *.has_reaction { "no reaction to it leads to an end" } else { "nobody reacts to it" },
        if *.has_reaction { format!("let what follows {event_type} come to a reaction that ends the saga") }
        else { format!("let those who have to undo something react to {event_type}") }
    )]
    UnhandledFailure {
        /// Who fails.
        participant: String,
        /// With what.
        event_type: String,
        /// Does somebody react to it at all?
        has_reaction: bool,
    },
    /// Facts that lead to each other for ever.
    #[error(
        "{} leads back to itself, and nothing bounds how often: say of one of these reactions how often it may \
         happen (at_most)",
        .facts.join(" → ")
    )]
    UnboundedCycle {
        /// The types on a shortest such way, each as `Type (publisher)`; the last one leads to the first.
        facts: Vec<String>,
    },
    /// What a request begins can't be finished.
    #[error(
        "a request to {participant} begins with {event_type}, from which no end can be reached: declare which \
         reaction ends the saga"
    )]
    NoEnd {
        /// Who is asked.
        participant: String,
        /// What it begins with.
        event_type: String,
    },
    /// A way that a saga may take, and that leads nowhere.
    #[error(
        "{participant} may publish {event_type}, after which no end can be reached, though the saga could still \
         end before: declare which reaction to {event_type} ends it, or that {event_type} is only announced"
    )]
    DeadEnd {
        /// Who publishes.
        participant: String,
        /// What.
        event_type: String,
    },
    /// A reaction that no request and no announcement ever leads to.
    #[error(
        "{participant} reacts to {event_type} of {from}, and nothing ever leads there: no request begins it and \
         nothing announced does; declare what starts it, or remove the reaction"
    )]
    NeverHappens {
        /// Who waits.
        participant: String,
        /// For what.
        event_type: String,
        /// From whom.
        from: String,
    },
}

impl Graph {
    /// Everything found wrong, the same for the same declarations; empty when the choreography holds together.
    pub fn check(&self) -> Vec<Finding> {
        if self.is_cut {
            return vec![Finding::TooLarge { max: PARTS_MAX }];
        }
        let mut findings = Vec::new();
        self.check_declarations(&mut findings);
        self.check_steps(&mut findings);
        self.check_facts(&mut findings);
        self.check_cycles(&mut findings);
        findings
    }

    fn check_declarations(&self, findings: &mut Vec<Finding>) {
        for participant in &self.participants {
            if let Err(bad) = participant.check() {
                findings
                    .push(Finding::BadParticipant { participant: bad.name.clone(), why: bad.to_string() });
            }
        }
        for (i, participant) in self.participants.iter().enumerate() {
            let same = |at: Option<usize>| {
                at.and_then(|at| self.participants.get(at)).is_some_and(|p| p.name() == participant.name())
            };
            // They are sorted by name; of three, one finding.
            if same(i.checked_add(1)) && !same(i.checked_sub(1)) {
                findings.push(Finding::Twice { participant: participant.name().to_owned() });
            }
        }
    }

    fn check_steps(&self, findings: &mut Vec<Finding>) {
        let happens = self.forwards(|fact| fact.started || fact.announced || !fact.is_published());
        for step in &self.steps {
            let (participant, fact) = (step.participant.clone(), &self.facts[step.fact]);
            let (event_type, from) = (fact.event_type.clone(), fact.by.clone());
            if participant == from {
                findings.push(Finding::FollowsItself { participant, event_type });
            } else if !fact.is_published() {
                let known = self.participants.iter().any(|participant| participant.name() == from);
                let other = self.facts.iter().find(|f| f.event_type == event_type && f.is_published());
                findings.push(Finding::NotProduced {
                    participant,
                    event_type,
                    from,
                    from_is_known: known,
                    published_by: other.map(|fact| fact.by.clone()),
                });
            } else if !happens[step.fact] {
                findings.push(Finding::NeverHappens { participant, event_type, from });
            }
        }
    }

    fn check_facts(&self, findings: &mut Vec<Finding>) {
        let ends = self.leads_to_an_end();
        let of_a_saga = self.forwards(|fact| fact.started);
        for (i, fact) in self.facts.iter().enumerate() {
            let (participant, event_type) = (fact.by.clone(), fact.event_type.clone());
            let has_reaction = !fact.consumers.is_empty();
            // To announce a failure is not to handle it.
            if fact.is_failure() && !ends[i] {
                findings.push(Finding::UnhandledFailure { participant, event_type, has_reaction });
            } else if !fact.wants_consumer() {
                continue;
            } else if !has_reaction {
                findings.push(Finding::Orphan { participant, event_type });
            } else if fact.started && !ends[i] {
                findings.push(Finding::NoEnd { participant, event_type });
            } else if of_a_saga[i] && !ends[i] && self.could_still_end(i, &ends) {
                findings.push(Finding::DeadEnd { participant, event_type });
            }
        }
    }

    /// Is there a step that makes this fact although what it reacts to can lead to an end? If not, the reason
    /// lies further up, and is told there.
    fn could_still_end(&self, fact: usize, ends: &[bool]) -> bool {
        self.facts[fact]
            .made_by
            .iter()
            .any(|(step, made)| *made == Made::Going && ends[self.steps[*step].fact])
    }

    fn check_cycles(&self, findings: &mut Vec<Finding>) {
        let next = |fact: usize| {
            let unbounded = self.facts[fact].consumers.iter().map(|step| &self.steps[*step]);
            unbounded
                .filter(|step| step.at_most.is_none())
                .flat_map(|step| step.makes.iter().map(|(made, _)| *made))
        };
        for ring in strongly_connected(self.facts.len(), next) {
            let Some(cycle) = shortest_cycle(&ring, next) else { continue };
            let facts = cycle.into_iter().map(|fact| {
                let fact = &self.facts[fact];
                format!("{} ({})", fact.event_type, fact.by)
            });
            findings.push(Finding::UnboundedCycle { facts: facts.collect() });
        }
    }

    /// Which facts can happen, from those where it begins.
    fn forwards(&self, begins: impl Fn(&super::graph::Fact) -> bool) -> Vec<bool> {
        let mut reached: Vec<bool> = self.facts.iter().map(begins).collect();
        let mut left: Vec<usize> = (0..reached.len()).filter(|fact| reached[*fact]).collect();
        while let Some(fact) = left.pop() {
            for step in &self.facts[fact].consumers {
                for (made, _) in &self.steps[*step].makes {
                    if !std::mem::replace(&mut reached[*made], true) {
                        left.push(*made);
                    }
                }
            }
        }
        reached
    }

    /// From which facts a reaction that ends the saga can be reached.
    fn leads_to_an_end(&self) -> Vec<bool> {
        let mut reached = vec![false; self.facts.len()];
        let mut left: Vec<usize> = self.steps.iter().filter(|step| step.ends).map(|step| step.fact).collect();
        while let Some(fact) = left.pop() {
            if !std::mem::replace(&mut reached[fact], true) {
                left.extend(self.facts[fact].made_by.iter().map(|(step, _)| self.steps[*step].fact));
            }
        }
        reached
    }
}

/// The strongly connected components that hold a cycle, each in ascending order, the one with the lowest member
/// first. Kosaraju and Sharir's algorithm, with its own stack: what is declared may be deep.
fn strongly_connected<I: Iterator<Item = usize>>(len: usize, next: impl Fn(usize) -> I) -> Vec<Vec<usize>> {
    let mut back = vec![Vec::new(); len];
    let mut finished = Vec::with_capacity(len);
    let mut seen = vec![false; len];
    for root in 0..len {
        if seen[root] {
            continue;
        }
        seen[root] = true;
        let mut stack = vec![(root, next(root))];
        while let Some((node, followers)) = stack.last_mut() {
            let node = *node;
            match followers.next() {
                Some(follower) => {
                    back[follower].push(node);
                    if !std::mem::replace(&mut seen[follower], true) {
                        stack.push((follower, next(follower)));
                    }
                }
                None => {
                    finished.push(node);
                    stack.pop();
                }
            }
        }
    }
    let mut components: Vec<Vec<usize>> = Vec::new();
    let mut taken = vec![false; len];
    for root in finished.into_iter().rev() {
        let (mut component, mut left) = (Vec::new(), vec![root]);
        while let Some(node) = left.pop() {
            if !std::mem::replace(&mut taken[node], true) {
                component.push(node);
                left.extend(&back[node]);
            }
        }
        component.sort_unstable();
        let is_cycle = match component[..] {
            [] => false,
            [one] => next(one).any(|follower| follower == one),
            _ => true,
        };
        if is_cycle {
            components.push(component);
        }
    }
    components.sort();
    components
}

/// A shortest way from the lowest member of a strongly connected component back to itself.
fn shortest_cycle<I: Iterator<Item = usize>>(
    ring: &[usize],
    next: impl Fn(usize) -> I,
) -> Option<Vec<usize>> {
    let first = *ring.first()?;
    let mut came_from: Vec<Option<usize>> = vec![None; ring.len()];
    let mut left = VecDeque::from([first]);
    while let Some(node) = left.pop_front() {
        for follower in next(node) {
            if follower == first {
                let mut cycle = vec![node];
                let mut at = node;
                while at != first {
                    at = came_from[ring.binary_search(&at).ok()?]?;
                    cycle.push(at);
                }
                cycle.reverse();
                return Some(cycle);
            }
            if let Ok(at) = ring.binary_search(&follower)
                && came_from[at].is_none()
            {
                came_from[at] = Some(node);
                left.push_back(follower);
            }
        }
    }
    None
}
