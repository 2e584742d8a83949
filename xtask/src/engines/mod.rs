//! Servers of other makers, for tests that need one: installed when missing, started, watched, broken, stopped.
//!
//! What a test needs of a running server it reads from the state file or from the environment
//! (`cargo xtask engines env postgres`). A test without its server fails; it does not pass by not being run.

mod packages;
mod postgres;
mod running;
mod tool;

use anyhow::Result;

pub(crate) use packages::install;

/// What to do with which server.
#[derive(clap::Args)]
pub(crate) struct Arguments {
    #[command(subcommand)]
    action: Action,
}

#[derive(clap::Subcommand)]
enum Action {
    /// Install what is missing, start what does not run, wait until everything is ready.
    Up {
        #[command(subcommand)]
        engine: Up,
    },
    /// Tell what runs and how far replicas are behind; the exit code is 0 only when everything does its part.
    Status {
        #[command(subcommand)]
        engine: Status,
    },
    /// Stop what runs.
    Down {
        #[command(subcommand)]
        engine: Down,
    },
    /// Print the settings that tests want: `eval "$(cargo xtask engines env postgres)"`.
    Env {
        #[command(subcommand)]
        engine: Status,
    },
    /// Break something on purpose, or mend it.
    Fault {
        #[command(subcommand)]
        engine: Fault,
    },
}

#[derive(clap::Subcommand)]
enum Up {
    /// PostgreSQL: a leader, two replicas, and pgbouncer.
    Postgres(postgres::Up),
}

#[derive(clap::Subcommand)]
enum Status {
    /// PostgreSQL.
    Postgres(postgres::Instance),
}

#[derive(clap::Subcommand)]
enum Down {
    /// PostgreSQL.
    Postgres(postgres::Down),
}

#[derive(clap::Subcommand)]
enum Fault {
    /// PostgreSQL.
    Postgres(postgres::Inject),
}

/// True when it was done, or, asked for the status, when everything does its part.
pub(crate) fn run(arguments: &Arguments) -> Result<bool> {
    match &arguments.action {
        Action::Up { engine: Up::Postgres(up) } => postgres::up(up),
        Action::Status { engine: Status::Postgres(instance) } => postgres::status(instance),
        Action::Down { engine: Down::Postgres(down) } => postgres::down(down),
        Action::Env { engine: Status::Postgres(instance) } => postgres::env(instance),
        Action::Fault { engine: Fault::Postgres(fault) } => postgres::inject(fault),
    }
}

/// The servers of a lane: new ones, gone with their data when this is dropped.
pub(crate) struct Lane {
    postgres: postgres::Lane,
}

impl Lane {
    /// Brings them up. A lane without its servers checks nothing, so what fails here fails the lane.
    pub(crate) fn up() -> Result<Lane> {
        Ok(Lane { postgres: postgres::Lane::up()? })
    }

    /// What every step of the lane finds in its environment.
    pub(crate) fn settings(&self) -> &[(&'static str, String)] {
        self.postgres.settings()
    }
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::*;

    #[derive(Parser)]
    struct Line {
        #[command(flatten)]
        arguments: Arguments,
    }

    fn parse(line: &str) -> Result<Arguments, clap::Error> {
        Line::try_parse_from(line.split(' ')).map(|line| line.arguments)
    }

    #[test]
    fn every_command_of_the_manual_is_understood() {
        for line in [
            "engines up postgres",
            "engines up postgres --port-base 30000 --data /data --instance mine --json",
            "engines status postgres --json",
            "engines down postgres --purge",
            "engines env postgres --instance lane",
            "engines fault postgres kill-leader",
            "engines fault postgres stop-leader",
            "engines fault postgres start-leader",
            "engines fault postgres promote furthest --json",
            "engines fault postgres promote r2 --instance lane",
            "engines fault postgres rebuild-replica r0",
            "engines fault postgres stop-replica r1",
            "engines fault postgres start-replica r1",
            "engines fault postgres sync on",
        ] {
            assert!(parse(line).is_ok(), "{line}");
        }
    }

    #[test]
    fn a_wrong_command_is_refused_with_what_would_be_right() {
        for (line, wanted) in [
            ("engines up oracle", "'oracle'"),
            ("engines up postgres --instance ../up", "a-z"),
            ("engines fault postgres promote r3", "furthest"),
            ("engines fault postgres promote", "<NODE>"),
            ("engines fault postgres sync maybe", "off"),
            ("engines fault postgres", "kill-leader"),
        ] {
            let Err(error) = parse(line) else { panic!("{line} was understood") };
            let said = error.render().to_string();
            assert!(said.contains(wanted), "{line}: {said}");
        }
    }
}
