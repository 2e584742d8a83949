//! The choreography as a tree of text.
//!
//! ```text
//! OrderCreated ◄ a request to order
//! └─ payment
//!    ├─ PaymentProcessed
//!    │  └─ order ■
//!    │     └─ OrderConfirmed
//!    └─ ✗ PaymentRefused
//!       └─ order ■
//!          └─ OrderCancelled
//! ```

use std::collections::VecDeque;
use std::fmt::{self, Display, Write};

use super::graph::{Fact, Graph, Made};
use crate::plain::plain;

/// How deep a tree is drawn before it goes on at the margin: what keeps a long chain readable, and its drawing
/// in proportion to its length.
const DEPTH_MAX: usize = 10;

const LEGEND: &str = "■ ends the saga   ✗ failure   ↑ drawn above   ⚠ see the findings";

/// The drawing of a graph as text; made by [`Graph::text`].
#[derive(Debug)]
pub struct Text<'a>(&'a Graph);

impl Graph {
    /// Draws the choreography as text: under each fact who reacts to it, under each reaction what comes of it. A
    /// fact is followed once. Its size grows with that of the graph.
    pub fn text(&self) -> Text<'_> {
        Text(self)
    }
}

impl Display for Text<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let graph = self.0;
        let mut pen = Pen { graph, drawn: vec![false; graph.facts.len()], later: VecDeque::new(), out: f };
        for root in graph.roots() {
            pen.tree(root)?;
        }
        // What only rings lead to has no root.
        for fact in 0..graph.facts.len() {
            if !pen.drawn[fact] {
                pen.tree(fact)?;
            }
        }
        pen.out.write_str(LEGEND)
    }
}

struct Pen<'a, 'f> {
    graph: &'a Graph,
    drawn: Vec<bool>,
    /// What was too deep: drawn at the margin afterwards.
    later: VecDeque<usize>,
    out: &'a mut fmt::Formatter<'f>,
}

impl Pen<'_, '_> {
    fn tree(&mut self, root: usize) -> fmt::Result {
        let mut next = Some(root);
        while let Some(root) = next {
            let graph = self.graph;
            let fact = &graph.facts[root];
            let whence = match fact {
                Fact { started: true, .. } => format!(" ◄ a request to {}", plain(&fact.by)),
                Fact { announced: true, .. } => format!(" ◄ announced by {}", plain(&fact.by)),
                Fact { made_by, .. } if made_by.is_empty() => {
                    format!(" ◄ expected from {}, which does not publish it ⚠", plain(&fact.by))
                }
                _ => format!(" ◄ of {}", plain(&fact.by)),
            };
            writeln!(self.out, "{}{whence}{}", plain(&fact.event_type), self.lonely(root))?;
            self.reactions(root, &mut String::new(), 0)?;
            self.out.write_char('\n')?;
            next = self.later.pop_front();
        }
        Ok(())
    }

    fn reactions(&mut self, fact: usize, margin: &mut String, depth: usize) -> fmt::Result {
        self.drawn[fact] = true;
        let graph = self.graph;
        for (i, step) in graph.facts[fact].consumers.iter().enumerate() {
            let step = &graph.steps[*step];
            let is_last = i + 1 == graph.facts[fact].consumers.len();
            let bound = step.at_most.map_or_else(String::new, |n| format!(" (at most {n}×)"));
            let end = if step.ends { " ■" } else { "" };
            writeln!(self.out, "{margin}{}{}{bound}{end}", branch(is_last), plain(&step.participant))?;
            let outer = margin.len();
            margin.push_str(if is_last { "   " } else { "│  " });
            for (j, (made, how)) in step.makes.iter().enumerate() {
                self.made(*made, *how, j + 1 == step.makes.len(), margin, depth)?;
            }
            margin.truncate(outer);
        }
        Ok(())
    }

    fn made(
        &mut self,
        made: usize,
        how: Made,
        is_last: bool,
        margin: &mut String,
        depth: usize,
    ) -> fmt::Result {
        let fact = &self.graph.facts[made];
        let failure = if how == Made::Failing { "✗ " } else { "" };
        let is_deep = depth >= DEPTH_MAX && !fact.consumers.is_empty() && !self.drawn[made];
        let more = match () {
            () if fact.consumers.is_empty() => self.lonely(made),
            () if self.drawn[made] => " ↑",
            () if is_deep => " … below",
            () => "",
        };
        writeln!(self.out, "{margin}{}{failure}{}{more}", branch(is_last), plain(&fact.event_type))?;
        if is_deep {
            // It counts as drawn from here on, so that it is drawn once.
            self.drawn[made] = true;
            self.later.push_back(made);
        } else if !self.drawn[made] {
            let outer = margin.len();
            margin.push_str(if is_last { "   " } else { "│  " });
            self.reactions(made, margin, depth + 1)?;
            margin.truncate(outer);
        }
        Ok(())
    }

    /// The sign at a fact that somebody should consume, and nobody does.
    fn lonely(&self, fact: usize) -> &'static str {
        let fact = &self.graph.facts[fact];
        let wanted = fact.wants_consumer() || fact.is_failure();
        if wanted && fact.consumers.is_empty() { " ⚠ consumed by nobody" } else { "" }
    }
}

fn branch(is_last: bool) -> &'static str {
    if is_last { "└─ " } else { "├─ " }
}
