//! `mainstay saga graph`.

use std::path::PathBuf;

use anyhow::{Context as _, Result};
use mainstay::flow::saga::{Finding, Graph};
use serde::Serialize;

use crate::output::{BadInput, Output};

/// Draws what the shop's services declare. It fails on an event that nobody publishes or consumes, a failure that
/// nobody handles, and a cycle without an end.
#[derive(Debug, clap::Args)]
pub(crate) struct Arguments {
    /// Write it as a drawing (SVG) to this file too; `-`: to standard output, instead of the text, and not with --json.
    #[arg(long, value_name = "FILE")]
    svg: Option<PathBuf>,
}

/// What is wrong with a choreography.
#[derive(Debug, thiserror::Error)]
#[error("the declared choreography does not hold together:\n{}", .0.join("\n"))]
struct Unsound(Vec<String>);

#[derive(Serialize)]
struct Drawn {
    ok: bool,
    text: String,
    findings: Vec<String>,
}

pub(crate) fn run(arguments: &Arguments, output: &Output) -> Result<()> {
    draw(&Graph::of(&mainstay_shop::participants()), arguments, output)
}

fn draw(graph: &Graph, arguments: &Arguments, output: &Output) -> Result<()> {
    let findings: Vec<String> = graph.check().iter().map(Finding::to_string).collect();
    let on_stdout = arguments.svg.as_deref().is_some_and(|path| path.as_os_str() == "-");
    if on_stdout && output.json {
        let why = "--svg - writes a drawing to standard output, where --json promises objects; nothing was drawn; \
                   give --svg a file, or leave --json away";
        return Err(BadInput(why.to_owned()).into());
    }
    if let Some(path) = arguments.svg.as_deref().filter(|_| !on_stdout) {
        std::fs::write(path, graph.svg().to_string())
            .with_context(|| format!("{}: the drawing can't be written", path.display()))?;
    }
    let told = if on_stdout {
        output.line(graph.svg().to_string().trim_end())
    } else {
        let drawn =
            Drawn { ok: findings.is_empty(), text: graph.text().to_string(), findings: findings.clone() };
        output.print(&drawn, |drawn| drawn.text.trim_end().to_owned())
    };
    // First what was found: it fails also when nobody read the drawing.
    if findings.is_empty() { Ok(told?) } else { Err(Unsound(findings).into()) }
}

#[cfg(test)]
mod tests {
    use mainstay::flow::saga::Participant;

    use super::*;

    #[test]
    fn what_does_not_hold_together_fails_and_the_shop_does_hold() {
        let folder = tempfile::tempdir().unwrap();
        let svg = folder.path().join("g.svg");
        let arguments = Arguments { svg: Some(svg.clone()) };
        let output = Output { json: false };
        run(&arguments, &output).unwrap();
        assert!(std::fs::read_to_string(&svg).unwrap().contains("<svg"));

        let order = Participant::new("order").starts("OrderCreated");
        let error = draw(&Graph::of(&[order]), &arguments, &output).unwrap_err().to_string();
        assert!(error.contains("OrderCreated"), "{error}");
    }
}
