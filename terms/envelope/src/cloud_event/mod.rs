//! A message's outer form: the attributes of CloudEvents 1.0, apart from the data they describe.
//!
//! [`CloudEvent`] holds only what the specification allows, so that whoever has one can write it in any of the
//! three modes: structured JSON and JSON batch ([`to_json`](CloudEvent::to_json), [`json_batch`]), and the
//! headers of HTTP's binary mode ([`to_headers`](CloudEvent::to_headers)). Reading is strict and bounded; an
//! error names the attribute. Section numbers are those of CloudEvents 1.0.2 and its bindings.

mod fact;
mod http;
mod json;
mod time;

use std::collections::BTreeMap;
use std::fmt;

pub use json::{WithData, batch_from_json, json_batch};

use crate::time::Timestamp;

/// The longest attribute, in bytes.
pub const ATTRIBUTE_BYTES_MAX: usize = 4 * 1024;

/// The most extension attributes of one event.
pub const EXTENSIONS_MAX: usize = 32;

/// The longest document of one event in JSON that is read: a megabyte of data in Base64, and all attributes.
pub const JSON_BYTES_MAX: usize = 2 << 20;

/// The longest batch that is read, in bytes.
pub const BATCH_BYTES_MAX: usize = 16 << 20;

/// The most events of one batch that are read.
pub const BATCH_EVENTS_MAX: usize = 1_000;

/// The longest name of an extension, in bytes (§3.1: "SHOULD NOT exceed 20 characters"; here it may not).
pub const EXTENSION_NAME_BYTES_MAX: usize = 20;

/// The version that is written, and the only one that is read (§3.1.1 `specversion`).
const SPEC_VERSION: &str = "1.0";

/// The media type of one event in JSON.
pub const JSON: &str = "application/cloudevents+json";

/// The media type of a batch in JSON.
pub const JSON_BATCH: &str = "application/cloudevents-batch+json";

/// The context attributes of one event; its data goes beside it.
///
/// Every value was checked when it came in: no control characters, no noncharacters, at most
/// [`ATTRIBUTE_BYTES_MAX`] bytes. A time finer than a millisecond is cut when it is read, and its zone becomes
/// UTC. An extension that came as a JSON number or boolean is kept as its canonical text (§2.2) and written as a
/// string.
///
/// ```
/// # use mainstay_envelope::cloud_event::CloudEvent;
/// let event = CloudEvent::new("17", "/shop/order", "OrderCreated")?
///     .with_data_content_type("application/json")?
///     .with_extension("partitionkey", "order-17")?;
/// let json = event.to_json(Some(br#"{"amount":3}"#));
/// let (again, data) = CloudEvent::from_json(&json)?;
/// assert_eq!((again, data.as_deref()), (event, Some(&br#"{"amount":3}"#[..])));
/// # Ok::<(), mainstay_envelope::cloud_event::CloudEventError>(())
/// ```
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct CloudEvent {
    id: String,
    source: String,
    event_type: String,
    subject: Option<String>,
    time: Option<Timestamp>,
    data_content_type: Option<String>,
    data_schema: Option<String>,
    extensions: BTreeMap<String, String>,
}

/// An attribute, or a document, that the specification does not allow.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("this CloudEvent can't be used: {subject} {problem}; nothing was done with it; its sender has to mend it",
        subject = Shown(.attribute))]
pub struct CloudEventError {
    /// Empty where the document as a whole is meant.
    attribute: String,
    problem: Problem,
}

struct Shown<'a>(&'a str);

impl fmt::Display for Shown<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.0.is_empty() {
            return f.write_str("its document");
        }
        // A hostile name is shown escaped, and not whole.
        write!(f, "the attribute {:?}", self.0.chars().take(40).collect::<String>())
    }
}

impl CloudEventError {
    fn new(attribute: &str, problem: Problem) -> Self {
        Self { attribute: attribute.chars().take(64).collect(), problem }
    }

    fn document(problem: Problem) -> Self {
        Self { attribute: String::new(), problem }
    }

    /// The attribute that is at fault; none when it is the document as a whole.
    pub fn attribute(&self) -> Option<&str> {
        Some(self.attribute.as_str()).filter(|name| !name.is_empty())
    }
}

#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
enum Problem {
    #[error("is missing")]
    Missing,
    #[error("is there more than once")]
    Twice,
    #[error("is empty")]
    Empty,
    #[error("has {0} bytes, at most {1} are allowed")]
    TooLong(usize, usize),
    #[error("has the character U+{0:04X}, which is not allowed")]
    Character(u32),
    #[error("is not {0}")]
    NotA(&'static str),
    #[error("has more than {0} {1}")]
    TooMany(usize, &'static str),
    #[error("has a name that is not allowed: 1 to 20 of a-z and 0-9")]
    Name,
    #[error("is not JSON of an event: {0}")]
    Json(String),
}

impl CloudEvent {
    /// An event with what every event has (§3.1.1): an id that is unique for its source, the source (a
    /// URI-reference), and the type.
    ///
    /// # Errors
    /// A value that is empty, too long, has a character that is not allowed, or is no URI-reference.
    pub fn new(
        id: impl Into<String>,
        source: impl Into<String>,
        event_type: impl Into<String>,
    ) -> Result<Self, CloudEventError> {
        Ok(Self {
            id: filled("id", id.into())?,
            source: uri("source", source.into(), false)?,
            event_type: filled("type", event_type.into())?,
            subject: None,
            time: None,
            data_content_type: None,
            data_schema: None,
            extensions: BTreeMap::new(),
        })
    }

    /// Says what of its source it is about (`subject`): not empty.
    ///
    /// # Errors
    /// As for [`new`](Self::new).
    pub fn with_subject(mut self, subject: impl Into<String>) -> Result<Self, CloudEventError> {
        self.subject = Some(filled("subject", subject.into())?);
        Ok(self)
    }

    /// Says when it happened (`time`).
    ///
    /// # Errors
    /// A year before 0 or after 9999: RFC 3339 can't write it.
    pub fn with_time(mut self, time: Timestamp) -> Result<Self, CloudEventError> {
        if !time::is_writable(time) {
            return Err(CloudEventError::new("time", Problem::NotA("a time in the years 0 to 9999")));
        }
        self.time = Some(time);
        Ok(self)
    }

    /// Says what the data is (`datacontenttype`): a media type of RFC 2046.
    ///
    /// # Errors
    /// What is no media type; and the media types of CloudEvents themselves, which HTTP's binary mode could not
    /// tell from a structured event.
    pub fn with_data_content_type(mut self, media_type: impl Into<String>) -> Result<Self, CloudEventError> {
        self.data_content_type = Some(media_type_of("datacontenttype", media_type.into())?);
        Ok(self)
    }

    /// Says which schema the data has (`dataschema`): an absolute URI.
    ///
    /// # Errors
    /// What is no URI with a scheme.
    pub fn with_data_schema(mut self, schema: impl Into<String>) -> Result<Self, CloudEventError> {
        self.data_schema = Some(uri("dataschema", schema.into(), true)?);
        Ok(self)
    }

    /// Adds an extension attribute, or puts another value in its place.
    ///
    /// # Errors
    /// A name that is not 1 to 20 of `a-z0-9` or that the specification has taken, a value as for
    /// [`new`](Self::new) (it may be empty), more than [`EXTENSIONS_MAX`].
    pub fn with_extension(
        mut self,
        name: impl Into<String>,
        value: impl Into<String>,
    ) -> Result<Self, CloudEventError> {
        let name = name.into();
        let lower = |c: &u8| c.is_ascii_lowercase() || c.is_ascii_digit();
        if !(1..=EXTENSION_NAME_BYTES_MAX).contains(&name.len()) || !name.as_bytes().iter().all(lower) {
            return Err(CloudEventError::new(&name, Problem::Name));
        }
        if RESERVED.contains(&name.as_str()) {
            return Err(CloudEventError::new(&name, Problem::NotA("a name for an extension: it is taken")));
        }
        let value = text(&name, value.into())?;
        self.extensions.insert(name, value);
        if self.extensions.len() > EXTENSIONS_MAX {
            return Err(CloudEventError::document(Problem::TooMany(EXTENSIONS_MAX, "extensions")));
        }
        Ok(self)
    }

    /// `id`: unique for its source.
    pub fn id(&self) -> &str {
        &self.id
    }

    /// `source`: who says it, a URI-reference.
    pub fn source(&self) -> &str {
        &self.source
    }

    /// `type`.
    pub fn event_type(&self) -> &str {
        &self.event_type
    }

    /// `subject`.
    pub fn subject(&self) -> Option<&str> {
        self.subject.as_deref()
    }

    /// `time`.
    pub fn time(&self) -> Option<Timestamp> {
        self.time
    }

    /// `datacontenttype`. None means, of data in a JSON document, `application/json`.
    pub fn data_content_type(&self) -> Option<&str> {
        self.data_content_type.as_deref()
    }

    /// `dataschema`.
    pub fn data_schema(&self) -> Option<&str> {
        self.data_schema.as_deref()
    }

    /// One extension attribute.
    pub fn extension(&self, name: &str) -> Option<&str> {
        self.extensions.get(name).map(String::as_str)
    }

    /// All extension attributes, by name.
    pub fn extensions(&self) -> &BTreeMap<String, String> {
        &self.extensions
    }

    /// Does the data, by its content type, have JSON in it (JSON format §3.1.1)?
    fn holds_json(&self) -> bool {
        let Some(media_type) = &self.data_content_type else { return true };
        let essence = media_type.split(';').next().unwrap_or_default().trim().to_ascii_lowercase();
        essence.split('/').nth(1).is_some_and(|subtype| subtype == "json" || subtype.ends_with("+json"))
    }
}

/// Names that no extension may have.
const RESERVED: [&str; 9] =
    ["specversion", "id", "source", "type", "subject", "time", "datacontenttype", "dataschema", "data"];

/// An event that is being read, attribute by attribute, in any order.
#[derive(Default)]
struct Draft {
    spec_version: Option<String>,
    id: Option<String>,
    source: Option<String>,
    event_type: Option<String>,
    subject: Option<String>,
    time: Option<Timestamp>,
    data_content_type: Option<String>,
    data_schema: Option<String>,
    extensions: Vec<(String, String)>,
}

impl Draft {
    /// Takes one attribute. The caller sees to it that none comes twice.
    fn set(&mut self, name: &str, value: String) -> Result<(), CloudEventError> {
        match name {
            "specversion" => self.spec_version = Some(value),
            "id" => self.id = Some(value),
            "source" => self.source = Some(value),
            "type" => self.event_type = Some(value),
            "subject" => self.subject = Some(value),
            "datacontenttype" => self.data_content_type = Some(value),
            "dataschema" => self.data_schema = Some(value),
            "time" => {
                let time = time::read(&value);
                let not = || CloudEventError::new(name, Problem::NotA("a date and time of RFC 3339"));
                self.time = Some(time.ok_or_else(not)?);
            }
            _ => self.extensions.push((name.to_owned(), value)),
        }
        Ok(())
    }

    fn finish(self) -> Result<CloudEvent, CloudEventError> {
        let missing = |name| CloudEventError::new(name, Problem::Missing);
        match self.spec_version.as_deref() {
            Some(SPEC_VERSION) => {}
            Some(_) => return Err(CloudEventError::new("specversion", Problem::NotA("1.0"))),
            None => return Err(missing("specversion")),
        }
        let mut event = CloudEvent::new(
            self.id.ok_or_else(|| missing("id"))?,
            self.source.ok_or_else(|| missing("source"))?,
            self.event_type.ok_or_else(|| missing("type"))?,
        )?;
        if let Some(subject) = self.subject {
            event = event.with_subject(subject)?;
        }
        if let Some(time) = self.time {
            event = event.with_time(time)?;
        }
        if let Some(media_type) = self.data_content_type {
            event = event.with_data_content_type(media_type)?;
        }
        if let Some(schema) = self.data_schema {
            event = event.with_data_schema(schema)?;
        }
        for (name, value) in self.extensions {
            event = event.with_extension(name, value)?;
        }
        Ok(event)
    }
}

/// §2.2 String: control characters and noncharacters are not allowed.
fn bad(c: char) -> bool {
    let code = u32::from(c);
    c.is_control() || (0xFDD0..=0xFDEF).contains(&code) || code & 0xFFFE == 0xFFFE
}

fn text(attribute: &str, value: String) -> Result<String, CloudEventError> {
    let refuse = |problem| Err(CloudEventError::new(attribute, problem));
    if value.len() > ATTRIBUTE_BYTES_MAX {
        return refuse(Problem::TooLong(value.len(), ATTRIBUTE_BYTES_MAX));
    }
    // Nearly all values are plain ASCII; for those the bytes tell.
    if value.bytes().all(|byte| (0x20..0x7F).contains(&byte)) {
        return Ok(value);
    }
    match value.chars().find(|c| bad(*c)) {
        Some(c) => refuse(Problem::Character(u32::from(c))),
        None => Ok(value),
    }
}

fn filled(attribute: &str, value: String) -> Result<String, CloudEventError> {
    if value.is_empty() {
        return Err(CloudEventError::new(attribute, Problem::Empty));
    }
    text(attribute, value)
}

/// RFC 3986: the characters, the percent signs, and the scheme; an authority's inner form is not looked at.
fn uri(attribute: &str, value: String, absolute: bool) -> Result<String, CloudEventError> {
    let value = filled(attribute, value)?;
    let refuse = |what| Err(CloudEventError::new(attribute, Problem::NotA(what)));
    let (mut bytes, mut fragments) = (value.bytes(), 0);
    while let Some(byte) = bytes.next() {
        match byte {
            b'%' => {
                let hex = |byte: Option<u8>| byte.is_some_and(|byte| byte.is_ascii_hexdigit());
                if !hex(bytes.next()) || !hex(bytes.next()) {
                    return refuse("a URI: a percent sign without two hexadecimal digits");
                }
            }
            b'#' => fragments += 1,
            _ if byte.is_ascii_alphanumeric() || b"-._~:/?[]@!$&'()*+,;=".contains(&byte) => {}
            _ => return refuse("a URI: it has a character that RFC 3986 does not allow"),
        }
    }
    if fragments > 1 {
        return refuse("a URI: it has two fragments");
    }
    let scheme = value.split(['/', '?', '#']).next().and_then(|first| first.split_once(':'));
    match scheme.map(|(scheme, _)| scheme) {
        Some(scheme) if is_scheme(scheme) => Ok(value),
        Some(_) => refuse("a URI: what stands before its first colon is no scheme"),
        None if absolute => refuse("an absolute URI: it has no scheme"),
        None => Ok(value),
    }
}

fn is_scheme(text: &str) -> bool {
    text.bytes().next().is_some_and(|first| first.is_ascii_alphabetic())
        && text.bytes().all(|c| c.is_ascii_alphanumeric() || b"+-.".contains(&c))
}

/// `type/subtype`, with parameters that are looked at only for their characters.
fn media_type_of(attribute: &str, value: String) -> Result<String, CloudEventError> {
    let value = filled(attribute, value)?;
    let refuse = |what| Err(CloudEventError::new(attribute, Problem::NotA(what)));
    let essence = value.split(';').next().unwrap_or_default().trim_end();
    let token = |text: &str| {
        !text.is_empty() && text.bytes().all(|c| c.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&c))
    };
    let sound = essence.split_once('/').is_some_and(|(kind, subtype)| token(kind) && token(subtype));
    // A blank at an end would be lost in a header.
    if !sound || !value.bytes().all(|c| (0x20..0x7F).contains(&c)) || value.trim() != value {
        return refuse("a media type of RFC 2046");
    }
    if essence.to_ascii_lowercase().starts_with("application/cloudevents") {
        return refuse("a media type of data: it is one of CloudEvents itself");
    }
    Ok(value)
}
