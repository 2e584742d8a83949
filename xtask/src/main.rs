//! One entry for every check of this repository: `cargo xtask --help`.
//!
//! This package depends on no product crate. Whatever it checks at run time it builds and starts as a
//! process of its own, so that a broken product can't break the tool that says so.

mod bench;
mod ci;
mod clock;
mod crash;
mod engines;
mod examples;
mod mutants;
mod mutate;
mod openapi;
mod outside;
mod powercut;
mod process;
mod shop;
mod sim;
mod tidy;
mod tree;

use std::process::ExitCode;

use clap::{Parser, Subcommand};

#[derive(Parser)]
#[command(name = "cargo xtask", about = "One entry for every check.")]
struct Arguments {
    #[command(subcommand)]
    check: Check,
}

/// Every check, one variant each; `run` below is the only other place that lists them.
#[derive(Subcommand)]
enum Check {
    /// Every check a change must pass; `ci full` adds those that take long.
    Ci(ci::Arguments),
    /// The rules of the source tree: floors, rings, pure states, and the other invariants.
    Tidy(tidy::Arguments),
    /// Break the code in each named way and see the named test fail.
    Mutate(mutate::Arguments),
    /// Change every operator of the pure states, one at a time, with cargo-mutants; takes hours, part of no lane.
    Mutants(mutants::Arguments),
    /// Build every example and run it to its end.
    Examples(examples::Arguments),
    /// Kill a working process again and again; every answer it gave must hold.
    Crash(crash::Arguments),
    /// Step the wall clock of a child process to and fro by an hour; the rules must not notice.
    Clock(clock::Arguments),
    /// Cut the power of a simulated disk again and again; nothing acknowledged may be lost.
    Powercut(powercut::Arguments),
    /// Build and run the programs of outside users, each with its own lock file.
    Outside(outside::Arguments),
    /// Check the shop's answers against its own OpenAPI documents, with schemathesis.
    Openapi(openapi::Arguments),
    /// Start, watch, break and stop the servers that some tests need.
    Engines(engines::Arguments),
    /// Simulate load, failures and retries around the resilience rules; prints figures and draws plots.
    Sim(sim::Arguments),
    /// Compare with other software on this machine; a measurement, part of no lane.
    Bench(bench::Arguments),
}

fn main() -> ExitCode {
    match run(Arguments::parse().check) {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::from(1),
        Err(error) => {
            eprintln!("error: {error:#}");
            ExitCode::from(2)
        }
    }
}

/// True when what was checked holds; an error when the check itself could not be carried out.
fn run(check: Check) -> anyhow::Result<bool> {
    process::watch_interrupt()?;
    match check {
        Check::Ci(arguments) => ci::run(&arguments),
        Check::Tidy(arguments) => tidy::run(&arguments),
        Check::Mutate(arguments) => mutate::run(&arguments),
        Check::Mutants(arguments) => mutants::run(&arguments),
        Check::Examples(arguments) => examples::run(&arguments),
        Check::Crash(arguments) => crash::run(&arguments),
        Check::Clock(arguments) => clock::run(&arguments),
        Check::Powercut(arguments) => powercut::run(&arguments),
        Check::Outside(arguments) => outside::run(&arguments),
        Check::Openapi(arguments) => openapi::run(&arguments),
        Check::Engines(arguments) => engines::run(&arguments),
        Check::Sim(arguments) => sim::run(&arguments),
        Check::Bench(arguments) => bench::run(&arguments),
    }
}
