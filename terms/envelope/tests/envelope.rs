//! The envelope and its context, and what a fact keeps of them.

#![allow(clippy::unwrap_used, reason = "a test's helpers may fail the test")]

use std::sync::Arc;
use std::time::Duration;

use mainstay_envelope::{
    Actor, CausationId, Context, CorrelationId, Deadline, Envelope, Fact, IdempotencyKey, Identity,
    ManualClock, Monotonic, Priority, RetryTokens, SeededChance, Tenant, Timestamp, TraceParent,
};
use uuid::Uuid;

const TRACE: &str = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01";

fn chance() -> SeededChance {
    SeededChance::new(11)
}

fn at(secs: u64) -> Deadline {
    Deadline::at(Monotonic::from_origin(Duration::from_secs(secs)))
}

fn call() -> Envelope {
    let trace: TraceParent = TRACE.parse().unwrap();
    Envelope::of(trace.into(), CorrelationId(Uuid::from_u128(1)), Priority::Critical)
        .with_causation(CausationId(Uuid::from_u128(2)))
        .with_caller(Identity::new("ada").unwrap())
        .with_tenant(Tenant::new("acme").unwrap())
        .with_idempotency_key(IdempotencyKey::new("secret-key").unwrap())
        .with_tokens(RetryTokens::new(2))
        .lower_deadline(at(9))
}

fn context(clock: &ManualClock) -> Context {
    Context::new(call(), Arc::new(clock.clone()), Arc::new(chance()))
}

#[test]
fn a_fact_keeps_who_and_why_and_nothing_of_the_calls_means() {
    let text = serde_json::to_string(&call().fact()).unwrap();
    // The whole stored form, so that nothing else can get in and no name can change.
    let expected = format!(
        r#"{{"trace":"{TRACE}","corr":"{}","cause":"{}","tenant":"acme","actor":"ada"}}"#,
        Uuid::from_u128(1),
        Uuid::from_u128(2)
    );
    assert_eq!(text, expected);
    assert_eq!(serde_json::from_str::<Fact>(&text).unwrap(), call().fact());
}

#[test]
fn a_fact_of_another_version_is_still_read() {
    let later = r#"{"corr":"00000000-0000-0000-0000-000000000005","mood":{"a":[1]},"tenant":null}"#;
    let expected = Fact { correlation: CorrelationId(Uuid::from_u128(5)), ..Fact::default() };
    assert_eq!(serde_json::from_str::<Fact>(later).unwrap(), expected);
    assert_eq!(serde_json::from_str::<Fact>("{}").unwrap(), Fact::default());
    for broken in [r#"{"corr":"x"}"#, r#"{"trace":"00-"}"#, r#"{"actor":""}"#, "[1]"] {
        assert!(serde_json::from_str::<Fact>(broken).is_err(), "{broken}");
    }
}

#[test]
fn a_facts_handler_gets_its_place_and_no_power() {
    let handler = Envelope::from_fact(&call().fact(), CausationId(Uuid::from_u128(77)), at(5), &chance());
    assert_eq!(handler.trace().parent().trace_id(), call().trace().parent().trace_id());
    assert_ne!(handler.trace().parent().parent_id(), call().trace().parent().parent_id());
    assert_eq!(handler.correlation(), call().correlation());
    assert_eq!(handler.causation(), Some(CausationId(Uuid::from_u128(77))));
    assert_eq!(handler.tenant(), call().tenant());
    assert_eq!(handler.actor(), Some(&Actor::new("ada").unwrap()));
    assert_eq!(handler.deadline(), Some(at(5)), "the consumer's, though the call's was later");
    assert_eq!(handler.caller(), None, "what ada did grants nothing to whoever reads of it");
    assert_eq!((handler.priority(), handler.tokens().left()), (Priority::Normal, 0));
    assert_eq!(handler.idempotency_key(), None);
    // and the next fact in the chain still names who acted, even if the handler calls in its own name
    let next = handler.with_caller(Identity::new("worker").unwrap()).fact();
    assert_eq!(next.actor, Some(Actor::new("ada").unwrap()));
}

#[test]
fn a_fact_without_a_correlation_gives_all_its_handlers_the_same() {
    let caused_by = CausationId(Uuid::from_u128(77));
    let [one, two] =
        [1, 2].map(|seed| Envelope::from_fact(&Fact::default(), caused_by, at(5), &SeededChance::new(seed)));
    assert_eq!(one.correlation(), CorrelationId(caused_by.0));
    assert_eq!(two.correlation(), one.correlation());
}

#[test]
fn an_outgoing_call_has_a_key_and_a_span_of_its_own_and_the_tokens_moved_to_it() {
    let serving = call();
    let chance = chance();
    let first = serving.outgoing("reserve", 0, serving.tokens().split(), &chance);
    let second = serving.outgoing("reserve", 1, serving.tokens().take_all(), &chance);
    let spans = [&serving, &first, &second].map(|envelope| envelope.trace().parent().parent_id());
    assert!(spans[0] != spans[1] && spans[1] != spans[2] && spans[0] != spans[2]);
    let keys =
        [&serving, &first, &second].map(|envelope| envelope.idempotency_key().unwrap().as_str().to_owned());
    assert!(keys[0] != keys[1] && keys[1] != keys[2] && keys[0] != keys[2]);
    let left = [&serving, &first, &second].map(|envelope| envelope.tokens().left());
    assert_eq!(left, [0, 1, 1]);
    assert_eq!((first.deadline(), first.priority()), (serving.deadline(), serving.priority()));
    serving.tokens().give_back(first.tokens().clone());
    assert_eq!((serving.tokens().left(), first.tokens().left()), (1, 0));

    let keyless = Envelope::begin(Priority::Low, &chance).outgoing("x", 0, RetryTokens::none(), &chance);
    assert_eq!(keyless.idempotency_key(), None, "a key that nobody gave would promise what nobody keeps");
}

#[test]
fn a_context_only_lowers_its_deadline_and_counts_it_on_its_own_clock() {
    let clock = ManualClock::default();
    let cx = context(&clock);
    assert_eq!(cx.remaining(), Some(Duration::from_secs(9)));
    assert_eq!(cx.with_deadline(Duration::from_secs(20)).remaining(), Some(Duration::from_secs(9)));
    let shorter = cx.with_deadline(Duration::from_secs(3));
    clock.advance(Duration::from_secs(2));
    assert_eq!(
        (shorter.remaining(), cx.remaining()),
        (Some(Duration::from_secs(1)), Some(Duration::from_secs(7)))
    );
    clock.advance(Duration::from_secs(60));
    assert_eq!(cx.remaining(), Some(Duration::ZERO));
    let endless = cx.with_envelope(Envelope::begin(Priority::Low, &chance()));
    assert_eq!(endless.remaining(), None);
    assert_eq!(endless.with_deadline(Duration::from_secs(1)).remaining(), Some(Duration::from_secs(1)));
}

#[test]
fn a_child_shares_all_but_the_span() {
    let cx = context(&ManualClock::default());
    let child = cx.child();
    assert_ne!(child.envelope().trace(), cx.envelope().trace());
    assert_eq!(child.envelope().clone().with_trace(cx.envelope().trace().clone()), *cx.envelope());
    assert!(child.envelope().tokens().spend());
    assert_eq!(cx.envelope().tokens().left(), 1, "the same tokens, not as many again");
    let call = cx.outgoing("charge", 0, cx.envelope().tokens().take_all());
    assert_eq!((call.envelope().tokens().left(), cx.envelope().tokens().left()), (1, 0));
}

#[test]
fn a_seed_repeats_every_id_and_draw_of_a_context() {
    let run = || {
        let clock = ManualClock::new(Timestamp::from_millis(1_700_000_000_000));
        let cx = context(&clock);
        let mut made = vec![cx.new_id(), cx.clone().new_id()];
        clock.advance(Duration::from_millis(1));
        made.extend([cx.child().new_id(), cx.with_deadline(Duration::ZERO).new_id()]);
        assert!(made.is_sorted_by(|a, b| a < b), "{made:?}");
        (made, cx.next_u64(), cx.child().fact())
    };
    assert_eq!(run(), run());
}

#[test]
fn system_contexts_differ_in_all_but_their_clock_and_the_order_of_their_ids() {
    let (one, two) = (Context::system(), Context::system());
    assert_ne!(one.fact().correlation, two.fact().correlation);
    assert_ne!(one.fact().trace, two.fact().trace);
    assert_eq!(one.fact(), one.clone().fact());
    assert_eq!(one.remaining(), None);
    let ids: Vec<Uuid> =
        (0..1_000).flat_map(|_| [one.new_id(), two.new_id(), Context::system().new_id()]).collect();
    assert!(ids.is_sorted_by(|a, b| a < b));
    assert_ne!(one.next_u64(), two.next_u64());
}

#[test]
fn racing_makers_of_ids_make_no_id_twice_and_each_sees_its_own_in_order() {
    let cx = context(&ManualClock::default());
    let mut all: Vec<Uuid> = std::thread::scope(|scope| {
        let makers: Vec<_> =
            (0..4).map(|_| scope.spawn(|| (0..2_000).map(|_| cx.new_id()).collect::<Vec<_>>())).collect();
        let made = makers.into_iter().map(|maker| maker.join().unwrap());
        made.inspect(|ids| assert!(ids.is_sorted_by(|a, b| a < b))).flatten().collect()
    });
    all.sort_unstable();
    all.dedup();
    assert_eq!(all.len(), 8_000);
}
