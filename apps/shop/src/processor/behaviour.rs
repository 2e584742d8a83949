//! How the processor behaves: as somebody outside our control may at any moment. Pure; the calls are counted outside.

use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::http::limits::{DELAY_MS_MAX, PERIOD_MAX};

/// What it does with charges and voids.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(super) enum Mode {
    /// Answers at once.
    #[default]
    Well,
    /// Answers after `delay_ms`.
    Slow,
    /// Fails each call.
    Failing,
    /// Answers `period` calls, fails the next `period`, and so on.
    Flapping,
    /// Takes calls and answers none.
    Hanging,
    /// Answers at once, and says no to every new charge.
    Declining,
}

/// A behaviour, as it is set and shown.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Behaviour {
    pub(super) mode: Mode,
    /// Of [`Mode::Slow`], in milliseconds.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) delay_ms: Option<u64>,
    /// Of [`Mode::Flapping`], in calls.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) period: Option<u32>,
    /// Does what it was asked for first, and only then is slow, fails or hangs: the answer is lost, not the charge.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub(super) after_effect: bool,
}

/// What stands in the way of one call.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Obstacle {
    Nothing,
    Wait(Duration),
    Fail,
    Hang,
}

/// A behaviour that says what it does not mean.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub(super) enum BadBehaviour {
    #[error("slow takes delay_ms, 1 to {DELAY_MS_MAX}")]
    Delay,
    #[error("flapping takes period, 1 to {PERIOD_MAX} calls")]
    Period,
    #[error("{0} is of another mode; leave it out")]
    Unused(&'static str),
}

impl Behaviour {
    /// Refuses what can't be meant.
    pub(super) fn check(self) -> Result<Self, BadBehaviour> {
        match (self.mode, self.delay_ms) {
            (Mode::Slow, Some(1..=DELAY_MS_MAX)) => {}
            (Mode::Slow, _) => return Err(BadBehaviour::Delay),
            (_, Some(_)) => return Err(BadBehaviour::Unused("delay_ms")),
            (_, None) => {}
        }
        match (self.mode, self.period) {
            (Mode::Flapping, Some(1..=PERIOD_MAX)) => {}
            (Mode::Flapping, _) => return Err(BadBehaviour::Period),
            (_, Some(_)) => return Err(BadBehaviour::Unused("period")),
            (_, None) => {}
        }
        match self.mode {
            Mode::Well | Mode::Declining if self.after_effect => Err(BadBehaviour::Unused("after_effect")),
            _ => Ok(self),
        }
    }

    /// What stands in the way of the call of this number, from 0, since the behaviour was set.
    pub(super) fn obstacle(self, call: u64) -> Obstacle {
        match self.mode {
            Mode::Well | Mode::Declining => Obstacle::Nothing,
            Mode::Slow => Obstacle::Wait(Duration::from_millis(self.delay_ms.unwrap_or_default())),
            Mode::Failing => Obstacle::Fail,
            Mode::Hanging => Obstacle::Hang,
            Mode::Flapping => match (call / u64::from(self.period.unwrap_or(1).max(1))) % 2 {
                0 => Obstacle::Nothing,
                _ => Obstacle::Fail,
            },
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(text: &str) -> Result<Behaviour, String> {
        let read: Behaviour = serde_json::from_str(text).map_err(|error| error.to_string())?;
        read.check().map_err(|error| error.to_string())
    }

    #[test]
    fn what_can_not_be_meant_is_refused_with_its_reason() {
        for (text, says) in [
            (r#"{"mode":"slow"}"#, "delay_ms"),
            (r#"{"mode":"slow","delay_ms":0}"#, "1 to 60000"),
            (r#"{"mode":"slow","delay_ms":60001}"#, "1 to 60000"),
            (r#"{"mode":"flapping"}"#, "period"),
            (r#"{"mode":"flapping","period":0}"#, "period"),
            (r#"{"mode":"well","delay_ms":5}"#, "delay_ms is of another mode"),
            (r#"{"mode":"slow","delay_ms":5,"period":1}"#, "period is of another mode"),
            (r#"{"mode":"well","after_effect":true}"#, "after_effect is of another mode"),
            (r#"{"mode":"dead"}"#, "unknown variant"),
            (r#"{"mode":"well","x":1}"#, "unknown field"),
        ] {
            let told = read(text).unwrap_err();
            assert!(told.contains(says), "{text}: {told}");
        }
        for text in [r#"{"mode":"well"}"#, r#"{"mode":"hanging","after_effect":true}"#] {
            assert_eq!(serde_json::to_string(&read(text).unwrap()).unwrap(), text);
        }
    }

    #[test]
    fn flapping_counts_calls_and_nothing_else() {
        let flapping = read(r#"{"mode":"flapping","period":2}"#).unwrap();
        let (well, fails) = (Obstacle::Nothing, Obstacle::Fail);
        assert_eq!([0, 1, 2, 3, 4].map(|call| flapping.obstacle(call)), [well, well, fails, fails, well]);
    }
}
