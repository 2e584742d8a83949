//! How the simulated card processor behaves while the shop is under fire: by seed, counted in kills.

use serde_json::{Value, json};

use super::Chance;

/// Out of so many kills in fair weather, one begins a spell.
const BEGINS: u64 = 3;

/// A short spell, in kills.
const SHORT: u64 = 4;

/// One spell in so many is a long one: longer than orders wait for a processor, so that some are given up.
const LONG_ONE_IN: u64 = 5;
const LONG_MIN: u64 = 30;

/// The behaviour of now.
#[derive(Debug, Default)]
pub(super) struct Weather {
    /// What the processor was told, and how many kills it lasts.
    spell: Option<(Value, u64)>,
    /// Spells that began.
    pub(super) spells: u64,
}

impl Weather {
    /// Behaves well.
    pub(super) fn fair() -> Value {
        json!({ "mode": "well" })
    }

    /// Before each kill: what the processor is to be told; nothing while it is to go on as it does.
    pub(super) fn change(&mut self, chance: &mut Chance) -> Option<Value> {
        match &mut self.spell {
            Some((_, 0)) => {
                self.spell = None;
                Some(Self::fair())
            }
            Some((_, left)) => {
                *left -= 1;
                None
            }
            None if chance.below(BEGINS) == 0 => {
                let behaviour = draw(chance);
                let long = chance.below(LONG_ONE_IN) == 0;
                let kills = if long { LONG_MIN } else { 0 } + chance.below(SHORT);
                self.spell = Some((behaviour.clone(), kills));
                self.spells += 1;
                Some(behaviour)
            }
            None => None,
        }
    }

    /// What a processor that was started anew has to be told: it begins well, and the spell is not over.
    pub(super) fn again(&self) -> Option<&Value> {
        self.spell.as_ref().map(|(behaviour, _)| behaviour)
    }
}

fn draw(chance: &mut Chance) -> Value {
    let mut behaviour = match chance.below(5) {
        0 => return json!({ "mode": "declining" }),
        // Shorter and longer than what Payment waits for an answer.
        1 => json!({ "mode": "slow", "delay_ms": 50 + chance.below(1_500) }),
        2 => json!({ "mode": "failing" }),
        3 => json!({ "mode": "flapping", "period": 1 + chance.below(8) }),
        _ => json!({ "mode": "hanging" }),
    };
    // The answer is lost, not the charge.
    if chance.below(2) == 0 {
        behaviour["after_effect"] = true.into();
    }
    behaviour
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    #[test]
    fn spells_end_repeat_by_seed_and_are_of_every_kind() {
        let run = |seed| {
            let (mut weather, mut chance, mut told) = (Weather::default(), Chance(seed), Vec::new());
            for kill in 0..2_000 {
                let change = weather.change(&mut chance);
                if let Some(change) = &change {
                    told.push((kill, change.clone()));
                    assert_eq!(weather.again().unwrap_or(&Weather::fair()), change);
                }
            }
            (told, weather.spells)
        };
        let (told, spells) = run(1);
        assert_eq!(run(1).0, told);
        assert_ne!(run(2).0, told);
        assert_eq!(told.iter().filter(|(_, told)| *told != Weather::fair()).count() as u64, spells);
        let (mut kinds, mut longest) = (BTreeSet::new(), 0);
        // Each spell is followed by fair weather, never by another.
        for pair in told.windows(2) {
            let fair = |at: usize| pair[at].1 == Weather::fair();
            assert_ne!(fair(0), fair(1), "{pair:?}");
            if !fair(0) {
                kinds.insert((pair[0].1["mode"].to_string(), pair[0].1["after_effect"] == true));
                longest = longest.max(pair[1].0 - pair[0].0);
            }
        }
        // Declining, and four others before and after the effect.
        assert_eq!(kinds.len(), 9, "{kinds:?}");
        assert!((LONG_MIN..=LONG_MIN + SHORT).contains(&longest), "{longest}");
    }
}
