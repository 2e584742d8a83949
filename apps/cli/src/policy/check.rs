//! `mainstay policy check`.

use std::path::PathBuf;

use anyhow::Result;
use mainstay::fleet::{Document, Mistakes, Policy};
use serde::Serialize;

use crate::output::{BadInput, Output};

/// Checks all that a document says: each setting by itself, and together. Nothing is run and nobody is asked.
#[derive(Debug, clap::Args)]
pub(crate) struct Arguments {
    /// The document, such as mainstay.toml.
    file: PathBuf,
}

#[derive(Serialize)]
struct Checked {
    ok: bool,
    file: String,
    policies: Vec<Found>,
    mistakes: Vec<Mistake>,
    /// Mistakes beyond those.
    untold: usize,
}

#[derive(Serialize)]
struct Found {
    name: String,
    direction: &'static str,
    rules: Vec<&'static str>,
}

#[derive(Serialize)]
struct Mistake {
    line: usize,
    column: usize,
    key: String,
    what: String,
}

pub(crate) fn run(arguments: &Arguments, output: &Output) -> Result<()> {
    let file = arguments.file.display().to_string();
    match super::read(&arguments.file)? {
        Ok(document) => Ok(output.print(&right(file, &document), text)?),
        Err(mistakes) => {
            // The list for programs; people find it in the error. It fails also when nobody read the list.
            if output.json {
                let _ = output.print(&wrong(file, &mistakes), |_| String::new());
            }
            Err(BadInput(mistakes.to_string()).into())
        }
    }
}

fn right(file: String, document: &Document) -> Checked {
    let rules = |policy: &Policy| {
        let settings = policy.settings();
        settings.into_iter().map(|(key, _)| key).filter(|key| *key != "direction").collect()
    };
    let policies = document.policies().map(|policy| Found {
        name: policy.name().to_owned(),
        direction: policy.direction(),
        rules: rules(policy),
    });
    Checked { ok: true, file, policies: policies.collect(), mistakes: Vec::new(), untold: 0 }
}

fn wrong(file: String, mistakes: &Mistakes) -> Checked {
    let told = mistakes.told().iter().map(|mistake| Mistake {
        line: mistake.line,
        column: mistake.column,
        key: mistake.key.clone(),
        what: mistake.what.clone(),
    });
    Checked { ok: false, file, policies: Vec::new(), mistakes: told.collect(), untold: mistakes.untold() }
}

fn text(checked: &Checked) -> String {
    let Checked { file, policies, .. } = checked;
    let mut text = match policies.len() {
        0 => format!("{file}: nothing is wrong, and there is no policy in it"),
        1 => format!("{file}: one policy, and nothing wrong"),
        n => format!("{file}: {n} policies, and nothing wrong"),
    };
    let widest = policies.iter().map(|policy| policy.name.chars().count()).max().unwrap_or(0);
    for Found { name, direction, rules } in policies {
        let rules = if rules.is_empty() { "no rules".to_owned() } else { rules.join(", ") };
        text.push_str(&format!("\n  {name:widest$}  {direction:8}  {rules}"));
    }
    text
}
