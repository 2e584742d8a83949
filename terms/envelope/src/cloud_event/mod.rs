//! A message's outer form: the attributes of CloudEvents 1.0, apart from the data they describe.
//!
//! [`CloudEvent`] holds only what the specification allows, so that whoever has one can write it in any of the
//! three modes: structured JSON and JSON batch ([`to_json`](CloudEvent::to_json), [`json_batch`]), and the
//! headers of HTTP's binary mode ([`to_headers`](CloudEvent::to_headers)). Reading is strict and bounded; an
//! error names the attribute. Section numbers are those of CloudEvents 1.0.2 and its bindings.

mod check;
mod draft;
mod error;
mod fact;
mod http;
mod json;
mod time;

use std::collections::BTreeMap;

pub use error::CloudEventError;
pub use json::{WithData, batch_from_json, json_batch};

use crate::time::Timestamp;
use check::{filled, media_type, text, uri};
use error::Problem;

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
    pub fn with_data_content_type(mut self, given: impl Into<String>) -> Result<Self, CloudEventError> {
        self.data_content_type = Some(media_type("datacontenttype", given.into())?);
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
