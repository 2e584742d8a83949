//! HTTP's binary mode: attributes as header fields, the data as the body (HTTP binding §3.1).

use std::borrow::Cow;

use super::draft::Draft;
use super::error::{CloudEventError, Problem};
use super::{ATTRIBUTE_BYTES_MAX, CloudEvent, SPEC_VERSION, time};

/// What the names of the fields begin with.
const PREFIX: &str = "ce-";

const CONTENT_TYPE: &str = "content-type";

impl CloudEvent {
    /// The header fields, names in lower case; the data is the body as it is.
    pub fn to_headers(&self) -> Vec<(String, String)> {
        let mut fields = Vec::with_capacity(8 + self.extensions.len());
        let mut put = |name: &str, value: &str| fields.push((format!("{PREFIX}{name}"), escape(value)));
        put("specversion", SPEC_VERSION);
        put("id", &self.id);
        put("source", &self.source);
        put("type", &self.event_type);
        if let Some(subject) = &self.subject {
            put("subject", subject);
        }
        if let Some(at) = self.time {
            put("time", &time::write(at));
        }
        if let Some(schema) = &self.data_schema {
            put("dataschema", schema);
        }
        for (name, value) in &self.extensions {
            put(name, value);
        }
        if let Some(media_type) = &self.data_content_type {
            fields.push((CONTENT_TYPE.to_owned(), media_type.clone()));
        }
        fields
    }

    /// Reads the attributes from the fields of a request or an answer; those of others are passed over.
    ///
    /// # Errors
    /// A field of ours that is there twice or is not encoded as the binding says, an attribute that [`CloudEvent`]
    /// does not allow, and a content type of structured mode: then the event is in the body.
    pub fn from_headers<N: AsRef<str>, V: AsRef<[u8]>>(
        headers: impl IntoIterator<Item = (N, V)>,
    ) -> Result<Self, CloudEventError> {
        let (mut draft, mut seen) = (Draft::default(), Vec::<String>::new());
        for (name, value) in headers {
            let (name, value) = (name.as_ref(), value.as_ref());
            let prefix = name.get(..PREFIX.len()).filter(|prefix| prefix.eq_ignore_ascii_case(PREFIX));
            let attribute = if prefix.is_some() {
                name[PREFIX.len()..].to_ascii_lowercase()
            } else if name.eq_ignore_ascii_case(CONTENT_TYPE) {
                "datacontenttype".to_owned()
            } else {
                continue;
            };
            let refuse = |problem| Err(CloudEventError::new(&attribute, problem));
            if prefix.is_some() && attribute == "datacontenttype" {
                return refuse(Problem::NotA("a field of its own: the content type is Content-Type"));
            }
            if seen.contains(&attribute) {
                return refuse(Problem::Twice);
            }
            // Escaped, every byte may be three.
            if value.len() > 3 * ATTRIBUTE_BYTES_MAX {
                return refuse(Problem::TooLong(value.len(), 3 * ATTRIBUTE_BYTES_MAX));
            }
            let value = match (prefix, std::str::from_utf8(value.trim_ascii())) {
                (None, Ok(media_type)) => media_type.to_owned(),
                (Some(_), Ok(value)) if value.bytes().all(|byte| (0x20..0x7F).contains(&byte)) => {
                    match unescape(value) {
                        Some(value) => value,
                        None => return refuse(Problem::NotA("percent-encoded UTF-8")),
                    }
                }
                _ => return refuse(Problem::NotA("printable ASCII")),
            };
            draft.set(&attribute, value)?;
            seen.push(attribute);
            // Not yet judged: the names of others may begin alike, but not so many of them.
            if seen.len() > super::EXTENSIONS_MAX + 8 {
                return Err(CloudEventError::document(Problem::TooMany(super::EXTENSIONS_MAX, "extensions")));
            }
        }
        draft.finish()
    }
}

/// §3.1.3.2: space, double quote, percent and all but printable ASCII are percent-encoded.
fn escape(value: &str) -> String {
    let mut text = String::with_capacity(value.len());
    for byte in value.bytes() {
        if (0x21..0x7F).contains(&byte) && byte != b'"' && byte != b'%' {
            text.push(char::from(byte));
        } else {
            let hex = |digit: u8| char::from(b"0123456789ABCDEF"[usize::from(digit & 15)]);
            text.extend(['%', hex(byte >> 4), hex(byte)]);
        }
    }
    text
}

/// The reverse; a quoted string, as older senders have it, is unquoted first.
fn unescape(value: &str) -> Option<String> {
    let value = match value.strip_prefix('"') {
        Some(quoted) => Cow::Owned(unquote(quoted)?),
        None => Cow::Borrowed(value),
    };
    let (mut bytes, mut text) = (value.bytes(), Vec::with_capacity(value.len()));
    while let Some(byte) = bytes.next() {
        let byte = if byte == b'%' {
            let digit = |byte: Option<u8>| char::from(byte?).to_digit(16);
            let (high, low) = (digit(bytes.next())?, digit(bytes.next())?);
            u8::try_from(high << 4 | low).ok()?
        } else {
            byte
        };
        text.push(byte);
    }
    String::from_utf8(text).ok()
}

/// What stands after the opening quote, to the closing one, which must be the last character.
fn unquote(text: &str) -> Option<String> {
    let (mut chars, mut plain) = (text.chars(), String::with_capacity(text.len()));
    loop {
        match chars.next()? {
            '"' => return chars.next().is_none().then_some(plain),
            '\\' => plain.push(chars.next()?),
            c => plain.push(c),
        }
    }
}
