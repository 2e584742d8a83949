//! `mainstay policy show`.

use std::path::PathBuf;

use anyhow::Result;
use mainstay::fleet::{Document, Policy, Value};
use serde::Serialize;
use serde_json::{Map, Value as Json};

use crate::output::{BadInput, Output};

/// Shows what a policy comes to: every setting that it goes by, in the order in which a call meets the rules.
#[derive(Debug, clap::Args)]
pub(crate) struct Arguments {
    /// The document, such as mainstay.toml.
    file: PathBuf,
    /// The policy's name.
    name: String,
}

#[derive(Serialize)]
struct Shown {
    name: String,
    direction: &'static str,
    /// The outermost rule first.
    stack: Vec<Worn>,
    /// The same as a document has it, with all defaults.
    settings: Json,
}

/// A rule in its place.
#[derive(Serialize)]
struct Worn {
    place: &'static str,
    settings: Vec<Setting>,
}

#[derive(Serialize)]
struct Setting {
    key: String,
    value: Json,
    /// Whether the document left it out.
    default: bool,
    #[serde(skip)]
    text: String,
}

pub(crate) fn run(arguments: &Arguments, output: &Output) -> Result<()> {
    let document = super::read(&arguments.file)?.map_err(|mistakes| BadInput(mistakes.to_string()))?;
    let Some(policy) = document.policy(&arguments.name) else {
        return Err(BadInput(missing(arguments, &document)).into());
    };
    let settings = policy.settings();
    let shown = Shown {
        name: policy.name().to_owned(),
        direction: policy.direction(),
        stack: stack(&document, policy, &settings),
        settings: table(&settings),
    };
    Ok(output.print(&shown, text)?)
}

fn missing(arguments: &Arguments, document: &Document) -> String {
    let Arguments { file, name } = arguments;
    let there: Vec<String> = document.policies().map(|policy| format!("{:?}", policy.name())).collect();
    let there = if there.is_empty() { "none".to_owned() } else { there.join(", ") };
    format!("{}: there is no policy {name:?}; there is {there}; nothing was shown", file.display())
}

/// The places in which there is something.
fn stack(document: &Document, policy: &Policy, settings: &[(&'static str, Value)]) -> Vec<Worn> {
    let mut stack = Vec::new();
    for place in policy.places() {
        let mut found = Vec::new();
        for path in place.settings {
            if let Some(value) = at(settings, path) {
                let key = path.rsplit('.').next().unwrap_or(path);
                collect(&mut found, key, path, value, &|path| document.is_given(policy.name(), path));
            }
        }
        if !found.is_empty() {
            stack.push(Worn { place: place.name, settings: found });
        }
    }
    stack
}

fn at<'a>(settings: &'a [(&'static str, Value)], path: &str) -> Option<&'a Value> {
    let (key, rest) = path.split_once('.').unwrap_or((path, ""));
    let value = settings.iter().find(|(name, _)| *name == key).map(|(_, value)| value)?;
    match value {
        Value::Table(inner) if !rest.is_empty() => at(inner, rest),
        value => rest.is_empty().then_some(value),
    }
}

/// A section's settings one by one, anything else as itself.
fn collect(found: &mut Vec<Setting>, key: &str, path: &str, value: &Value, is_given: &impl Fn(&str) -> bool) {
    let Value::Table(inner) = value else {
        let (text, value) = (value.to_string(), json(value));
        return found.push(Setting { key: key.to_owned(), value, default: !is_given(path), text });
    };
    for (name, value) in inner {
        let path = format!("{path}.{name}");
        // Of a section in a section, its name as well.
        let key = if matches!(value, Value::Table(_)) { name.to_string() } else { within(key, name, &path) };
        collect(found, &key, &path, value, is_given);
    }
}

fn within(section: &str, name: &str, path: &str) -> String {
    if path.matches('.').count() > 1 { format!("{section}.{name}") } else { name.to_owned() }
}

fn table(settings: &[(&'static str, Value)]) -> Json {
    Json::Object(settings.iter().map(|(key, value)| ((*key).to_owned(), json(value))).collect::<Map<_, _>>())
}

fn json(value: &Value) -> Json {
    match value {
        Value::Text(text) => Json::from(text.as_str()),
        Value::Whole(number) => Json::from(*number),
        Value::Number(number) => Json::from(*number),
        Value::Flag(flag) => Json::from(*flag),
        Value::List(texts) => Json::from(texts.as_slice()),
        Value::Table(settings) => table(settings),
    }
}

/// The stack as a drawing, outside in.
fn text(shown: &Shown) -> String {
    let Shown { name, direction, stack, .. } = shown;
    let (from, to) = if *direction == "outbound" { ("call", name.as_str()) } else { ("request", "handler") };
    let mut lines = vec![format!("{name}, {direction}, outside in"), String::new(), format!("  {from}")];
    let settings = || stack.iter().flat_map(|worn| &worn.settings);
    let widest =
        settings().map(|setting| setting.key.len() + 3 + setting.text.chars().count()).max().unwrap_or(0);
    for Worn { place, settings } in stack {
        lines.push("   │".to_owned());
        lines.push(format!("   ├─ {place}"));
        for Setting { key, default, text, .. } in settings {
            let line = format!("{key} = {text}");
            let line = if *default { format!("{line:widest$}  default") } else { line };
            lines.push(format!("   │    {line}"));
        }
    }
    if stack.is_empty() {
        lines.push("   │  no rules: everything passes".to_owned());
    }
    lines.extend(["   ▼".to_owned(), format!("  {to}")]);
    lines.join("\n")
}
