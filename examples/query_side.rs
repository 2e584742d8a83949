//! CQRS with the two sides in two processes, each with its own database.
//!
//! `cargo run --example query_side` writes facts in this process and starts itself again as the query side:
//! that one reads the writer's feed, keeps its view in a file of its own, and is asked for a row that is at
//! least as new as the receipt it is given. Any number of query sides may follow one writer.

use std::path::Path;
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

/// The query side: only this process opens `views`, and it only reads `facts`.
async fn query_side(folder: &Path, receipt: &Receipt) -> Result<u64, Box<dyn std::error::Error>> {
    let cx = Context::system();
    let facts = Sqlite::open(Options::new(folder.join("facts.db")).read_only())?;
    let views = Sqlite::open(Options::new(folder.join("views.db")))?;
    let projector = Projector::new(facts, views, Visits)?;
    let visits = projector.reader();
    projector.run_until_caught_up(&cx).await?;
    Ok(visits.get(&cx, "/home", Consistency::ReadYourWrites(receipt)).await?.unwrap_or(0))
}

#[tokio::main]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    let arguments: Vec<String> = std::env::args().collect();
    if let [_, side, folder, receipt] = arguments.as_slice()
        && side == "query-side"
    {
        println!("{}", query_side(Path::new(folder), &receipt.parse()?).await?);
        return Ok(());
    }
    let folder = std::env::temp_dir().join(format!("mainstay-query-side-{}", std::process::id()));
    std::fs::create_dir_all(&folder)?;
    let store = Sqlite::open(Options::new(folder.join("facts.db")))?;
    let site: Commands<Site, _> = Commands::new(store);
    let cx = Context::system();
    for visits in 1..=3_u64 {
        let done = site.command(&cx, "site", "/home").await?;
        let side = Command::new(std::env::current_exe()?)
            .args(["query-side".as_ref(), folder.as_os_str(), done.receipt.to_string().as_ref()])
            .output()?;
        let shown = String::from_utf8_lossy(&side.stdout).trim().to_owned();
        println!("written {visits}, the query side shows {shown}");
        assert_eq!(shown, visits.to_string(), "{}", String::from_utf8_lossy(&side.stderr));
    }
    std::fs::remove_dir_all(&folder)?;
    Ok(())
}
