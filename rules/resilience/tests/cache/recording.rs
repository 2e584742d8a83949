//! What a cache decided is recorded, and decided again the same.

use std::collections::BTreeSet;
use std::sync::Arc;

use mainstay_envelope::{Chance, SeededChance};
use mainstay_resilience::cache::{Cache, Loaded, Spec, Verdict};
use mainstay_resilience::record::{Decision, Recorder, Recording};
use mainstay_resilience::{Failed, Outcome, Replayed, Rule, replay};

use crate::kit::{Broken, Tested, World, ms, recorded, spawn};

/// A random script of questions, writes and invalidations over four keys, with loads that take their time and bring
/// values, nothing, or errors; and what it left.
async fn script(recording: Recording, seed: u64) -> (World, Tested) {
    let chance: Arc<dyn Chance> = Arc::new(SeededChance::new(seed));
    let world = recorded(Arc::clone(&chance), Recorder::new(recording, 1 << 16, 1));
    let spec = Spec::for_everybody(ms(200)).ttl_jitter(0.2).early_refresh(1.0).loads_max(2).waiters_max(3);
    let spec =
        spec.stale_while_revalidate(ms(60)).stale_if_error(ms(200)).errors_for(ms(30)).negative_ttl(ms(50));
    let outcome = |ended: Result<&u64, &Broken>| match ended {
        Ok(_) => Outcome::Success,
        Err(Broken("lasting")) => Outcome::Permanent,
        Err(_) => Outcome::TRANSIENT,
    };
    let cache =
        Cache::builder("tested", spec).scope(Arc::clone(&world.scope)).classify(outcome).build().unwrap();
    let below = |bound: u64| chance.next_u64() % bound;
    for _ in 0..4_000 {
        let key = ["a", "b", "c", "d"][below(4) as usize];
        match below(20) {
            0 => cache.put(&world.cx, key.into(), Loaded::found(0).tag(key)),
            1 => cache.invalidate(&world.cx, key),
            2 => cache.invalidate_tag(key),
            3 | 4 => drop(cache.get(&world.cx, key)),
            n => {
                let (takes, brings) = (ms(below(40)), below(8));
                let cx = match n {
                    5 => world.cx.with_deadline(ms(0)),
                    6..10 => world.cx.with_deadline(ms(below(30))),
                    _ => world.cx.clone(),
                };
                let cache = cache.clone();
                // Nobody waits for the answer; what was decided about it is what counts.
                drop(spawn(async move {
                    let load = move |_, _| async move {
                        tokio::time::sleep(takes).await;
                        match brings {
                            0 | 1 => Err(Broken("passing")),
                            2 => Err(Broken("lasting")),
                            3 => Ok(Loaded::absent()),
                            _ => Ok(Loaded::found(1)),
                        }
                    };
                    cache.get_or_load(&cx, key, load).await
                }));
            }
        }
        tokio::time::sleep(ms(below(12))).await;
    }
    (world, cache)
}

/// The verdicts that were recorded of a question.
fn verdicts(decisions: &[Decision], question: u8) -> BTreeSet<u64> {
    decisions
        .iter()
        .filter(|decision| decision.question == question)
        .map(|decision| decision.verdict)
        .collect()
}

#[tokio::test(start_paused = true)]
async fn every_decision_of_a_random_script_is_recorded_and_decided_again_the_same() {
    let (world, cache) = script(Recording::All, 11).await;
    let decisions = world.scope.recorder().decisions();
    assert_eq!(world.scope.recorder().lost(), 0);
    for decision in &decisions {
        assert_eq!(decision.rule, Rule::Cache);
        assert_eq!(replay(decision), Replayed::Same, "{decision}");
        let altered = Decision { verdict: decision.verdict + 1, ..*decision };
        assert_eq!(replay(&altered), Replayed::Different { verdict: decision.verdict });
        let younger = Decision { question: 9, ..*decision };
        assert_eq!(replay(&younger), Replayed::Unknown);
    }
    // The script meets everything that can be decided.
    assert_eq!(verdicts(&decisions, 0), (0..8).collect(), "what is kept");
    assert_eq!(verdicts(&decisions, 1), (0..5).collect(), "who loads");
    assert_eq!(verdicts(&decisions, 2), (0..2).collect(), "instead");
    // And nothing is left out: what was counted was recorded.
    let of = |question, verdicts: &[u64]| {
        let wanted = |d: &&Decision| d.question == question && verdicts.contains(&d.verdict);
        decisions.iter().filter(wanted).count() as u64
    };
    let stats = cache.stats();
    let (fresh, early, absent) =
        (Verdict::Fresh as u64, Verdict::RefreshEarly as u64, Verdict::Absent as u64);
    assert_eq!(of(0, &[fresh, early, absent]), stats.hits);
    assert_eq!(of(1, &[0]), stats.joined);
    assert_eq!(of(1, &[1]) + stats.refreshes + stats.handed_over, stats.loads);
    assert!(stats.early_refreshes > 0 && stats.early_refreshes < stats.refreshes, "{stats:?}");
}

#[tokio::test(start_paused = true)]
async fn an_early_refresh_carries_its_inputs_and_depends_on_each() {
    let (world, _) = script(Recording::Notable, 12).await;
    let early = Verdict::RefreshEarly as u64;
    let refreshed = |decision: &Decision| (decision.question, decision.verdict) == (0, early);
    let decisions = world.scope.recorder().decisions();
    let decision = decisions.iter().find(|decision| refreshed(decision)).unwrap();
    // δ and the expiry, β, the draw: one altered at a time, and chance would not have picked this reader.
    let [head, _, expiry, ..] = decision.inputs;
    let fresh = Replayed::Different { verdict: Verdict::Fresh as u64 };
    for (input, value) in [(0, head & 0xffff_ffff), (2, expiry + 1_000_000_000_000), (3, 0), (4, u64::MAX)] {
        let mut altered = *decision;
        altered.inputs[input] = value;
        assert_eq!(replay(&altered), fresh, "input {input} of {decision}");
    }
}

#[tokio::test(start_paused = true)]
async fn by_default_only_what_is_notable_is_recorded_and_a_refusal_names_it() {
    let (world, cache) = script(Recording::Notable, 13).await;
    let decisions = world.scope.recorder().decisions();
    assert_eq!(verdicts(&decisions, 0), [1, 2, 3, 4, 7].into(), "no hit, no absence, no miss");
    assert_eq!(verdicts(&decisions, 1), [2, 3, 4].into(), "nobody who was let in");
    assert_eq!(verdicts(&decisions, 2), [1].into());
    let late = world.cx.with_deadline(ms(0));
    let refused =
        cache.get_or_load(&late, "never asked for", |_, _| async { Err::<u64, _>(Broken("not asked")) });
    let Failed::Refused(refusal) = refused.await.unwrap_err() else { panic!("it is not late") };
    let decision = world.scope.recorder().find(refusal.decision).unwrap();
    assert_eq!(
        (decision.question, decision.at),
        (1, decision.inputs[0]),
        "the deadline is the moment itself"
    );
}
