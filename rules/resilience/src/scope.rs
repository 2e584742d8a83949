//! What the rules of one policy share: its name, where it reads time and chance, and where it records decisions.

use std::sync::Arc;

use mainstay_envelope::{Chance, Clock, Monotonic, SystemChance, SystemClock};

use crate::record::{INPUTS, Recorder};
use crate::refusal::{DecisionId, Refusal, Rule, Why};

/// How far a recent reading of the clock is taken to lag at most, in nanoseconds: several times the longest tick of Linux.
/// On a machine whose timer stands still for longer, what goes by it is decided as much too late.
const LAG: u64 = 50_000_000;

/// One policy's surroundings. Made once, shared by all its rules.
///
/// Its clock must be the one that the deadlines of its calls were read from (a
/// [`Context`](mainstay_envelope::Context)'s), or they mean nothing to it.
#[derive(Debug)]
pub struct Scope {
    name: Arc<str>,
    clock: Arc<dyn Clock>,
    /// Every call reads it, most of them twice: then without a virtual call.
    is_system: bool,
    chance: Arc<dyn Chance>,
    recorder: Recorder,
}

impl Scope {
    /// These surroundings.
    pub fn new(
        name: impl Into<Arc<str>>,
        clock: Arc<dyn Clock>,
        chance: Arc<dyn Chance>,
        recorder: Recorder,
    ) -> Self {
        Scope { name: name.into(), is_system: clock.is_system(), clock, chance, recorder }
    }

    /// The machine's clock and chance, and no recording: for one rule used by itself.
    pub fn system(name: impl Into<Arc<str>>) -> Self {
        Self::new(name, Arc::new(SystemClock), Arc::new(SystemChance::new()), Recorder::off())
    }

    /// The policy's name.
    pub fn name(&self) -> &Arc<str> {
        &self.name
    }

    /// A reading of the policy's clock.
    #[inline]
    pub fn now(&self) -> Monotonic {
        if self.is_system { SystemClock.now() } else { self.clock.now() }
    }

    /// What [`now`](Self::now) would say at the latest, and cheaper: an exact reading holds the processor up. For whoever
    /// would decide the same so much later, and reads `now` where it comes close.
    #[inline]
    pub fn at_the_latest(&self) -> Monotonic {
        let recent = if self.is_system { SystemClock.recent() } else { self.clock.recent() };
        Monotonic::from_nanos(recent.as_nanos().saturating_add(LAG))
    }

    /// 64 uniform random bits.
    pub fn draw(&self) -> u64 {
        self.chance.next_u64()
    }

    /// Where decisions are kept.
    pub fn recorder(&self) -> &Recorder {
        &self.recorder
    }

    /// Writes the decisions that are kept, the oldest first, as a file that `mainstay replay` reads. How many. Give it a
    /// buffered writer: each decision is a line.
    ///
    /// # Errors
    /// What the writer says. What was written till then is no whole recording, and is refused when it is read.
    #[cfg(feature = "recording")]
    pub fn save(&self, out: impl std::io::Write) -> std::io::Result<usize> {
        let decisions = self.recorder.decisions();
        crate::record::write(out, &self.name, self.recorder.lost(), &decisions)?;
        Ok(decisions.len())
    }

    /// Records a refusal and makes it. `inputs` and `verdict` as the rule's `state.rs` says.
    pub fn refuse(
        &self,
        rule: Rule,
        question: u8,
        now: Monotonic,
        inputs: [u64; INPUTS],
        verdict: u64,
        why: Why,
    ) -> Refusal {
        let decision = self.recorder.notable(rule, question, now, inputs, verdict);
        Refusal::new(decision, rule, &self.name, why)
    }

    /// A refusal of which there is nothing to decide again.
    pub fn refuse_unrecorded(&self, rule: Rule, why: Why) -> Refusal {
        Refusal::new(DecisionId::UNRECORDED, rule, &self.name, why)
    }
}
