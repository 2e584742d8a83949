//! What the specification allows an attribute to be.

use super::ATTRIBUTE_BYTES_MAX;
use super::error::{CloudEventError, Problem};

/// §2.2 String: control characters and noncharacters are not allowed.
pub(super) fn bad(c: char) -> bool {
    let code = u32::from(c);
    c.is_control() || (0xFDD0..=0xFDEF).contains(&code) || code & 0xFFFE == 0xFFFE
}

/// A text of allowed characters, not too long.
pub(super) fn text(attribute: &str, value: String) -> Result<String, CloudEventError> {
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

/// As [`text`], and not empty.
pub(super) fn filled(attribute: &str, value: String) -> Result<String, CloudEventError> {
    if value.is_empty() {
        return Err(CloudEventError::new(attribute, Problem::Empty));
    }
    text(attribute, value)
}

/// RFC 3986: the characters, the percent signs, and the scheme; an authority's inner form is not looked at.
pub(super) fn uri(attribute: &str, value: String, absolute: bool) -> Result<String, CloudEventError> {
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
pub(super) fn media_type(attribute: &str, value: String) -> Result<String, CloudEventError> {
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
