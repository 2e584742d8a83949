//! Scenarios that show what the patterns are for: each with the rule, and some without it.
//!
//! They are what `cargo xtask sim` runs, what the guide's plots are drawn from, and what the tests judge.

use std::time::Duration;

use mainstay_envelope::Priority;

use super::scenario::{Condition, Fan, Link, Load, Retries, Scenario, Service, Work};
use crate::invalid::Invalid;
use crate::{circuit_breaker, load_shed, rate_limit, retry};

const fn ms(n: u64) -> Duration {
    Duration::from_millis(n)
}

const fn secs(n: u64) -> Duration {
    Duration::from_secs(n)
}

/// What the server of the overload scenarios can do: ten workers, 50 ms each on average.
pub const CAPACITY: f64 = 200.0;
/// When the overload begins, and when it ends.
pub const OVERLOAD: (Duration, Duration) = (secs(5), secs(15));
/// When the leaf of a call tree is out of order, and when it is well again.
pub const OUTAGE: (Duration, Duration) = (secs(10), secs(40));

/// A scenario and what it shows.
#[derive(Debug)]
pub struct Shown {
    /// Its name, short enough for a command line.
    pub name: &'static str,
    /// In one line.
    pub about: &'static str,
    /// What is run.
    pub scenario: Scenario,
}

/// Every scenario.
///
/// # Errors
/// None, unless a pattern's `check` came to refuse the settings used here.
pub fn all() -> Result<Vec<Shown>, Invalid> {
    let failing = Condition::Failing(0.01);
    Ok(vec![
        Shown {
            name: "overload-alone",
            about: "ten times the capacity and no rule: it works all the time, and for nobody",
            scenario: overload(10.0, None),
        },
        Shown {
            name: "overload-shed",
            about: "the same with load shedding: as much is served as at once",
            scenario: overload(10.0, Some(load_shed::Spec::fixed(10).check()?)),
        },
        Shown {
            name: "overload-adaptive",
            about: "the same with a limit that is measured and not known",
            scenario: overload(10.0, Some(load_shed::Spec::adaptive().check()?)),
        },
        Shown {
            name: "priorities",
            about: "ten times the capacity, six tenths of the capacity critical: the lowest goes first",
            scenario: priorities(load_shed::Spec::fixed(10).check()?),
        },
        Shown {
            name: "herd",
            about: "two thousand at the same moment on top of a usual day",
            scenario: herd(load_shed::Spec::fixed(10).check()?),
        },
        Shown {
            name: "slow-callee",
            about: "a callee gets ten times slower and well again: an adaptive limit on the way out",
            scenario: slow_callee()?,
        },
        Shown {
            name: "hanging-callee",
            about: "a callee's workers hang, one call after the other: a breaker on the way out",
            scenario: hanging_callee()?,
        },
        Shown {
            name: "flapping-callee",
            about: "a callee is down every other second: a breaker on the way out",
            scenario: flapping_callee()?,
        },
        Shown { name: "paced", about: "three times what a rate limit admits", scenario: limited()? },
        Shown {
            name: "chain-storm",
            about: "four hops that each retry without a budget, the last one down: the storm",
            scenario: chain(50.0, Condition::Down, Tries::Unbudgeted)?,
        },
        Shown {
            name: "chain-tokens",
            about: "the same with the tokens of the envelope",
            scenario: chain(200.0, Condition::Down, Tries::Tokens)?,
        },
        Shown {
            name: "chain-breakers",
            about: "the same with tokens and breakers, as the outbound stack has them",
            scenario: chain(200.0, Condition::Down, Tries::TokensAndBreakers)?,
        },
        Shown {
            name: "chain-failing",
            about: "four hops, one in a hundred of the last one's answers fails, with tokens",
            scenario: chain(200.0, failing, Tries::Tokens)?,
        },
        Shown {
            name: "tree-tokens",
            about: "a tree of four hops whose leaves are down, with tokens",
            scenario: tree(100.0, Fan::Sequential, Condition::Down, Tries::Tokens)?,
        },
        Shown {
            name: "tree-failing",
            about: "a tree of four hops, one in a hundred of the leaves' answers fails, with tokens",
            scenario: tree(100.0, Fan::Sequential, failing, Tries::Tokens)?,
        },
    ])
}

fn day() -> Load {
    Load::constant(CAPACITY / 2.0)
}

fn api() -> Service {
    Service::new("api", 10, Work::Exponential(ms(50)))
}

/// Half the capacity, then `times` of it for ten seconds, then half again.
pub fn overload(times: f64, shed: Option<load_shed::Checked>) -> Scenario {
    let load = day().step(OVERLOAD.0, CAPACITY * times).step(OVERLOAD.1, CAPACITY / 2.0);
    let service = match shed {
        Some(settings) => api().shed(settings),
        None => api(),
    };
    let name = format!("{times} times the capacity, {}", if shed.is_some() { "shedding" } else { "no rule" });
    Scenario::new(name, load, secs(30)).service(service)
}

/// Ten times the capacity; what is critical would fit by itself, at six tenths of the capacity.
pub fn priorities(shed: load_shed::Checked) -> Scenario {
    let mix = [
        (Priority::Critical, 0.06),
        (Priority::Normal, 0.44),
        (Priority::Low, 0.25),
        (Priority::Background, 0.25),
    ];
    let load = Load::constant(CAPACITY * 10.0).mix(mix);
    Scenario::new("ten times the capacity, by priority", load, secs(20)).service(api().shed(shed))
}

/// Half the capacity, and two thousand more at the same moment.
pub fn herd(shed: load_shed::Checked) -> Scenario {
    Scenario::new("a herd of 2,000", day().herd(secs(5), 2_000), secs(15)).service(api().shed(shed))
}

/// A front that calls a store. The store gets ten times slower in the outage; its clients limit what they ask.
///
/// # Errors
/// As [`all`].
pub fn slow_callee() -> Result<Scenario, Invalid> {
    let limit = load_shed::Spec::adaptive_limit().check()?;
    let link = Link::to(1, ms(500)).limit(limit);
    let store = Service::new("store", 20, Work::Exponential(ms(20)))
        .from(OUTAGE.0, Condition::Slow(10.0))
        .from(OUTAGE.1, Condition::Healthy);
    let front = Service::caller("front").calls(link);
    let load = Load::constant(500.0);
    Ok(Scenario::new("a callee gets ten times slower", load, secs(60)).service(front).service(store))
}

fn breaker() -> Result<circuit_breaker::Checked, Invalid> {
    circuit_breaker::Spec::failure_rate(0.5).over(100).open_for(secs(1)).check()
}

/// A front that calls a store, through a breaker. In the outage whatever the store begins never ends.
///
/// # Errors
/// As [`all`].
pub fn hanging_callee() -> Result<Scenario, Invalid> {
    let shed = load_shed::Spec::fixed(100).check()?;
    let store = Service::new("store", 100, Work::Exponential(ms(20)))
        .from(OUTAGE.0, Condition::Hanging)
        .from(OUTAGE.0 + ms(200), Condition::Healthy);
    let front = Service::caller("front").shed(shed).calls(Link::to(1, ms(300)).breaker(breaker()?));
    let load = Load::constant(400.0);
    Ok(Scenario::new("a callee hangs", load, secs(40)).service(front).service(store))
}

/// A front that calls a store, through a breaker. In the outage the store is down every other second.
///
/// # Errors
/// As [`all`].
pub fn flapping_callee() -> Result<Scenario, Invalid> {
    let store = Service::new("store", 20, Work::Exponential(ms(20))).flapping(
        OUTAGE.0,
        OUTAGE.1,
        secs(1),
        Condition::Down,
    );
    let front = Service::caller("front").calls(Link::to(1, ms(300)).breaker(breaker()?));
    let load = Load::constant(400.0);
    Ok(Scenario::new("a callee flaps", load, secs(60)).service(front).service(store))
}

/// A service that admits 100 a second with bursts of 20, and 300 a second that come.
///
/// # Errors
/// As [`all`].
pub fn limited() -> Result<Scenario, Invalid> {
    let limit = rate_limit::Spec::token_bucket(100, secs(1)).burst(20).check()?;
    let load = Load::constant(50.0).step(secs(5), 300.0).step(secs(10), 50.0);
    Ok(Scenario::new("three times the rate limit", load, secs(15)).service(api().limit(limit)))
}

/// How the hops of a call tree try again.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Tries {
    /// One.
    Once,
    /// Three tries each, whatever the others do.
    Unbudgeted,
    /// Three tries each, within the tokens that travel with the request.
    Tokens,
    /// The same, and a breaker at each hop.
    TokensAndBreakers,
}

impl Tries {
    /// In a title.
    const fn shown(self) -> &'static str {
        match self {
            Tries::Once => "no retries",
            Tries::Unbudgeted => "retries without a budget",
            Tries::Tokens => "retries with tokens",
            Tries::TokensAndBreakers => "retries with tokens, breakers",
        }
    }

    /// A link to that service: at most three tries.
    fn link(self, to: usize) -> Result<Link, Invalid> {
        let settings = retry::Spec::full_jitter(ms(10), ms(100)).max_attempts(3).check()?;
        let link = Link::to(to, ms(500));
        Ok(match self {
            Tries::Once => link,
            Tries::Unbudgeted => link.retries(Retries::Unbudgeted(settings)),
            Tries::Tokens => link.retries(Retries::Tokens(settings)),
            Tries::TokensAndBreakers => link.retries(Retries::Tokens(settings)).breaker(breaker()?),
        })
    }
}

/// What ails the leaf, in a title.
fn ailment(condition: Condition) -> String {
    match condition {
        Condition::Healthy => "leaf well".to_owned(),
        Condition::Slow(times) => format!("leaf {times} times slower"),
        Condition::Failing(share) => format!("{} % of leaf calls fail", share * 100.0),
        Condition::Down => "leaf down".to_owned(),
        Condition::Hanging => "leaf hangs".to_owned(),
    }
}

fn leaf(name: &str, outage: Condition) -> Service {
    let service = Service::new(name, u32::MAX, Work::Exponential(ms(5)));
    match outage {
        // Not an outage but how it always is.
        Condition::Failing(_) => service.from(Duration::ZERO, outage),
        _ => service.from(OUTAGE.0, outage).from(OUTAGE.1, Condition::Healthy),
    }
}

/// Four hops: edge, orders, payment, ledger, bank. The bank is out of order in the outage; one that is only
/// [`Failing`](Condition::Failing) always is.
///
/// # Errors
/// As [`all`].
pub fn chain(rate: f64, outage: Condition, tries: Tries) -> Result<Scenario, Invalid> {
    let hop = |name: &str, to| Ok(Service::new(name, u32::MAX, Work::Exact(ms(1))).calls(tries.link(to)?));
    let load = Load::constant(rate).deadline(secs(2));
    let title = format!("a chain of four hops, {}: {}", ailment(outage), tries.shown());
    Ok(Scenario::new(title, load, secs(50))
        .service(Service::caller("edge").calls(tries.link(1)?))
        .service(hop("orders", 2)?)
        .service(hop("payment", 3)?)
        .service(hop("ledger", 4)?)
        .service(leaf("bank", outage)))
}

/// Four hops that branch in two after the first: one service, two, four, and eight calls of leaves. The number
/// of the leaf is 4, and each of the services of a level is the same service.
///
/// # Errors
/// As [`all`].
pub fn tree(rate: f64, fan: Fan, outage: Condition, tries: Tries) -> Result<Scenario, Invalid> {
    let branch = |name: &str, to| {
        let service = Service::new(name, u32::MAX, Work::Exact(ms(1))).fan(fan);
        Ok(service.calls(tries.link(to)?).calls(tries.link(to)?))
    };
    let load = Load::constant(rate).deadline(secs(2));
    let calls = if fan == Fan::Parallel { "all at once" } else { "one by one" };
    let title = format!("a tree of four hops, {calls}, {}: {}", ailment(outage), tries.shown());
    Ok(Scenario::new(title, load, secs(50))
        .service(Service::caller("edge").calls(tries.link(1)?))
        .service(branch("page", 2)?)
        .service(branch("section", 3)?)
        .service(branch("item", 4)?)
        .service(leaf("price", outage)))
}
