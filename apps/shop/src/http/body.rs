//! From a request's body to a checked value; every way in which it can be wrong has its own answer.

use std::time::Duration;

use axum::body::Body;
use axum::http::{HeaderMap, header};
use bytes::Bytes;
use http_body_util::{BodyExt, LengthLimitError, Limited};
use serde::de::DeserializeOwned;
use serde_json::error::Category;

use super::limits::{BODY_BYTES_MAX, JSON_DEPTH_MAX};
use super::objects::Objects;
use super::problem::{Fault, Problem};

/// Reads a body of JSON and checks its shape.
///
/// # Errors
/// 415 without a JSON media type, 413 too large, 408 too slow, 400 no UTF-8, no JSON or too deep, 422 another shape.
pub async fn json<T: DeserializeOwned>(
    headers: &HeaderMap,
    body: Body,
    at_most: Duration,
) -> Result<T, Problem> {
    check_media_type(headers)?;
    parse(&read(headers, body, at_most).await?)
}

fn check_media_type(headers: &HeaderMap) -> Result<(), Problem> {
    let refuse = |what: &str| {
        Err(Problem::new(
            Fault::UnsupportedMediaType,
            format!("{what}; nothing was done; send Content-Type: application/json"),
        ))
    };
    let Some(value) = headers.get(header::CONTENT_TYPE) else {
        return refuse("the request does not say what its body is");
    };
    let media = value.to_str().unwrap_or_default();
    let essence = media.split(';').next().unwrap_or_default().trim();
    if !essence.eq_ignore_ascii_case("application/json") {
        return refuse("the body is not declared as JSON");
    }
    if headers.contains_key(header::CONTENT_ENCODING) {
        return refuse("the body is compressed, which is not understood here");
    }
    Ok(())
}

async fn read(headers: &HeaderMap, body: Body, at_most: Duration) -> Result<Bytes, Problem> {
    let too_large = || {
        Problem::new(
            Fault::TooLarge,
            format!("the body has more than {BODY_BYTES_MAX} bytes; nothing was done; send less"),
        )
    };
    // A length that is announced is refused before a byte of it is read.
    let announced =
        headers.get(header::CONTENT_LENGTH).and_then(|value| value.to_str().ok()?.parse::<u64>().ok());
    if announced.is_some_and(|length| length > BODY_BYTES_MAX as u64) {
        return Err(too_large());
    }
    let collect = Limited::new(body, BODY_BYTES_MAX).collect();
    match tokio::time::timeout(at_most, collect).await {
        Ok(Ok(collected)) => Ok(collected.to_bytes()),
        Ok(Err(error)) if error.is::<LengthLimitError>() => Err(too_large()),
        Ok(Err(_)) => Err(Problem::new(
            Fault::MalformedJson,
            "the body ended before its announced end; nothing was done",
        )),
        Err(_) => Err(Problem::new(
            Fault::SlowBody,
            format!(
                "the body had not arrived after {} s; nothing was done; send it again",
                at_most.as_secs_f32()
            ),
        )),
    }
}

fn parse<T: DeserializeOwned>(bytes: &[u8]) -> Result<T, Problem> {
    let text = std::str::from_utf8(bytes).map_err(|error| {
        let at = error.valid_up_to();
        Problem::new(
            Fault::MalformedJson,
            format!("the body is not UTF-8 from byte {at} on; nothing was done"),
        )
    })?;
    if is_deeper(bytes, JSON_DEPTH_MAX) {
        return Err(Problem::new(
            Fault::TooDeep,
            format!("more than {JSON_DEPTH_MAX} arrays and objects inside each other; nothing was done"),
        ));
    }
    objects(text).map_err(|error| {
        let fault = match error.classify() {
            Category::Data => Fault::Invalid,
            Category::Syntax | Category::Eof | Category::Io => Fault::MalformedJson,
        };
        Problem::new(fault, format!("{error}; nothing was done"))
    })
}

/// The whole text as one value, every struct of which is an object.
fn objects<T: DeserializeOwned>(text: &str) -> serde_json::Result<T> {
    let mut json = serde_json::Deserializer::from_str(text);
    let value = T::deserialize(Objects(&mut json))?;
    json.end()?;
    Ok(value)
}

/// Are arrays and objects nested deeper than `most`? Looks at brackets outside strings only, so it needs no
/// memory and no recursion whatever comes.
fn is_deeper(bytes: &[u8], most: usize) -> bool {
    let (mut depth, mut in_string, mut escaped) = (0_usize, false, false);
    for byte in bytes {
        match byte {
            _ if escaped => escaped = false,
            b'\\' if in_string => escaped = true,
            b'"' => in_string = !in_string,
            b'[' | b'{' if !in_string => {
                depth += 1;
                if depth > most {
                    return true;
                }
            }
            b']' | b'}' if !in_string => depth = depth.saturating_sub(1),
            _ => {}
        }
    }
    false
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn depth_counts_brackets_outside_strings() {
        assert!(!is_deeper(b"[[[]]]", 3));
        assert!(is_deeper(b"[[[[", 3));
        assert!(!is_deeper(br#"["[[[[", "\"[[[["]"#, 1));
        assert!(is_deeper(br#"{"a":{"b":[]}}"#, 2));
        assert!(!is_deeper(b"[][][][]", 1));
    }
}
