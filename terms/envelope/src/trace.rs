//! W3C Trace Context (level 1, <https://www.w3.org/TR/trace-context/>, and the random flag of level 2).

use std::fmt;
use std::str::FromStr;
use std::sync::Arc;

use serde::{Deserialize, Deserializer, Serialize, Serializer, de};

use crate::chance::Chance;

/// Which trace, and which span in it: the `traceparent`. What a fact keeps of a trace.
///
/// Neither id is ever zero. Text form: `00-<32 hex>-<16 hex>-<2 hex>`, lower case, 55 characters.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct TraceParent {
    trace_id: u128,
    parent_id: u64,
    flags: u8,
}

impl TraceParent {
    /// The flag that says that the caller may have recorded this trace.
    pub const SAMPLED: u8 = 0x01;
    /// The flag that says that the trace id's right-hand 56 bits are random (level 2).
    pub const RANDOM: u8 = 0x02;

    /// A new trace with its first span, not sampled.
    pub fn random(chance: &dyn Chance) -> Self {
        let trace_id = (u128::from(chance.next_u64()) << 64) | u128::from(non_zero(chance));
        Self { trace_id, parent_id: non_zero(chance), flags: Self::RANDOM }
    }

    /// The whole trace's id, never zero.
    pub const fn trace_id(self) -> u128 {
        self.trace_id
    }

    /// The id of the span that made this call, never zero.
    pub const fn parent_id(self) -> u64 {
        self.parent_id
    }

    /// The flags; bits that these levels do not define are zero.
    pub const fn flags(self) -> u8 {
        self.flags
    }

    /// May the caller have recorded this trace?
    pub const fn sampled(self) -> bool {
        self.flags & Self::SAMPLED != 0
    }

    /// The same, sampled or not.
    #[must_use]
    pub const fn with_sampled(mut self, sampled: bool) -> Self {
        self.flags = if sampled { self.flags | Self::SAMPLED } else { self.flags & !Self::SAMPLED };
        self
    }

    /// A new span of the same trace.
    #[must_use]
    pub fn child(self, chance: &dyn Chance) -> Self {
        Self { parent_id: non_zero(chance), ..self }
    }
}

fn non_zero(chance: &dyn Chance) -> u64 {
    // A zero id would be invalid on the wire; a source that gives nothing but zeros must not hang us.
    chance.next_u64().max(1)
}

/// Why a `traceparent` was not understood. The receiver begins a new trace then (W3C, §4.3).
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("this is not a W3C traceparent: {0}; the form is 00-<32 hex>-<16 hex>-<2 hex>, in lower case")]
pub struct TraceError(&'static str);

impl FromStr for TraceParent {
    type Err = TraceError;

    /// Reads version 00, and of later versions the part that version 00 defines (§3.2.4 and §4.3).
    fn from_str(text: &str) -> Result<Self, TraceError> {
        let bytes = text.as_bytes();
        if bytes.len() < 55 {
            return Err(TraceError("it is too short"));
        }
        if [2, 35, 52].iter().any(|&at| bytes[at] != b'-') {
            return Err(TraceError("a dash is missing between its parts"));
        }
        let version = hex(&bytes[..2])?;
        if version == 0xff {
            return Err(TraceError("version ff is forbidden"));
        }
        if version == 0 && bytes.len() > 55 {
            return Err(TraceError("version 00 has nothing after the flags"));
        }
        if bytes.len() > 55 && bytes[55] != b'-' {
            return Err(TraceError("a dash is missing after the flags"));
        }
        let trace_id = hex(&bytes[3..35])?;
        // The cast fits: 16 and 2 hexadecimal digits.
        let (parent_id, flags) = (hex(&bytes[36..52])? as u64, hex(&bytes[53..55])? as u8);
        if trace_id == 0 || parent_id == 0 {
            return Err(TraceError("an id of zeros only is forbidden"));
        }
        // What other flags mean is not known here, so they are not handed on (§3.2.2.5).
        Ok(Self { trace_id, parent_id, flags: flags & (Self::SAMPLED | Self::RANDOM) })
    }
}

fn hex(digits: &[u8]) -> Result<u128, TraceError> {
    digits.iter().try_fold(0, |value, &digit| {
        let digit = match digit {
            b'0'..=b'9' => digit - b'0',
            b'a'..=b'f' => digit - b'a' + 10,
            _ => return Err(TraceError("a character is not a lower-case hexadecimal digit")),
        };
        Ok(value << 4 | u128::from(digit))
    })
}

impl fmt::Display for TraceParent {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "00-{:032x}-{:016x}-{:02x}", self.trace_id, self.parent_id, self.flags)
    }
}

impl Serialize for TraceParent {
    fn serialize<S: Serializer>(&self, to: S) -> Result<S::Ok, S::Error> {
        to.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for TraceParent {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        let text = <std::borrow::Cow<'de, str>>::deserialize(from)?;
        text.parse().map_err(de::Error::custom)
    }
}

/// A call's place in a trace: the [`TraceParent`], and what tracing systems add to it (`tracestate`).
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct TraceContext {
    parent: TraceParent,
    /// Valid, non-empty, within the bounds.
    state: Option<Arc<str>>,
}

impl TraceContext {
    /// The longest `tracestate` that is handed on: the 512 characters that everybody has to (§3.3.1.5).
    pub const STATE_BYTES_MAX: usize = 512;
    /// The most entries of a `tracestate` (§3.3.1.1).
    pub const STATE_ENTRIES_MAX: usize = 32;

    /// A new trace, not sampled.
    pub fn random(chance: &dyn Chance) -> Self {
        TraceParent::random(chance).into()
    }

    /// The ids and flags.
    pub const fn parent(&self) -> TraceParent {
        self.parent
    }

    /// The vendors' entries, if any: valid, at most [`STATE_BYTES_MAX`](Self::STATE_BYTES_MAX) bytes.
    pub fn state(&self) -> Option<&str> {
        self.state.as_deref()
    }

    /// The same with this `tracestate`: several header lines are joined by commas first (§3.3.1).
    ///
    /// One that is malformed, has a key twice, or has too many entries is left out as a whole, as §3.3.1 and §4.3
    /// ask. One that is too long loses its longest entries (those over 128 characters, §3.3.1.5), then the last.
    #[must_use]
    pub fn with_state(mut self, state: &str) -> Self {
        self.state = bounded_state(state).map(Into::into);
        self
    }

    /// A new span of the same trace.
    #[must_use]
    pub fn child(&self, chance: &dyn Chance) -> Self {
        Self { parent: self.parent.child(chance), state: self.state.clone() }
    }
}

impl From<TraceParent> for TraceContext {
    fn from(parent: TraceParent) -> Self {
        Self { parent, state: None }
    }
}

fn bounded_state(state: &str) -> Option<String> {
    let trim = |entry: &'_ str| -> bool { !entry.is_empty() };
    let mut entries: Vec<&str> =
        state.split(',').map(|entry| entry.trim_matches([' ', '\t'])).filter(|entry| trim(entry)).collect();
    if entries.is_empty() || entries.len() > TraceContext::STATE_ENTRIES_MAX {
        return None;
    }
    let mut keys = Vec::with_capacity(entries.len());
    for entry in &entries {
        let (key, value) = entry.split_once('=')?;
        if !is_key(key) || !is_value(value) || keys.contains(&key) {
            return None;
        }
        keys.push(key);
    }
    let length = |entries: &[&str]| entries.iter().map(|entry| entry.len() + 1).sum::<usize>() - 1;
    while length(&entries) > TraceContext::STATE_BYTES_MAX {
        let victim = entries.iter().rposition(|entry| entry.len() > 128).unwrap_or(entries.len() - 1);
        entries.remove(victim);
        if entries.is_empty() {
            return None;
        }
    }
    Some(entries.join(","))
}

/// §3.3.1.3.1, in the wider form of level 2: a lower-case letter or a digit, then up to 255 of these and `_-*/@`.
fn is_key(key: &str) -> bool {
    let begins = |c: u8| c.is_ascii_lowercase() || c.is_ascii_digit();
    key.len() <= 256
        && key.bytes().next().is_some_and(begins)
        && key.bytes().all(|c| begins(c) || b"_-*/@".contains(&c))
}

/// §3.3.1.3.2: up to 256 printable ASCII characters but comma and equals sign. (A space at the end was cut off.)
fn is_value(value: &str) -> bool {
    (1..=256).contains(&value.len())
        && value.bytes().all(|c| matches!(c, b' '..=b'~') && c != b',' && c != b'=')
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::chance::SeededChance;

    const GIVEN: &str = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01";

    #[test]
    fn a_traceparent_is_read_and_written_as_the_w3c_says() {
        let parent: TraceParent = GIVEN.parse().unwrap();
        assert_eq!(parent.trace_id(), 0x4bf9_2f35_77b3_4da6_a3ce_929d_0e0e_4736);
        assert_eq!(parent.parent_id(), 0x00f0_67aa_0ba9_02b7);
        assert!(parent.sampled());
        assert_eq!(parent.to_string(), GIVEN);
        // a later version: what version 00 defines is read, unknown flags are not handed on
        let later: TraceParent =
            GIVEN.replace("00-4", "cc-4").replace("-01", "-fd-what-ever").parse().unwrap();
        assert_eq!(later, parent);
        assert!(!parent.with_sampled(false).sampled());
    }

    #[test]
    fn each_malformed_traceparent_is_refused_for_its_reason() {
        for (text, why) in [
            (String::new(), "too short"),
            (GIVEN[..54].to_owned(), "too short"),
            (format!("{GIVEN}-00"), "nothing after"),
            (format!("{GIVEN}."), "nothing after"),
            (GIVEN.replace("00-4", "01-4") + ".", "dash is missing after"),
            (GIVEN.replace("00-4", "ff-4"), "version ff"),
            (GIVEN.replace("-00f", "_00f"), "dash is missing between"),
            (GIVEN.to_uppercase(), "lower-case"),
            (GIVEN.replace("4bf9", "4bg9"), "lower-case"),
            (GIVEN.replace("4bf92f3577b34da6a3ce929d0e0e4736", &"0".repeat(32)), "zeros"),
            (GIVEN.replace("00f067aa0ba902b7", &"0".repeat(16)), "zeros"),
            ("ä".repeat(30), "dash"),
        ] {
            let error = text.parse::<TraceParent>().unwrap_err().to_string();
            assert!(error.contains(why), "{text:?}: {error}");
        }
    }

    #[test]
    fn a_child_is_a_new_span_of_the_same_trace() {
        let chance = SeededChance::new(1);
        let trace = TraceContext::from(GIVEN.parse::<TraceParent>().unwrap()).with_state("a=1");
        let child = trace.child(&chance);
        assert_eq!(child.parent().trace_id(), trace.parent().trace_id());
        assert_ne!(child.parent().parent_id(), trace.parent().parent_id());
        assert!(child.parent().sampled());
        assert_eq!(child.state(), Some("a=1"));
        assert_ne!(
            TraceContext::random(&chance).parent().trace_id(),
            TraceContext::random(&chance).parent().trace_id()
        );
    }

    #[test]
    fn a_source_of_nothing_but_zeros_still_gives_valid_ids() {
        #[derive(Debug)]
        struct Zeros;
        impl Chance for Zeros {
            fn next_u64(&self) -> u64 {
                0
            }
        }
        let parent = TraceParent::random(&Zeros);
        assert_eq!(parent.to_string().parse(), Ok(parent));
    }

    #[test]
    fn a_tracestate_is_kept_when_valid_and_left_out_when_not() {
        let trace = TraceContext::from(GIVEN.parse::<TraceParent>().unwrap());
        let kept = |state: &str| trace.clone().with_state(state).state().map(ToOwned::to_owned);
        assert_eq!(
            kept("rojo=00f067aa0ba902b7, \tcongo=t61rcWkgMzE ,").as_deref(),
            Some("rojo=00f067aa0ba902b7,congo=t61rcWkgMzE")
        );
        assert_eq!(kept("1a-2*3_4/5@6=x y").as_deref(), Some("1a-2*3_4/5@6=x y"));
        for bad in ["", " , ,", "a", "=1", "a=", "A=1", "a=1,a=2", "a=ä", "a==", "a=1,b", "@a=1", "a =1"] {
            assert_eq!(kept(bad), None, "{bad:?}");
        }
        assert_eq!(kept(&format!("{}=1", "k".repeat(257))), None);
        assert_eq!(kept(&format!("k={}", "v".repeat(257))), None);
        let many = |n: usize| (0..n).map(|i| format!("k{i}=v")).collect::<Vec<_>>().join(",");
        assert_eq!(kept(&many(32)), Some(many(32)));
        assert_eq!(kept(&many(33)), None);
    }

    #[test]
    fn a_tracestate_that_is_too_long_loses_its_longest_entries_and_then_its_last() {
        let trace = TraceContext::from(GIVEN.parse::<TraceParent>().unwrap());
        let (long, short) = (
            |key: &str| format!("{key}={}", "v".repeat(200)),
            |key: &str| format!("{key}={}", "v".repeat(120)),
        );
        let state = [long("a"), short("b"), short("c"), short("d")].join(",");
        let kept = trace.clone().with_state(&state);
        assert_eq!(kept.state(), Some([short("b"), short("c"), short("d")].join(",").as_str()));
        let state = ["a", "b", "c", "d", "e"].map(short).join(",");
        assert_eq!(
            trace.with_state(&state).state(),
            Some(["a", "b", "c", "d"].map(short).join(",").as_str())
        );
    }
}
