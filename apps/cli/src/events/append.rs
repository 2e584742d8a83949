//! `mainstay events append`.

use std::io::BufRead;

use anyhow::{Context as _, Result};
use mainstay::Context;
use mainstay::store::{
    Act, Appended, EventType, Expected, NewEvent, Payload, Receipt, Store, StreamName, Tag, Version,
};
use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;
use uuid::Uuid;

use super::Where;
use crate::output::{BadInput, NotWritten, Output};
use crate::place::{Durability, Opened, on_store};

/// Appends one event from the arguments, or, with --lines, one act for each line of standard input:
/// {"stream":"account-7","type":"DepositMade","payload":{"amount":100},"tags":["customer:alice"],"id":"…","expected":3}
///
/// The file, or the schema, is made when it is not there. Run again with the same ids, an append is acknowledged again and
/// not doubled.
#[derive(Debug, clap::Args)]
pub(crate) struct Arguments {
    #[command(flatten)]
    place: Where,
    /// Read acts from standard input, one JSON object a line.
    #[arg(long, conflicts_with_all = ["stream", "event_type", "data", "tags", "id", "expected"])]
    lines: bool,
    /// The stream.
    #[arg(long, required_unless_present = "lines")]
    stream: Option<StreamName>,
    /// The event's type.
    #[arg(long = "type", value_name = "TYPE", required_unless_present = "lines")]
    event_type: Option<EventType>,
    /// The payload, JSON.
    #[arg(long, default_value = "{}")]
    data: String,
    /// A tag; several are allowed.
    #[arg(long = "tag", value_name = "TAG")]
    tags: Vec<Tag>,
    /// The event's id, a UUID; default: a new one.
    #[arg(long)]
    id: Option<Uuid>,
    /// The stream's version before: a number, `any`, `empty` or `exists`.
    #[arg(long, default_value = "any", value_parser = expected)]
    expected: Expected,
    /// Of a server that may lose what it has acknowledged when the power fails (`mainstay probe durability`).
    #[arg(long, value_name = "WHAT", default_value = "refuse")]
    durability: Durability,
}

fn expected(text: &str) -> Result<Expected, String> {
    match text {
        "any" => Ok(Expected::Any),
        "empty" => Ok(Expected::Empty),
        "exists" => Ok(Expected::Exists),
        number => match number.parse() {
            Ok(version) => Ok(Expected::Exactly(Version(version))),
            Err(_) => Err("give a version number, any, empty or exists".into()),
        },
    }
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Line<'a> {
    stream: StreamName,
    #[serde(rename = "type")]
    event_type: EventType,
    #[serde(borrow)]
    payload: Option<&'a RawValue>,
    #[serde(default)]
    tags: Vec<Tag>,
    id: Option<Uuid>,
    expected: Option<ExpectedJson>,
}

const KEYS: [&str; 6] = ["stream", "type", "payload", "tags", "id", "expected"];

#[derive(Deserialize)]
#[serde(untagged)]
enum ExpectedJson {
    Version(u64),
    Word(String),
}

#[derive(Serialize)]
struct Done<'a> {
    stream: &'a str,
    version: u64,
    receipt: String,
    id: Uuid,
    repeated: bool,
}

pub(crate) async fn run(arguments: Arguments, output: &Output) -> Result<()> {
    if arguments.lines {
        return lines(&arguments, output).await;
    }
    let (Some(stream), Some(event_type)) = (arguments.stream, arguments.event_type) else {
        return Err(BadInput("--stream and --type are needed; nothing was appended".into()).into());
    };
    let payload: &RawValue = serde_json::from_str(&arguments.data)
        .map_err(|error| BadInput(format!("--data is not JSON: {error}; nothing was appended")))?;
    let cx = Context::system();
    let id = arguments.id.unwrap_or_else(|| cx.new_id());
    let mut event = NewEvent::new(id, event_type, Payload::plain(payload.get().as_bytes()));
    event.tags = arguments.tags;
    let store = arguments.place.store.place()?.open(arguments.durability).await?;
    let act = Act::append(stream, arguments.expected, vec![event]);
    let done = on_store!(&store, |store| store.append(&cx, act).await)?;
    store.placed(&done.receipt, output).await;
    store.close().await;
    tell(&done, id, output).with_context(|| format!("event {id} was appended"))
}

fn tell(done: &Appended, id: Uuid, output: &Output) -> Result<(), NotWritten> {
    for (stream, version) in &done.versions {
        let done = Done {
            stream: stream.as_str(),
            version: version.0,
            receipt: done.receipt.to_string(),
            id,
            repeated: done.repeated,
        };
        output.print(&done, |done| {
            let again = if done.repeated { " (recorded before, nothing was written)" } else { "" };
            format!("{}@{} {}{again}", done.stream, done.version, done.id)
        })?;
    }
    Ok(())
}

/// A line longer than this holds no event that a store would take.
const LINE_BYTES_MAX: usize = 8 << 20;

async fn lines(arguments: &Arguments, output: &Output) -> Result<()> {
    let store = arguments.place.store.place()?.open(arguments.durability).await?;
    let mut last = None;
    let ended = append_lines(&store, &mut last, output).await;
    // Also of the lines before a bad one.
    if let Some(receipt) = last {
        store.placed(&receipt, output).await;
    }
    store.close().await;
    ended
}

async fn append_lines(store: &Opened, last: &mut Option<Receipt>, output: &Output) -> Result<()> {
    let cx = Context::system();
    let mut input = std::io::stdin().lock();
    let mut line = Vec::new();
    for number in 1u64.. {
        line.clear();
        let limit = LINE_BYTES_MAX as u64 + 1;
        let read = std::io::Read::take(&mut input, limit)
            .read_until(b'\n', &mut line)
            .context("standard input could not be read")?;
        if read == 0 {
            break;
        }
        let before =
            || format!("line {number}: nothing of it was appended; the {} lines before it were", number - 1);
        if line.len() > LINE_BYTES_MAX {
            return Err(BadInput(format!("it is longer than {LINE_BYTES_MAX} bytes"))).with_context(before);
        }
        if line.iter().all(u8::is_ascii_whitespace) {
            continue;
        }
        let (act, id) = parse(&line, &cx).map_err(BadInput).with_context(before)?;
        let done = on_store!(store, |store| store.append(&cx, act).await).with_context(before)?;
        *last = Some(done.receipt);
        tell(&done, id, output).with_context(|| {
            format!("line {number} and those before it were appended; nothing behind it was looked at")
        })?;
    }
    Ok(())
}

fn parse(line: &[u8], cx: &Context) -> Result<(Act, Uuid), String> {
    let line: Line<'_> = serde_json::from_slice(line).map_err(|error| explain(&error.to_string()))?;
    let expected = match line.expected {
        None => Expected::Any,
        Some(ExpectedJson::Version(version)) => Expected::Exactly(Version(version)),
        Some(ExpectedJson::Word(word)) => expected(&word)?,
    };
    let id = line.id.unwrap_or_else(|| cx.new_id());
    let payload = line.payload.map_or("{}", RawValue::get);
    let mut event = NewEvent::new(id, line.event_type, Payload::plain(payload.as_bytes()));
    event.tags = line.tags;
    Ok((Act::append(line.stream, expected, vec![event]), id))
}

/// Adds the nearest key to an error about an unknown one.
fn explain(error: &str) -> String {
    let unknown = error.strip_prefix("unknown field `").and_then(|rest| rest.split('`').next());
    match unknown.and_then(nearest) {
        Some(key) => format!("{error}; did you mean `{key}`?"),
        None => error.to_owned(),
    }
}

/// The key with the fewest edits between it and the text (Levenshtein, 1966), if they are few.
fn nearest(text: &str) -> Option<&'static str> {
    let distance = |key: &str| {
        let (text, key): (Vec<char>, Vec<char>) = (text.chars().take(40).collect(), key.chars().collect());
        let mut row: Vec<usize> = (0..=key.len()).collect();
        for (i, a) in text.iter().enumerate() {
            let mut corner = row[0];
            row[0] = i + 1;
            for (j, b) in key.iter().enumerate() {
                let cost = corner + usize::from(a != b);
                corner = row[j + 1];
                row[j + 1] = cost.min(row[j] + 1).min(corner + 1);
            }
        }
        row[key.len()]
    };
    KEYS.into_iter()
        .map(|key| (distance(key), key))
        .filter(|(edits, key)| *edits <= key.len().div_ceil(2))
        .min()
        .map(|(_, key)| key)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_unknown_key_is_answered_with_the_nearest() {
        let cx = Context::system();
        let error = parse(br#"{"steam":"a","type":"T"}"#, &cx).unwrap_err();
        assert!(error.contains("did you mean `stream`?") && error.contains("line 1 column"), "{error}");
        let error = parse(br#"{"stream":"a","type":"T","zzzzzzzzzzz":1}"#, &cx).unwrap_err();
        assert!(!error.contains("did you mean"), "{error}");
    }

    #[test]
    fn a_line_becomes_an_act() {
        let cx = Context::system();
        let line = br#"{"stream":"a","type":"T","payload":{"n":1},"tags":["x"],"expected":"empty"}"#;
        let (act, _) = parse(line, &cx).unwrap();
        assert_eq!(act.streams[0].expected, Expected::Empty);
        assert_eq!(&*act.streams[0].events[0].payload.bytes, br#"{"n":1}"#);
        assert!(parse(br#"{"stream":"","type":"T"}"#, &cx).is_err(), "an empty name");
        assert!(parse(br#"{"stream":"a","type":"T","expected":"nonsense"}"#, &cx).is_err());
        assert!(parse(br#"{"stream":"a","type":"T","expected":-1}"#, &cx).is_err());
    }
}
