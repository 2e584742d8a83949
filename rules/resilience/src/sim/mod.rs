//! A simulator: discrete events and virtual time around the rules themselves, not around models of them.
//!
//! **What it is for.** Whether a policy survives ten times the load, a callee that hangs, or a storm of retries can't be
//! read off its settings, and is found out too late in production. Here it takes a second: the load, the servers and
//! the network are simulated, and every verdict comes from the states that decide in a service
//! ([`load_shed::State`](crate::load_shed::State), [`retry::State`](crate::retry::State),
//! [`CircuitBreaker`](crate::circuit_breaker::CircuitBreaker), [`TokenBucket`](crate::rate_limit::TokenBucket)).
//!
//! **What it is not.** No benchmark: a decision takes no time here. No proof: it shows what one seed leads to.
//!
//! ```text
//!   Load ──► service 0 ──► service 1 ──► …        a Service: rules on the way in, workers with a queue, Condition
//!              │ └───────► service 2              a Link:    retry, breaker, limit and timeout on the way out
//!              ▼
//!           Report: goodput, amplification, recovery, per 100 ms; Display and SVG
//! ```
//!
//! ```
//! use mainstay_resilience::load_shed::Spec;
//! use mainstay_resilience::sim::{Load, Scenario, Service, Work};
//! use std::time::Duration;
//!
//! let (ms, secs) = (Duration::from_millis, Duration::from_secs);
//! // Ten workers, 50 ms each: 200 a second. Ten times as much is asked, and whoever asks waits for a second.
//! let server = Service::new("api", 10, Work::Exponential(ms(50)));
//! let load = Load::constant(2_000.0).deadline(secs(1));
//!
//! let without = Scenario::new("alone", load.clone(), secs(10)).service(server.clone()).run(1);
//! assert!(without.goodput(secs(5), secs(10)) < 20.0, "it works all the time, and for nobody");
//!
//! let shed = Spec::fixed(10).check()?;
//! let with = Scenario::new("shedding", load, secs(10)).service(server.shed(shed)).run(1);
//! assert!(with.goodput(secs(5), secs(10)) > 180.0);
//! # Ok::<(), mainstay_resilience::Invalid>(())
//! ```
//!
//! The same scenario and seed give the same report, to the last bit, on the same build. Scenarios that show the
//! patterns are in [`scenarios`]; `cargo xtask sim` runs and plots them.

mod agenda;
mod chance;
mod plot;
mod report;
mod run;
mod scenario;
pub mod scenarios;
mod server;

pub use plot::Plot;
pub use report::{Bucket, Report, ServiceReport, Tally};
pub use scenario::{Arrivals, Condition, Fan, Link, Load, Retries, Scenario, Service, Work};
