//! Runs the simulator's scenarios and says what came of them; with `--svg FOLDER` draws them, too.
//!
//! `cargo xtask sim -- --help`. Without arguments every scenario is run once, with seed 1, in a few seconds.

use std::error::Error;
use std::path::PathBuf;
use std::time::Duration;

use mainstay_resilience::sim::scenarios::{self, OUTAGE, OVERLOAD, Shown};

const USAGE: &str = "\
Usage: sim [--seed N] [--scenario NAME] [--svg FOLDER] [--list]

  --seed N         the seed that decides the run (default 1)
  --scenario NAME  only this scenario
  --svg FOLDER     write a plot of each scenario into this folder
  --list           name the scenarios and run none
";

struct Arguments {
    seed: u64,
    only: Option<String>,
    svg: Option<PathBuf>,
    list: bool,
}

fn main() -> Result<(), Box<dyn Error>> {
    let Some(arguments) = read(std::env::args().skip(1))? else {
        print!("{USAGE}");
        return Ok(());
    };
    let mut shown = scenarios::all()?;
    if let Some(only) = &arguments.only {
        shown.retain(|shown| shown.name == only);
        if shown.is_empty() {
            return Err(format!("there is no scenario {only:?}; `--list` names them. Nothing was run").into());
        }
    }
    if let Some(folder) = &arguments.svg {
        std::fs::create_dir_all(folder)?;
    }
    for Shown { name, about, scenario } in shown {
        println!("{name}: {about}");
        if arguments.list {
            continue;
        }
        let report = scenario.run(arguments.seed);
        print!("{report}");
        let (from, to) = if name.starts_with("overload") { OVERLOAD } else { OUTAGE };
        let of_time = report.tally(from, to);
        if of_time.offered > 0 {
            let share = of_time.success() * 100.0;
            let goodput = report.goodput(from, to);
            println!(
                "  between {} s and {} s: goodput {goodput:.1} a second, {share:.2} % of what came",
                from.as_secs(),
                to.as_secs()
            );
        }
        if name.starts_with("overload") || name.ends_with("-callee") || name.starts_with("chain") {
            match report.recovery(to) {
                Some(Duration::ZERO) => println!("  back at once"),
                Some(time) => println!("  back after {:.1} s", time.as_secs_f64()),
                None => println!("  not back before the end"),
            }
        }
        if let Some(folder) = &arguments.svg {
            let file = folder.join(format!("{name}.svg"));
            std::fs::write(&file, report.plot().to_string())?;
            println!("  plotted in {}", file.display());
        }
        println!();
    }
    Ok(())
}

/// None when only help is asked for.
fn read(mut words: impl Iterator<Item = String>) -> Result<Option<Arguments>, String> {
    let mut arguments = Arguments { seed: 1, only: None, svg: None, list: false };
    while let Some(word) = words.next() {
        let mut value = || words.next().ok_or(format!("{word} needs a value; nothing was run\n{USAGE}"));
        match word.as_str() {
            "--seed" => {
                let given = value()?;
                arguments.seed = given.parse().map_err(|_| format!("--seed {given:?} is no whole number"))?;
            }
            "--scenario" => arguments.only = Some(value()?),
            "--svg" => arguments.svg = Some(value()?.into()),
            "--list" => arguments.list = true,
            "--help" | "-h" => return Ok(None),
            other => return Err(format!("{other:?} is not known; nothing was run\n{USAGE}")),
        }
    }
    Ok(Some(arguments))
}
