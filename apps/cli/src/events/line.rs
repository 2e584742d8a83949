//! An event as a line: for people, or as JSON.

use mainstay::envelope::Timestamp;
use mainstay::store::{Position, Recorded};
use serde::Serialize;
use serde_json::value::RawValue;

/// An event in JSON. The payload is given as JSON when it is JSON, else in hexadecimal.
#[derive(Serialize)]
struct Line<'a> {
    /// None while it waits for its place in the feed; its hash is made there.
    position: Option<u64>,
    stream: &'a str,
    version: u64,
    id: uuid::Uuid,
    #[serde(rename = "type")]
    event_type: &'a str,
    schema: u32,
    at: String,
    tags: Vec<&'a str>,
    envelope: Option<&'a RawValue>,
    #[serde(skip_serializing_if = "Option::is_none")]
    key: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    payload: Option<&'a RawValue>,
    #[serde(skip_serializing_if = "Option::is_none")]
    payload_hex: Option<String>,
    hash: Option<String>,
}

/// The bytes as JSON on one line: raw JSON may hold line breaks, which would split the line.
fn one_line_json(bytes: &[u8]) -> Option<&RawValue> {
    serde_json::from_slice::<&RawValue>(bytes).ok().filter(|raw| !raw.get().contains(['\n', '\r']))
}

/// A stream shows an event as soon as it is committed; a store with many writers gives places a moment later.
fn has_place(event: &Recorded) -> bool {
    event.position != Position::START
}

pub(crate) fn json(event: &Recorded) -> serde_json::Result<String> {
    let bytes = &event.payload.bytes;
    let payload = if event.payload.key.is_none() { one_line_json(bytes) } else { None };
    serde_json::to_string(&Line {
        position: has_place(event).then_some(event.position.0),
        stream: event.stream.as_str(),
        version: event.version.0,
        id: event.id,
        event_type: event.event_type.as_str(),
        schema: event.schema,
        at: time(event.at),
        tags: event.tags.iter().collect(),
        envelope: one_line_json(&event.envelope),
        key: event.payload.key.as_ref().map(|key| key.as_str()),
        payload_hex: payload.is_none().then(|| hex(bytes)),
        payload,
        hash: has_place(event).then(|| event.hash.to_string()),
    })
}

pub(crate) fn human(event: &Recorded) -> String {
    let payload = match (&event.payload.key, std::str::from_utf8(&event.payload.bytes)) {
        (Some(key), _) => format!("({} bytes sealed with {key})", event.payload.bytes.len()),
        // What is stored must not be able to steer the reader's terminal.
        (None, Ok(text)) if !text.chars().any(char::is_control) => text.to_owned(),
        (None, _) => format!("({} bytes)", event.payload.bytes.len()),
    };
    let tags: String = event.tags.iter().map(|tag| format!(" #{tag}")).collect();
    format!(
        "{:>8}  {}  {}@{}  {}  {payload}{tags}",
        if has_place(event) { event.position.to_string() } else { "-".to_owned() },
        time(event.at),
        event.stream,
        event.version,
        event.event_type,
    )
}

/// RFC 3339 in UTC; the bare number for a time outside the calendar.
pub(crate) fn time(at: Timestamp) -> String {
    jiff::Timestamp::from_millisecond(at.as_millis())
        .map_or_else(|_| format!("{} ms", at.as_millis()), |at| format!("{at:.3}"))
}

fn hex(bytes: &[u8]) -> String {
    use std::fmt::Write;
    bytes.iter().fold(String::with_capacity(bytes.len() * 2), |mut text, byte| {
        let _ = write!(text, "{byte:02x}");
        text
    })
}
