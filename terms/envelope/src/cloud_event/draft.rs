//! An event that is being read.

use super::error::{CloudEventError, Problem};
use super::{CloudEvent, SPEC_VERSION, time};
use crate::time::Timestamp;

/// Attribute by attribute, in any order.
#[derive(Default)]
pub(super) struct Draft {
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
    pub(super) fn set(&mut self, name: &str, value: String) -> Result<(), CloudEventError> {
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

    /// The event, if it has all it must have and nothing it must not.
    pub(super) fn finish(self) -> Result<CloudEvent, CloudEventError> {
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
