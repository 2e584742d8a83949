//! The sequencer's settings.

use std::sync::Arc;
use std::time::Duration;

use super::faults::Faults;

/// How the sequencer works. The defaults suit a server in the same data centre.
#[derive(Debug, Clone)]
pub struct Spec {
    /// How long a holder that says nothing is left alone. Default 3 s: a pause of a busy process fits in, and a
    /// feed that stands for so long is hardly an outage. Range: 3 × `heartbeat` to an hour.
    pub lease: Duration,
    /// How often an idle holder writes that it lives; the grain in which a replica's lag is known. Default 250 ms.
    pub heartbeat: Duration,
    /// A round's transaction whose client is silent for so long is ended by the server, so that a stopped process
    /// can be followed. Default 1 s; less than `lease`.
    pub silence_max: Duration,
    /// Events, and outbox rows, that one round takes. Default 10,000: some 100 ms of work, a few megabytes.
    pub rows_max: usize,
    /// The shortest time from one round to the next, so that a stream of small commits shares rounds. Default 2 ms.
    pub gather: Duration,
    /// The longest wait of an idle holder for its next look. It looks more often for a while after there was
    /// something. Default 100 ms; at most `heartbeat`.
    pub idle_max: Duration,
    /// Statements stay prepared on their connection. False behind a pooler in transaction mode.
    pub prepared: bool,
    /// Faults to be met, for tests.
    pub faults: Option<Arc<dyn Faults>>,
}

impl Default for Spec {
    fn default() -> Self {
        Self {
            lease: Duration::from_secs(3),
            heartbeat: Duration::from_millis(250),
            silence_max: Duration::from_secs(1),
            rows_max: 10_000,
            gather: Duration::from_millis(2),
            idle_max: Duration::from_millis(100),
            prepared: true,
            faults: None,
        }
    }
}

/// A setting that contradicts another one, or makes no sense.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("sequencer.{field} refused: {why}; no sequencer was started; mend the setting")]
pub struct Invalid {
    /// Which.
    pub field: &'static str,
    /// Why.
    pub why: String,
}

impl Spec {
    /// Checks the settings against each other.
    pub fn check(&self) -> Result<(), Invalid> {
        let refuse = |field, why: String| Err(Invalid { field, why });
        let hour = Duration::from_secs(3_600);
        if self.heartbeat < Duration::from_millis(10) || self.heartbeat > hour {
            return refuse("heartbeat", format!("{:?}; 10 ms to an hour", self.heartbeat));
        }
        if self.lease < 3 * self.heartbeat || self.lease > hour {
            return refuse(
                "lease",
                format!("{:?}; three heartbeats of {:?} to an hour", self.lease, self.heartbeat),
            );
        }
        if self.silence_max < Duration::from_millis(10) || self.silence_max >= self.lease {
            return refuse(
                "silence_max",
                format!("{:?}; 10 ms to less than the lease of {:?}", self.silence_max, self.lease),
            );
        }
        if self.rows_max == 0 || self.rows_max > 1_000_000 {
            return refuse("rows_max", format!("{}; 1 to 1,000,000", self.rows_max));
        }
        if self.idle_max.is_zero() || self.idle_max > self.heartbeat {
            return refuse(
                "idle_max",
                format!("{:?}; above zero, at most the heartbeat of {:?}", self.idle_max, self.heartbeat),
            );
        }
        if self.gather > self.idle_max {
            return refuse("gather", format!("{:?}; at most idle_max, {:?}", self.gather, self.idle_max));
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn settings_that_contradict_each_other_are_refused() {
        assert_eq!(Spec::default().check(), Ok(()));
        let ms = Duration::from_millis;
        let cases: [(&str, Spec); 7] = [
            ("heartbeat", Spec { heartbeat: ms(1), ..Spec::default() }),
            ("lease", Spec { lease: ms(749), ..Spec::default() }),
            ("silence_max", Spec { silence_max: ms(3_000), ..Spec::default() }),
            ("silence_max", Spec { silence_max: ms(0), ..Spec::default() }),
            ("rows_max", Spec { rows_max: 0, ..Spec::default() }),
            ("idle_max", Spec { idle_max: ms(251), ..Spec::default() }),
            ("gather", Spec { gather: ms(101), ..Spec::default() }),
        ];
        for (field, spec) in cases {
            assert_eq!(spec.check().map_err(|invalid| invalid.field), Err(field), "{spec:?}");
        }
    }
}
