//! `mainstay replay`: decides recorded decisions again.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::BufReader;
use std::path::PathBuf;

use anyhow::Result;
use mainstay::resilience::record::{Decision, Reader};
use mainstay::resilience::{Replayed, replay};
use serde::Serialize;

use crate::output::{BadInput, Output};

/// Decides each decision of a recording again, from what it was made of. What a service recorded, it saves with
/// `Scope::save`.
#[derive(Debug, clap::Args)]
pub(crate) struct Arguments {
    /// The recording.
    recording: PathBuf,
}

/// A recording that this build decides otherwise.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
struct Otherwise(String);

#[derive(Serialize)]
struct Told {
    ok: bool,
    policy: String,
    /// Decided again, with the same verdict.
    same: u64,
    /// Of those, by rule.
    rules: BTreeMap<&'static str, u64>,
    /// Decisions that could not be recorded.
    lost: u64,
    /// What came out otherwise, the first of them.
    #[serde(skip_serializing_if = "Option::is_none")]
    first: Option<Different>,
    /// How many did.
    different: u64,
}

#[derive(Serialize)]
struct Different {
    line: u64,
    id: String,
    rule: &'static str,
    question: u8,
    /// In nanoseconds of the policy's clock.
    at_ns: u64,
    recorded: String,
    /// None: this build can't decide it.
    decided: Option<String>,
}

pub(crate) fn run(arguments: &Arguments, output: &Output) -> Result<()> {
    let name = arguments.recording.display();
    let bad = |why: &dyn std::fmt::Display| BadInput(format!("{name}: {why}"));
    let file = File::open(&arguments.recording)
        .map_err(|error| bad(&format_args!("the recording can't be read: {error}; nothing was replayed")))?;
    let mut reader = Reader::new(BufReader::new(file)).map_err(|error| bad(&error))?;
    let mut told = Told {
        ok: true,
        policy: reader.policy().to_owned(),
        same: 0,
        rules: BTreeMap::new(),
        lost: reader.lost(),
        first: None,
        different: 0,
    };
    while let Some(decision) = reader.next() {
        let decision = decision.map_err(|error| bad(&error))?;
        let decided = match replay(&decision) {
            Replayed::Same => {
                told.same += 1;
                *told.rules.entry(decision.rule.as_str()).or_default() += 1;
                continue;
            }
            Replayed::Different { verdict } => Some(verdict),
            Replayed::Unknown => None,
        };
        told.different += 1;
        told.first.get_or_insert_with(|| different(&decision, decided, reader.line_number()));
    }
    told.ok = told.first.is_none();
    let failed =
        told.first.as_ref().map(|first| Otherwise(format!("{name}:{}", otherwise(first, told.different))));
    let printed = output.print(&told, text);
    // First what was found: it fails also when nobody read the answer.
    failed.map_or(Ok(printed?), |failed| Err(failed.into()))
}

fn different(decision: &Decision, decided: Option<u64>, line: u64) -> Different {
    Different {
        line,
        id: decision.id.to_string(),
        rule: decision.rule.as_str(),
        question: decision.question,
        at_ns: decision.at,
        recorded: format!("{:x}", decision.verdict),
        decided: decided.map(|verdict| format!("{verdict:x}")),
    }
}

fn otherwise(first: &Different, different: u64) -> String {
    let Different { line, id, rule, question, at_ns, recorded, decided } = first;
    let at = std::time::Duration::from_nanos(*at_ns);
    let what = match decided {
        Some(verdict) => format!(
            "its recorded verdict is {recorded}, decided again it is {verdict}: the line was altered, or another version of \
             the rule decided it"
        ),
        None => "this build can't decide it again: another version recorded it, or of such a decision too little is kept".into(),
    };
    let rest = match different - 1 {
        0 => String::new(),
        n => format!("; {n} more came out otherwise"),
    };
    format!("{line}: decision {id} of {rule} (question {question}), taken at {at:?}: {what}{rest}")
}

fn text(told: &Told) -> String {
    let Told { policy, same, rules, lost, .. } = told;
    let rules: Vec<String> = rules.iter().map(|(rule, n)| format!("{rule} {n}")).collect();
    let rules = if rules.is_empty() { String::new() } else { format!(" ({})", rules.join(", ")) };
    let lost = if *lost == 0 { String::new() } else { format!("; {lost} could not be recorded") };
    format!("{policy}: {same} decisions decided again, bit for bit the same{rules}{lost}")
}
