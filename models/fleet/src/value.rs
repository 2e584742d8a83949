//! What a setting may be in a document, and how it is written there.

use std::fmt::{self, Display};
use std::ops::Range;
use std::time::Duration;

use toml::de::{DeInteger, DeValue};

/// A setting's value, as a document has it.
#[derive(Debug, Clone, PartialEq)]
pub enum Value {
    /// Text: a time, a rate, one of some words.
    Text(String),
    /// A whole number.
    Whole(u64),
    /// A number: a share, a factor.
    Number(f64),
    /// Yes or no.
    Flag(bool),
    /// Several texts.
    List(Vec<String>),
    /// A section.
    Table(Vec<(&'static str, Value)>),
}

/// As TOML, on one line.
impl Display for Value {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Value::Text(text) => quoted(text, f),
            Value::Whole(number) => write!(f, "{number}"),
            Value::Number(number) if number.is_nan() => f.write_str("nan"),
            Value::Number(number) => write!(f, "{number:?}"),
            Value::Flag(flag) => write!(f, "{flag}"),
            Value::List(texts) => {
                f.write_str("[")?;
                for (n, text) in texts.iter().enumerate() {
                    f.write_str(if n == 0 { "" } else { ", " })?;
                    quoted(text, f)?;
                }
                f.write_str("]")
            }
            Value::Table(settings) => {
                f.write_str("{ ")?;
                for (n, (key, value)) in settings.iter().enumerate() {
                    write!(f, "{}{key} = {value}", if n == 0 { "" } else { ", " })?;
                }
                f.write_str(" }")
            }
        }
    }
}

/// As a basic string of TOML (specification 1.0, "String").
pub(crate) fn quoted(text: &str, f: &mut fmt::Formatter<'_>) -> fmt::Result {
    f.write_str("\"")?;
    for c in text.chars() {
        match c {
            '"' | '\\' => write!(f, "\\{c}")?,
            c if c.is_control() => write!(f, "\\U{:08X}", u32::from(c))?,
            c => write!(f, "{c}")?,
        }
    }
    f.write_str("\"")
}

/// A value that a setting can't have.
#[derive(Debug, PartialEq)]
pub(crate) struct Wrong {
    /// In the middle of a sentence: what is wrong, and what is allowed.
    pub(crate) why: String,
    /// Where, if not all of the value.
    pub(crate) span: Option<Range<usize>>,
}

impl Wrong {
    pub(crate) fn new(value: &DeValue<'_>, allowed: &str) -> Self {
        Wrong { why: format!("is {}: {allowed}", shown(value)), span: None }
    }
}

/// A value as an error quotes it.
pub(crate) fn shown(value: &DeValue<'_>) -> String {
    match value {
        DeValue::String(text) => {
            let (short, rest) = match text.char_indices().nth(40) {
                Some((at, _)) => (&text[..at], "…"),
                None => (&text[..], ""),
            };
            format!("{short:?}{rest}")
        }
        DeValue::Integer(number) => number.to_string(),
        DeValue::Float(number) => number.to_string(),
        DeValue::Boolean(flag) => flag.to_string(),
        DeValue::Datetime(_) => "a date or a time of day".to_owned(),
        DeValue::Array(_) => "a list".to_owned(),
        DeValue::Table(_) => "a table".to_owned(),
    }
}

/// What can be a setting.
pub(crate) trait Setting: Sized {
    /// From a document.
    fn read(value: &DeValue<'_>) -> Result<Self, Wrong>;

    /// For a document. None: it is left out there.
    fn value(&self) -> Option<Value>;
}

impl<T: Setting> Setting for Option<T> {
    fn read(value: &DeValue<'_>) -> Result<Self, Wrong> {
        T::read(value).map(Some)
    }

    fn value(&self) -> Option<Value> {
        self.as_ref().and_then(T::value)
    }
}

impl Setting for bool {
    fn read(value: &DeValue<'_>) -> Result<Self, Wrong> {
        value.as_bool().ok_or_else(|| Wrong::new(value, "it is true or false, without quotes"))
    }

    fn value(&self) -> Option<Value> {
        Some(Value::Flag(*self))
    }
}

fn whole(number: &DeInteger<'_>) -> Option<u128> {
    u128::from_str_radix(number.as_str().trim_start_matches('+'), number.radix()).ok()
}

impl Setting for u32 {
    fn read(value: &DeValue<'_>) -> Result<Self, Wrong> {
        let fits = value.as_integer().and_then(whole).and_then(|number| Self::try_from(number).ok());
        fits.ok_or_else(|| Wrong::new(value, "it is a whole number from 0 to 4294967295, without quotes"))
    }

    fn value(&self) -> Option<Value> {
        Some(Value::Whole(u64::from(*self)))
    }
}

impl Setting for usize {
    fn read(value: &DeValue<'_>) -> Result<Self, Wrong> {
        let number = value.as_integer().and_then(whole).filter(|number| *number <= i64::MAX as u128);
        let fits = number.and_then(|number| Self::try_from(number).ok());
        fits.ok_or_else(|| Wrong::new(value, "it is a whole number from 0 on, without quotes"))
    }

    fn value(&self) -> Option<Value> {
        Some(Value::Whole(*self as u64))
    }
}

impl Setting for f64 {
    fn read(value: &DeValue<'_>) -> Result<Self, Wrong> {
        let text = match value {
            DeValue::Float(number) => number.as_str(),
            DeValue::Integer(number) if number.radix() == 10 => number.as_str(),
            _ => "",
        };
        text.parse().map_err(|_| Wrong::new(value, "it is a number such as 0.5, without quotes"))
    }

    fn value(&self) -> Option<Value> {
        Some(Value::Number(*self))
    }
}

impl Setting for Duration {
    fn read(value: &DeValue<'_>) -> Result<Self, Wrong> {
        let Some(text) = value.as_str() else {
            return Err(Wrong::new(value, "a time is text with its unit, such as \"300ms\" or \"2s\""));
        };
        duration(text).map_err(|why| Wrong::new(value, why))
    }

    fn value(&self) -> Option<Value> {
        Some(Value::Text(duration_text(*self)))
    }
}

/// The units of time, the shortest first.
const UNITS: [(&str, u128); 7] = [
    ("ns", 1),
    ("us", 1_000),
    ("ms", 1_000_000),
    ("s", 1_000_000_000),
    ("min", 60 * 1_000_000_000),
    ("h", 60 * 60 * 1_000_000_000),
    ("d", 24 * 60 * 60 * 1_000_000_000),
];

const NANOS: u128 = 1_000_000_000;

/// A time: a number and its unit. The error is what is wrong.
fn duration(text: &str) -> Result<Duration, &'static str> {
    let digits = text.len() - text.trim_start_matches(|c: char| c.is_ascii_digit() || c == '.').len();
    let (number, unit) = text.split_at(digits);
    if text.starts_with('-') {
        return Err("no time is below zero");
    }
    let unit = match unit.trim_start() {
        "" => return Err("its unit is missing; a time is a number with ns, us, ms, s, min, h or d"),
        "m" => return Err("m could be minutes or milliseconds; write min or ms"),
        "µs" | "μs" => "us",
        unit => unit,
    };
    let unknown = "a time is a number with one unit: ns, us, ms, s, min, h or d";
    let (_, nanos) = *UNITS.iter().find(|(name, _)| *name == unit).ok_or(unknown)?;
    let (before, after) = number.split_once('.').unwrap_or((number, "0"));
    if before.is_empty() || after.is_empty() || after.contains('.') {
        return Err("its number is none; write one such as 1.5");
    }
    let too_long = "it is longer than any time that is kept";
    let mut total = before.parse::<u128>().ok().and_then(|n| n.checked_mul(nanos)).ok_or(too_long)?;
    // Digit by digit, so that no time is rounded.
    let mut place = nanos;
    for digit in after.trim_end_matches('0').bytes() {
        if place % 10 != 0 {
            return Err(
                "it is finer than a nanosecond, or than its unit divides; write it in a smaller unit",
            );
        }
        place /= 10;
        total += u128::from(digit - b'0') * place;
    }
    let seconds = u64::try_from(total / NANOS).map_err(|_| too_long)?;
    Ok(Duration::new(seconds, u32::try_from(total % NANOS).unwrap_or_default()))
}

/// In the largest unit in which it is a whole number.
pub(crate) fn duration_text(time: Duration) -> String {
    let nanos = time.as_nanos();
    if nanos == 0 {
        return "0s".to_owned();
    }
    let unit = UNITS.iter().rev().find(|(_, unit)| nanos.is_multiple_of(*unit));
    unit.map(|(name, unit)| format!("{}{name}", nanos / unit)).unwrap_or_default()
}

/// So many in a time: "200/s", "3/10s".
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Rate {
    pub(crate) permits: u32,
    pub(crate) per: Duration,
}

impl Setting for Rate {
    fn read(value: &DeValue<'_>) -> Result<Self, Wrong> {
        let allowed = "a rate is text such as \"200/s\", \"1000/min\" or \"3/10s\"";
        let text = value.as_str().ok_or_else(|| Wrong::new(value, allowed))?;
        let rate = || {
            let (permits, per) = text.split_once('/')?;
            let permits = permits.trim();
            let is_plain = permits.bytes().all(|byte| byte.is_ascii_digit());
            let per = per.trim();
            let per = if per.starts_with(|c: char| c.is_ascii_digit()) {
                per.to_owned()
            } else {
                format!("1{per}")
            };
            Some(Rate { permits: permits.parse().ok().filter(|_| is_plain)?, per: duration(&per).ok()? })
        };
        rate().ok_or_else(|| Wrong::new(value, allowed))
    }

    fn value(&self) -> Option<Value> {
        let per = duration_text(self.per);
        // "1s" is a digit and its unit; "10s" is not.
        let unit = per.strip_prefix('1').filter(|unit| !unit.starts_with(|c: char| c.is_ascii_digit()));
        Some(Value::Text(format!("{}/{}", self.permits, unit.unwrap_or(&per))))
    }
}

/// Makes a setting of an enumeration whose values are words.
macro_rules! words {
    ($type:ty { $($word:literal => $value:path),+ $(,)? }) => {
        impl crate::value::Setting for $type {
            fn read(value: &toml::de::DeValue<'_>) -> Result<Self, crate::value::Wrong> {
                crate::value::word(value, &[$(($word, $value)),+])
            }

            fn value(&self) -> Option<crate::value::Value> {
                $(if *self == $value { return Some(crate::value::Value::Text($word.to_owned())); })+
                None
            }
        }
    };
}
pub(crate) use words;

/// One of some words.
pub(crate) fn word<T: Copy>(value: &DeValue<'_>, words: &[(&'static str, T)]) -> Result<T, Wrong> {
    let known: Vec<&str> = words.iter().map(|(word, _)| *word).collect();
    let written = value.as_str();
    if let Some((_, meant)) = words.iter().find(|(word, _)| written == Some(*word)) {
        return Ok(*meant);
    }
    let allowed: Vec<String> = known.iter().map(|word| format!("{word:?}")).collect();
    let mut why = format!("it is one of {}", allowed.join(", "));
    if let Some(near) = written.and_then(|written| crate::nearest::nearest(written, &known)) {
        why = format!("{why}; the nearest is {near:?}");
    }
    Err(Wrong::new(value, &why))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_time_is_exact_and_what_is_none_is_told() {
        for (text, nanos) in [
            ("300ms", 300_000_000),
            ("2s", 2_000_000_000),
            ("1.5s", 1_500_000_000),
            ("0.000000001s", 1),
            ("1.50 min", 90_000_000_000),
            ("250us", 250_000),
            ("250µs", 250_000),
            ("1h", 3_600_000_000_000),
            ("30d", 2_592_000_000_000_000),
            ("0s", 0),
            ("7ns", 7),
        ] {
            assert_eq!(duration(text), Ok(Duration::from_nanos(nanos)), "{text}");
        }
        for (text, words) in [
            ("300", "unit is missing"),
            ("", "unit is missing"),
            ("5m", "min or ms"),
            ("-1s", "below zero"),
            ("1 fortnight", "one unit"),
            ("1s500ms", "one unit"),
            ("s", "its number is none"),
            (".5s", "its number is none"),
            ("1..5s", "its number is none"),
            ("1.5ns", "finer than a nanosecond"),
            ("99999999999999999999d", "longer than any time"),
            ("999999999999999999999999999999999999999d", "longer than any time"),
        ] {
            let why = duration(text).unwrap_err();
            assert!(why.contains(words), "{text}: {why}");
        }
    }

    #[test]
    fn what_is_written_is_read_as_the_same() {
        for nanos in
            [0, 1, 999, 1_000, 1_500_000, 60_000_000_000, 61_000_000_000, 86_400_000_000_000, 1_000_000_001]
        {
            let time = Duration::from_nanos(nanos);
            assert_eq!(duration(&duration_text(time)), Ok(time), "{nanos}");
        }
        assert_eq!(duration_text(Duration::from_millis(1_500)), "1500ms");
        for (permits, per, text) in
            [(200, 1, "200/s"), (3, 10, "3/10s"), (60, 60, "60/min"), (1, 11, "1/11s")]
        {
            let rate = Rate { permits, per: Duration::from_secs(per) };
            assert_eq!(rate.value(), Some(Value::Text(text.to_owned())));
            assert_eq!(Rate::read(&DeValue::String(text.into())), Ok(rate));
        }
        for none in ["200", "x/s", "+2/s", "200/", "/s", "1/m", "-1/s", "5000000000/s"] {
            assert!(Rate::read(&DeValue::String(none.into())).is_err(), "{none}");
        }
    }
}
