//! Laws, each for any input: what no sequence of hops, divisions or bytes can do.

#![allow(clippy::unwrap_used, reason = "a test's helpers may fail the test")]

use std::time::Duration;

use mainstay_envelope::wire::{self, Boundary, Edge};
use mainstay_envelope::{
    Actor, CausationId, Clock, CorrelationId, Deadline, Envelope, IdempotencyKey, Identity, ManualClock,
    Monotonic, Priority, RetryBucket, RetryTokens, SeededChance, Tenant, TraceContext, TraceParent,
};
use proptest::prelude::*;
use uuid::Uuid;

fn priority() -> impl Strategy<Value = Priority> {
    prop::sample::select(&Priority::ALL[..])
}

fn tokens(whole: u8) -> RetryTokens {
    RetryTokens::new(whole)
}

/// A printable text of up to so many characters, of any alphabet.
fn text(most: usize) -> impl Strategy<Value = String> {
    prop::collection::vec(prop_oneof![4 => prop::char::range(' ', '~'), 1 => any::<char>()], 1..=most)
        .prop_map(|chars| {
            chars
                .into_iter()
                .filter(|c| !c.is_control() && !matches!(c, '\u{2028}' | '\u{2029}'))
                .collect::<String>()
        })
        .prop_map(|text| if text.is_empty() { "x".to_owned() } else { text })
}

prop_compose! {
    fn envelope()(
        seed: u64,
        sampled: bool,
        correlation in 1u128..,
        causation in prop::option::of(1u128..),
        caller in prop::option::of(text(40)),
        actor in prop::option::of(text(40)),
        tenant in prop::option::of(text(30)),
        key in prop::option::of("[ -~]{1,40}"),
        state in prop::option::of("[a-z]{1,9}=[!-+]{1,9}"),
        priority in priority(),
        left in 0..=2u8,
        remaining in prop::option::of(0..10_000_000u64),
    ) -> Envelope {
        let parent = TraceParent::random(&SeededChance::new(seed)).with_sampled(sampled);
        let trace = TraceContext::from(parent).with_state(&state.unwrap_or_default());
        let mut envelope = Envelope::of(trace, CorrelationId(Uuid::from_u128(correlation)), priority)
            .with_tokens(tokens(left));
        if let Some(id) = causation {
            envelope = envelope.with_causation(CausationId(Uuid::from_u128(id)));
        }
        if let Some(caller) = caller {
            envelope = envelope.with_caller(Identity::new(caller).unwrap());
        }
        if let Some(actor) = actor {
            envelope = envelope.with_actor(Actor::new(actor).unwrap());
        }
        if let Some(tenant) = tenant {
            envelope = envelope.with_tenant(Tenant::new(tenant).unwrap());
        }
        if let Some(key) = key {
            envelope = envelope.with_idempotency_key(IdempotencyKey::new(key).unwrap());
        }
        if let Some(millis) = remaining {
            envelope = envelope.lower_deadline(Deadline::after(Monotonic::default(), Duration::from_millis(millis)));
        }
        envelope
    }
}

/// One hop: a process with a clock of its own gets the call, works, may ask for more, and calls on.
#[derive(Debug, Clone)]
struct Hop {
    clock_began: Duration,
    works: Duration,
    asks_deadline: Option<Duration>,
    asks_priority: Option<Priority>,
}

prop_compose! {
    fn hop()(
        began in 0..1_000_000u64,
        works in 0..2_000_000u64,
        asks_deadline in prop::option::of(0..20_000_000u64),
        asks_priority in prop::option::of(priority()),
    ) -> Hop {
        Hop {
            clock_began: Duration::from_secs(began),
            works: Duration::from_micros(works),
            asks_deadline: asks_deadline.map(Duration::from_micros),
            asks_priority,
        }
    }
}

#[derive(Debug, Clone)]
enum Act {
    Spend(usize),
    TakeAll(usize),
    Split(usize),
    GiveBack(usize, usize),
    Settle(usize, u8),
    Clone(usize),
}

fn act() -> impl Strategy<Value = Act> {
    let who = 0..8usize;
    prop_oneof![
        who.clone().prop_map(Act::Spend),
        who.clone().prop_map(Act::TakeAll),
        who.clone().prop_map(Act::Split),
        (who.clone(), who.clone()).prop_map(|(to, from)| Act::GiveBack(to, from)),
        (who.clone(), 0..=3u8).prop_map(|(who, reported)| Act::Settle(who, reported)),
        who.prop_map(Act::Clone),
    ]
}

/// Header fields as strangers send them: ours and others', once or more, well formed, nearly so or just bytes.
fn headers() -> impl Strategy<Value = Vec<(String, Vec<u8>)>> {
    let name = prop_oneof![
        9 => prop::sample::select(&wire::NAMES[..]).prop_map(ToOwned::to_owned),
        1 => prop::sample::select(&wire::NAMES[..]).prop_map(str::to_uppercase),
        1 => "[!-~]{0,12}",
    ];
    let value = prop_oneof![
        prop::collection::vec(any::<u8>(), 0..80),
        "\\PC{0,60}".prop_map(String::into_bytes),
        "[ -~]{0,60}".prop_map(String::into_bytes),
        "\"[ -~]{0,40}\"".prop_map(String::into_bytes),
        "%\"([a-z]|%[0-9a-f]{2}){0,9}\"".prop_map(String::into_bytes),
        "-?[0-9]{1,17}(\\.[0-9]{0,4})?".prop_map(String::into_bytes),
        "[0-2]|background|low|normal|critical".prop_map(String::into_bytes),
        "\"[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}\"".prop_map(String::into_bytes),
        "[0-9a-f]{2}-[0-9a-f]{32}-[0-9a-f]{16}-[0-9a-f]{2}".prop_map(String::into_bytes),
        // and one that was cut off somewhere
        ("[0-9a-f]{2}-[0-9a-f]{32}-[0-9a-f]{16}-[0-9a-f]{2}", 0..56usize)
            .prop_map(|(text, at)| text.as_bytes()[..at.min(55)].to_vec()),
        "([a-z]{1,3}=[ -~]{0,9},?){0,6}".prop_map(String::into_bytes),
    ];
    prop::collection::vec((name, value), 0..14)
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 512, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn a_hop_can_only_lower_deadline_and_priority(
        begun in envelope(),
        hops in prop::collection::vec(hop(), 1..12),
    ) {
        let mut left = begun.deadline().map(|deadline| deadline.remaining(Monotonic::default()));
        let mut priority = begun.priority();
        let mut fields = wire::encode(&begun, Monotonic::default());
        for hop in hops {
            let clock = ManualClock::default();
            clock.advance(hop.clock_began);
            let mut envelope =
                wire::decode(fields, clock.now(), Boundary::Trusted, &SeededChance::new(1)).unwrap();
            clock.advance(hop.works);
            if let Some(asked) = hop.asks_deadline {
                envelope = envelope.lower_deadline(Deadline::after(clock.now(), asked));
            }
            if let Some(asked) = hop.asks_priority {
                envelope = envelope.lower_priority(asked);
            }
            let bound = match (left.map(|left| left.saturating_sub(hop.works)), hop.asks_deadline) {
                (Some(left), Some(asked)) => Some(left.min(asked)),
                (left, asked) => left.or(asked),
            };
            let now_left = envelope.deadline().map(|deadline| deadline.remaining(clock.now()));
            prop_assert_eq!(now_left.is_some(), bound.is_some(), "a deadline never disappears");
            prop_assert!(now_left <= bound, "{:?} of {:?}", now_left, bound);
            // and a hop costs no more than the part of a millisecond that has no place on the wire
            prop_assert!(now_left.map(|left| left + Duration::from_millis(1)) >= bound);
            prop_assert!(envelope.priority() <= priority);
            prop_assert!(hop.asks_priority.is_none_or(|asked| envelope.priority() == priority.min(asked)));
            (left, priority) = (now_left, envelope.priority());
            fields = wire::encode(&envelope.outgoing("next", 0, envelope.tokens().take_all(), &SeededChance::new(2)), clock.now());
        }
    }

    #[test]
    fn tokens_are_conserved_however_they_are_divided(begun in 0..=2u8, acts in prop::collection::vec(act(), 0..40)) {
        // Each holder has a set of tokens of its own; clones are kept beside, as other handles on a set.
        let mut holders = vec![tokens(begun)];
        let mut clones = Vec::new();
        let (mut spent, mut lost) = (0, 0);
        for act in acts {
            let count = holders.len();
            match act {
                Act::Spend(who) => spent += u8::from(holders[who % count].spend()),
                Act::TakeAll(who) => { let moved = holders[who % count].take_all(); holders.push(moved); }
                Act::Split(who) => { let moved = holders[who % count].split(); holders.push(moved); }
                Act::GiveBack(to, from) => holders[to % count].give_back(holders[from % count].clone()),
                Act::Settle(who, reported) => {
                    let before = holders[who % count].left();
                    holders[who % count].settle(reported);
                    lost += before - holders[who % count].left();
                }
                Act::Clone(who) => clones.push((who % count, holders[who % count].clone())),
            }
            let held: u8 = holders.iter().map(RetryTokens::left).sum();
            prop_assert_eq!(held + spent + lost, begun);
            prop_assert!(clones.iter().all(|(who, handle)| handle.left() == holders[*who].left()));
        }
    }

    #[test]
    fn a_bucket_lends_no_more_than_was_put_in(full: bool, requests in prop::collection::vec((0..=2u8, any::<bool>()), 0..300)) {
        let bucket = if full { RetryBucket::new() } else { RetryBucket::empty() };
        let begun = bucket.whole() * 10;
        let (mut spent, mut gained) = (0, 0);
        for (retries, answered) in requests {
            let request = bucket.lend();
            gained += 1;
            let lent = request.left();
            prop_assert!(lent <= RetryTokens::MAX);
            let retried = (0..retries).filter(|_| request.spend()).count() as u8;
            prop_assert_eq!(retried, retries.min(lent));
            spent += u32::from(if answered { retried } else { lent });
            if answered {
                bucket.give_back(request);
            }
            prop_assert!(bucket.whole() <= RetryBucket::MAX);
            prop_assert!((bucket.whole() + spent) * 10 <= begun + gained, "{} whole, {} spent", bucket.whole(), spent);
        }
    }

    #[test]
    fn derived_keys_differ_wherever_key_step_or_ordinal_do(
        whole in "[ab]{2,12}", cut in 1..11usize, other in 1..11usize, ordinal in 0..3u32, second in 0..3u32,
    ) {
        // One text cut in two places: what a hash over the parts side by side could not tell apart.
        let (cut, other) = (cut.min(whole.len() - 1), other.min(whole.len() - 1));
        let derive = |at: usize, ordinal| IdempotencyKey::new(&whole[..at]).unwrap().derive(&whole[at..], ordinal);
        let (one, two) = (derive(cut, ordinal), derive(other, second));
        prop_assert_eq!(one == two, (cut, ordinal) == (other, second));
        // and digits at the end of a step are not an ordinal
        let key = IdempotencyKey::new("k").unwrap();
        prop_assert_ne!(key.derive(&format!("s{ordinal}"), second), key.derive("s", ordinal));
    }

    #[test]
    fn an_envelope_comes_back_from_the_wire_as_it_was(sent in envelope(), wait in 0..1_000_000u64) {
        let now = Monotonic::from_origin(Duration::from_secs(wait));
        let mut expected = sent.clone();
        if let Some(deadline) = sent.deadline() {
            // The same time remains, on another clock.
            let remaining = deadline.remaining(Monotonic::default());
            expected = Envelope::of(sent.trace().clone(), sent.correlation(), sent.priority());
            expected = expected.lower_deadline(Deadline::after(now, remaining)).with_tokens(sent.tokens().clone());
            if let Some(id) = sent.causation() { expected = expected.with_causation(id); }
            if let Some(caller) = sent.caller() { expected = expected.with_caller(caller.clone()); }
            if let Some(actor) = sent.actor() { expected = expected.with_actor(actor.clone()); }
            if let Some(tenant) = sent.tenant() { expected = expected.with_tenant(tenant.clone()); }
            if let Some(key) = sent.idempotency_key() { expected = expected.with_idempotency_key(key.clone()); }
        }
        let fields = wire::encode(&sent, Monotonic::default());
        prop_assert!(fields.iter().all(|(_, value)| value.bytes().all(|byte| matches!(byte, b' '..=b'~'))));
        let received = wire::decode(fields, now, Boundary::Trusted, &SeededChance::new(9)).unwrap();
        prop_assert_eq!(received, expected);
    }

    #[test]
    fn no_bytes_make_decoding_panic_and_all_that_is_read_can_be_sent(headers in headers(), wait: u64) {
        let now = Monotonic::from_origin(Duration::from_millis(wait));
        let fields = headers.iter().map(|(name, value)| (name, value));
        if let Ok(envelope) = wire::decode(fields, now, Boundary::Trusted, &SeededChance::new(9)) {
            let again = wire::decode(wire::encode(&envelope, now), now, Boundary::Trusted, &SeededChance::new(9));
            prop_assert_eq!(again, Ok(envelope));
        }
    }

    #[test]
    fn nothing_a_stranger_sends_gets_past_the_edge(
        forged in envelope(), noise in headers(), set in priority(), left in 0..=2u8, most in 0..10_000_000u64,
        known in prop::option::of(text(20)),
    ) {
        let edge = Edge {
            max_deadline: Duration::from_millis(most),
            priority: set,
            tokens: tokens(left),
            caller: known.as_ref().map(|name| Identity::new(name).unwrap()),
            tenant: known.as_ref().map(|name| Tenant::new(name).unwrap()),
        };
        let sent = wire::encode(&forged, Monotonic::default()).into_iter()
            .map(|(name, value)| (name.to_owned(), value.into_bytes()));
        let fields: Vec<_> = sent.chain(noise).collect();
        let now = Monotonic::from_origin(Duration::from_secs(5));
        match wire::decode(fields, now, Boundary::Edge(edge), &SeededChance::new(9)) {
            Ok(envelope) => {
                prop_assert_eq!(envelope.priority(), set);
                prop_assert_eq!(envelope.tokens().left(), left);
                prop_assert_eq!(envelope.caller().map(Identity::as_str), known.as_deref());
                prop_assert_eq!(envelope.tenant().map(Tenant::as_str), known.as_deref());
                prop_assert_eq!((envelope.causation(), envelope.actor()), (None, None));
                let remaining = envelope.deadline().unwrap().remaining(now);
                prop_assert!(remaining <= Duration::from_millis(most));
            }
            Err(error) => prop_assert_eq!(error.header(), "idempotency-key"),
        }
    }
}
