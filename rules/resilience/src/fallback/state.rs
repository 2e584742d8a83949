//! The decision: may this failure be replaced? Pure.

use super::spec::{Checked, Spec};
use crate::outcome::Outcome;
use crate::record::INPUTS;

/// Why there is no answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Cause {
    /// A rule of ours refused.
    Refused,
    /// The callee failed, or answered with what its classifier says is this.
    Callee(Outcome),
}

/// Whether a failure of this cause may be replaced.
pub const fn applies(settings: &Checked, cause: Cause) -> bool {
    let Spec { on_refusal, on_transient } = *settings.spec();
    match cause {
        Cause::Refused => on_refusal,
        Cause::Callee(Outcome::Transient { .. }) => on_transient,
        Cause::Callee(Outcome::Success | Outcome::Permanent | Outcome::Cancelled) => false,
    }
}

// ---- recorded decisions ---------------------------------------------------------------------------------

/// "Is this failure replaced?"
pub(super) const APPLIES: u8 = 0;

pub(super) fn inputs(settings: &Checked, cause: Cause) -> [u64; INPUTS] {
    let Spec { on_refusal, on_transient } = *settings.spec();
    let cause = match cause {
        Cause::Refused => 0,
        Cause::Callee(Outcome::Transient { .. }) => 1,
        Cause::Callee(_) => 2,
    };
    let mut inputs = [0; INPUTS];
    inputs[0] = cause | u64::from(on_refusal) << 8 | u64::from(on_transient) << 9;
    inputs
}

pub(super) fn replay(question: u8, inputs: [u64; INPUTS]) -> Option<u64> {
    if question != APPLIES {
        return None;
    }
    let bit = |n: u32| inputs[0] >> n & 1 == 1;
    let settings = Spec { on_refusal: bit(8), on_transient: bit(9) }.check().ok()?;
    let cause = match inputs[0] & 255 {
        0 => Cause::Refused,
        1 => Cause::Callee(Outcome::TRANSIENT),
        _ => Cause::Callee(Outcome::Permanent),
    };
    Some(u64::from(applies(&settings, cause)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_may_be_replaced_is_what_the_settings_say_and_never_the_callees_answer() {
        let only = |on_refusal, on_transient| Spec { on_refusal, on_transient }.check().unwrap();
        for (settings, refused, transient) in [
            (only(true, true), true, true),
            (only(true, false), true, false),
            (only(false, true), false, true),
        ] {
            for (cause, expected) in [
                (Cause::Refused, refused),
                (Cause::Callee(Outcome::TRANSIENT), transient),
                (Cause::Callee(Outcome::Permanent), false),
                (Cause::Callee(Outcome::Cancelled), false),
                (Cause::Callee(Outcome::Success), false),
            ] {
                assert_eq!(applies(&settings, cause), expected, "{settings:?} {cause:?}");
                let again = replay(APPLIES, inputs(&settings, cause));
                assert_eq!(again, Some(u64::from(expected)), "{settings:?} {cause:?}");
            }
        }
    }
}
