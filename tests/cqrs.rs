//! CQRS: the query side is a process of its own, with a database of its own, fed by the feed.

// A failed test is a panic; the lint's exemption for tests does not reach helper functions.
#![allow(clippy::unwrap_used, clippy::panic)]

use std::path::{Path, PathBuf};
use std::process::Command;

use mainstay::projection::{Consistency, Failure, Observed, Projection, Projector, View};
use mainstay::sqlite::{Options, Sqlite};
use mainstay::store::Receipt;
use mainstay::{Commands, Context, Decider, Event};

#[derive(Debug, Clone, PartialEq, Event)]
enum Page {
    Visited { path: String },
}

#[derive(Debug, Default)]
struct Site;

impl Decider for Site {
    type Command = &'static str;
    type Event = Page;
    type Refusal = std::convert::Infallible;

    fn decide(&self, path: &&'static str) -> Result<Vec<Page>, Self::Refusal> {
        Ok(vec![Page::Visited { path: (*path).to_owned() }])
    }

    fn evolve(&mut self, _: &Page) {}
}

struct Visits;

impl Projection for Visits {
    type Event = Page;
    type Row = u64;
    const NAME: &'static str = "visits";

    fn apply(&self, view: &View<'_, u64>, event: &Observed<'_, Page>) -> Result<(), Failure> {
        let Page::Visited { path } = event.event();
        view.update(path, |visits| *visits += 1)
    }
}

const FOLDER: &str = "MAINSTAY_TEST_QUERY_SIDE_FOLDER";
const COPY: &str = "MAINSTAY_TEST_QUERY_SIDE_COPY";
const RECEIPT: &str = "MAINSTAY_TEST_QUERY_SIDE_RECEIPT";

/// What the other process runs; without its variables it is no test of its own.
#[tokio::test]
async fn query_side() {
    let Some(folder) = std::env::var_os(FOLDER).map(PathBuf::from) else { return };
    let receipt: Receipt = std::env::var(RECEIPT).unwrap().parse().unwrap();
    let cx = Context::system();
    let facts = Sqlite::open(Options::new(folder.join("facts.db")).read_only()).unwrap();
    let own = folder.join(format!("views-{}.db", std::env::var(COPY).unwrap()));
    let projector = Projector::new(facts, Sqlite::open(Options::new(own)).unwrap(), Visits).unwrap();
    let visits = projector.reader();
    projector.run_until_caught_up(&cx).await.unwrap();
    let shown = visits.get(&cx, "/home", Consistency::ReadYourWrites(&receipt)).await.unwrap();
    println!("visits={}", shown.unwrap_or(0));
}

fn ask(folder: &Path, copy: &str, receipt: &Receipt) -> u64 {
    let side = Command::new(std::env::current_exe().unwrap())
        .args(["--exact", "query_side", "--nocapture"])
        .env(FOLDER, folder)
        .env(COPY, copy)
        .env(RECEIPT, receipt.to_string())
        .output()
        .unwrap();
    let text = String::from_utf8_lossy(&side.stdout).into_owned();
    let visits = text.lines().find_map(|line| line.split("visits=").nth(1)?.trim().parse().ok());
    visits.unwrap_or_else(|| panic!("{text}{}", String::from_utf8_lossy(&side.stderr)))
}

/// Two copies of the query side follow one writer; each shows what a receipt asks for, and goes on where it was.
#[tokio::test]
async fn the_query_side_runs_in_processes_of_its_own() {
    let folder = tempfile::tempdir().unwrap();
    let site: Commands<Site, _> =
        Commands::new(Sqlite::open(Options::new(folder.path().join("facts.db"))).unwrap());
    let cx = Context::system();
    for visits in 1..=2 {
        let done = site.command(&cx, "site", "/home").await.unwrap();
        for copy in ["a", "b"] {
            assert_eq!(ask(folder.path(), copy, &done.receipt), visits, "copy {copy}");
        }
    }
}
