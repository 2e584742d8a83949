//! Archived ranges: events that were moved out of a store into a file, and the marker that stands in their place.
//!
//! ```text
//! feed     1 … 500              501 ─ 502 ─ 503 …
//!          └── marker {from, to, count, first hash, last hash, digest} ──┐
//! file     header · event 1 · event 2 · … · event 500   ◄── BLAKE3 ──────┘
//! ```
//! Nothing leaves a feed without a marker. With the marker alone a verifier can go on behind the range: the next link
//! covers the range's last hash, so the marker can't be changed unnoticed. With the file it proves every event in it.
//!
//! The file is JSON lines: a header, then one event a line, in the feed's order. Bytes that are text are written as
//! `{"text": …}`, others as `{"hex": …}`.

mod line;

use std::io::{self, BufRead, Read, Write};

use serde::{Deserialize, Serialize};

use super::{Broken, Verifier};
use crate::event::Recorded;
use crate::hash::Hash;
use crate::position::{Head, Position, StoreId};
use line::{Header, Line};

/// What the first line of a file says. A change of the format makes a new kind.
const KIND: &str = "mainstay archive 1";

/// Events of one range: what a store moves in one transaction.
pub const ARCHIVE_EVENTS_MAX: u64 = 100_000;

/// Bytes of a line: a payload of the largest size may grow sixfold when it is escaped.
const LINE_BYTES_MAX: u64 = 16 << 20;

/// The record that stands for a range of events that left the feed.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Archived {
    /// The first position of the range.
    pub from: Position,
    /// The last one.
    pub to: Position,
    /// How many events: positions are dense, so it follows from the two.
    pub count: u64,
    /// The chain's hash at the first position.
    pub first: Hash,
    /// The chain's hash at the last one, from which the next link goes on.
    pub last: Hash,
    /// BLAKE3 of the whole file.
    pub digest: Hash,
    /// The file's name, without its folder.
    pub file: String,
}

impl Archived {
    /// Is this position in the range?
    pub fn contains(&self, position: Position) -> bool {
        self.from <= position && position <= self.to
    }
}

/// A file that is not the archive it should be, or can't be read or written.
#[derive(Debug, thiserror::Error)]
pub enum ArchiveError {
    /// The operating system's answer.
    #[error("the archive can't be read or written: {0}")]
    Io(#[from] io::Error),
    /// Its bytes are not those that the marker tells of.
    #[error(
        "the archive's digest is {found}, its marker says {expected}: the file was changed, or is another one"
    )]
    Digest {
        /// The marker's.
        expected: Hash,
        /// The file's.
        found: Hash,
    },
    /// It can't be read as an archive.
    #[error("the archive is damaged at line {line}: {why}")]
    Line {
        /// Counted from 1.
        line: u64,
        /// What is wrong.
        why: String,
    },
    /// Its events are not those that were recorded.
    #[error("the archive's events are not what was recorded: {0}")]
    Broken(#[from] Broken),
}

/// Writes an archive, and proves each event on its way.
#[derive(Debug)]
pub struct ArchiveWriter<W> {
    out: Hashing<W>,
    verifier: Verifier,
    from: Position,
    to: Position,
    first: Option<Hash>,
}

impl<W: Write> ArchiveWriter<W> {
    /// Begins an archive of the events after a head, up to `to`. `out` should be buffered.
    pub fn begin(out: W, store: StoreId, after: Head, to: Position) -> Result<Self, ArchiveError> {
        let mut out = Hashing { inner: out, hasher: blake3::Hasher::new() };
        let from = after.position.next();
        write_line(&mut out, &Header { kind: KIND.into(), store, from, to, before: after.hash })?;
        Ok(Self { out, verifier: Verifier::from_head(after), from, to, first: None })
    }

    /// The last position written.
    pub fn position(&self) -> Position {
        self.verifier.head().position
    }

    /// Writes the next event.
    pub fn event(&mut self, event: &Recorded) -> Result<(), ArchiveError> {
        self.verifier.check(event)?;
        self.first.get_or_insert(event.hash);
        write_line(&mut self.out, &Line::of(event))
    }

    /// Flushes the file and gives its marker. Syncing it is up to the caller, before the marker is recorded.
    pub fn finish(mut self, file: &str) -> Result<(W, Archived), ArchiveError> {
        let head = self.verifier.head();
        let Some(first) = self.first.filter(|_| head.position == self.to) else {
            return Err(Broken::Gap { after: head.position, found: self.to }.into());
        };
        self.out.flush()?;
        let digest = Hash(*self.out.hasher.finalize().as_bytes());
        let (from, to) = (self.from, self.to);
        let count = to.0 - from.0 + 1;
        let marker = Archived { from, to, count, first, last: head.hash, digest, file: file.to_owned() };
        Ok((self.out.inner, marker))
    }
}

fn write_line<W: Write>(out: &mut W, line: &impl Serialize) -> Result<(), ArchiveError> {
    // One write a line: the hasher is fastest when it is fed seldom.
    let mut text = serde_json::to_vec(line).map_err(io::Error::from)?;
    text.push(b'\n');
    Ok(out.write_all(&text)?)
}

impl Verifier {
    /// Goes on behind an archived range. What its events were is not proved by that; that none was added or left
    /// out, and that the marker is the range's, shows when the next event links to it.
    pub fn accept(&mut self, marker: &Archived) -> Result<(), Broken> {
        let Archived { from, to, count, first, last, .. } = marker;
        if *from != self.head.position.next() {
            return Err(Broken::Gap { after: self.head.position, found: *from });
        }
        let dense = to.0.checked_sub(from.0).and_then(|more| more.checked_add(1));
        if dense != Some(*count) || (from == to && first != last) {
            return Err(Broken::Marker { from: *from, to: *to });
        }
        self.head = Head { position: *to, hash: *last };
        Ok(())
    }

    /// Proves an archived range by its file: the digest, every link, and that it is what the marker tells of.
    /// `seen` is given each head on the way. Nothing is believed before the whole file was read.
    pub fn check_archive(
        &mut self,
        store: StoreId,
        marker: &Archived,
        file: impl Read,
        mut seen: impl FnMut(Head) -> Result<(), Broken>,
    ) -> Result<(), ArchiveError> {
        let mut after = self.clone();
        after.accept(marker)?;
        let mut walk = self.clone();
        let mut input = io::BufReader::new(Hashing { inner: file, hasher: blake3::Hasher::new() });
        // What the digest will show to be changed is not judged by its contents: the first fault waits for the end.
        let walked = walk_file(&mut walk, store, marker, &mut input, &mut seen);
        io::copy(&mut input, &mut io::sink())?;
        let found = Hash(*input.into_inner().hasher.finalize().as_bytes());
        if found != marker.digest {
            return Err(ArchiveError::Digest { expected: marker.digest, found });
        }
        walked?;
        if walk.head != after.head {
            return Err(Broken::Marker { from: marker.from, to: marker.to }.into());
        }
        *self = after;
        Ok(())
    }
}

/// The digest of a file, as a marker has it.
pub fn digest_of(file: impl Read) -> io::Result<Hash> {
    let mut file = Hashing { inner: file, hasher: blake3::Hasher::new() };
    io::copy(&mut file, &mut io::sink())?;
    Ok(Hash(*file.hasher.finalize().as_bytes()))
}

fn walk_file(
    walk: &mut Verifier,
    store: StoreId,
    marker: &Archived,
    input: &mut impl BufRead,
    seen: &mut impl FnMut(Head) -> Result<(), Broken>,
) -> Result<(), ArchiveError> {
    let mut number = 0;
    let mut text = Vec::new();
    let mut next = |text: &mut Vec<u8>| -> Result<Option<u64>, ArchiveError> {
        text.clear();
        number += 1;
        input.take(LINE_BYTES_MAX).read_until(b'\n', text)?;
        match text.last() {
            None => Ok(None),
            Some(b'\n') => Ok(Some(number)),
            Some(_) => Err(ArchiveError::Line { line: number, why: "it is cut off or too long".into() }),
        }
    };
    let bad = |line: u64, why: String| ArchiveError::Line { line, why };
    let line = next(&mut text)?.ok_or_else(|| bad(1, "the file is empty".into()))?;
    let header: Header = serde_json::from_slice(&text).map_err(|error| bad(line, error.to_string()))?;
    let Header { kind, store: theirs, from, to, before } = header;
    if kind != KIND || theirs != store || (from, to) != (marker.from, marker.to) || before != walk.head.hash {
        return Err(bad(line, "its header tells of another store, another range or another format".into()));
    }
    while let Some(line) = next(&mut text)? {
        let event: Line = serde_json::from_slice(&text).map_err(|error| bad(line, error.to_string()))?;
        let event = event.event().ok_or_else(|| bad(line, "its bytes are not in hexadecimal".into()))?;
        walk.check(&event)?;
        if walk.head.position == marker.from && walk.head.hash != marker.first {
            return Err(Broken::Marker { from: marker.from, to: marker.to }.into());
        }
        seen(walk.head)?;
    }
    Ok(())
}

/// Bytes on their way, hashed.
#[derive(Debug)]
struct Hashing<T> {
    inner: T,
    hasher: blake3::Hasher,
}

impl<W: Write> Write for Hashing<W> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let written = self.inner.write(bytes)?;
        self.hasher.update(&bytes[..written]);
        Ok(written)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.inner.flush()
    }
}

impl<R: Read> Read for Hashing<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let read = self.inner.read(buffer)?;
        self.hasher.update(&buffer[..read]);
        Ok(read)
    }
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;
    use mainstay_envelope::Timestamp;
    use uuid::Uuid;

    use super::*;
    use crate::chain;
    use crate::event::Payload;
    use crate::names::{EventType, KeyId, StreamName, Tag};
    use crate::tags::Tags;
    use crate::version::Version;

    const STORE: StoreId = StoreId(Uuid::from_u128(7));

    /// A feed of events with payloads of every kind.
    fn feed(count: u64) -> Vec<Recorded> {
        let mut previous = chain::genesis(STORE);
        let event = |n: u64| {
            let mut event = Recorded {
                position: Position(n),
                stream: StreamName::new(format!("s-{}", n % 2)).unwrap(),
                version: Version(n.div_ceil(2)),
                id: Uuid::from_u128(u128::from(n)),
                event_type: EventType::new("E").unwrap(),
                schema: 1,
                at: Timestamp::from_millis(n as i64),
                tags: Tags::join(&[Tag::new("t:\"1\"").unwrap(), Tag::new("u").unwrap()][..(n % 3) as usize]),
                envelope: Bytes::from_static(b"{}"),
                payload: match n % 3 {
                    0 => Payload::plain(vec![0xff, 0x00, n as u8]),
                    1 => Payload::plain("line\nbreak and \"quotes\"".as_bytes()),
                    _ => Payload::encrypted(KeyId::new("k").unwrap(), Vec::new()),
                },
                hash: previous,
            };
            event.hash = chain::link(previous, event.position, event.version, chain::content_of(&event));
            previous = event.hash;
            event
        };
        (1..=count).map(event).collect()
    }

    fn start() -> Head {
        Head { position: Position::START, hash: chain::genesis(STORE) }
    }

    fn archive(events: &[Recorded]) -> (Vec<u8>, Archived) {
        let to = events.last().unwrap().position;
        let mut writer = ArchiveWriter::begin(Vec::new(), STORE, start(), to).unwrap();
        events.iter().for_each(|event| writer.event(event).unwrap());
        writer.finish("a.jsonl").unwrap()
    }

    fn check(marker: &Archived, file: &[u8]) -> Result<Vec<Head>, ArchiveError> {
        let (mut verifier, mut heads) = (Verifier::new(STORE), Vec::new());
        verifier.check_archive(STORE, marker, file, |head| {
            heads.push(head);
            Ok(())
        })?;
        assert_eq!(verifier.head().position, marker.to);
        Ok(heads)
    }

    #[test]
    fn a_range_is_proved_by_its_file_and_the_feed_goes_on_behind_it() {
        let feed = feed(12);
        let (file, marker) = archive(&feed[..9]);
        assert_eq!((marker.from, marker.to, marker.count), (Position(1), Position(9), 9));
        assert_eq!((marker.first, marker.last), (feed[0].hash, feed[8].hash));
        let heads = check(&marker, &file).unwrap();
        let expected = feed[..9].iter().map(|e| Head { position: e.position, hash: e.hash });
        assert_eq!(heads, expected.collect::<Vec<_>>());
        let mut verifier = Verifier::new(STORE);
        verifier.accept(&marker).unwrap();
        feed[9..].iter().for_each(|event| verifier.check(event).unwrap());
        assert_eq!(verifier.head().hash, feed[11].hash);
    }

    #[test]
    fn the_file_is_as_it_was_written_before() {
        let (file, marker) = archive(&feed(3));
        let lines: Vec<&str> = std::str::from_utf8(&file).unwrap().lines().collect();
        let hash = |n: usize| feed(3)[n].hash;
        assert_eq!(
            lines[3],
            format!(
                "{{\"position\":3,\"stream\":\"s-1\",\"version\":2,\"id\":\"00000000-0000-0000-0000-000000000003\",\
                 \"type\":\"E\",\"schema\":1,\"at\":3,\"tags\":[],\"envelope\":{{\"text\":\"{{}}\"}},\
                 \"payload\":{{\"hex\":\"ff0003\"}},\"hash\":\"{}\"}}",
                hash(2)
            )
        );
        assert!(lines[2].contains("\"key\":\"k\",\"payload\":{\"text\":\"\"}"), "{}", lines[2]);
        assert!(lines[0].starts_with("{\"kind\":\"mainstay archive 1\",\"store\":"), "{}", lines[0]);
        assert_eq!(marker.digest, Hash(*blake3::hash(&file).as_bytes()));
    }

    #[test]
    fn a_marker_that_is_not_the_ranges_is_noticed_at_the_next_link() {
        let feed = feed(12);
        let (_, marker) = archive(&feed[..9]);
        let after = |marker: &Archived| {
            let mut verifier = Verifier::new(STORE);
            verifier.accept(marker)?;
            feed[marker.to.0 as usize..].iter().try_for_each(|event| verifier.check(event))
        };
        assert_eq!(after(&marker), Ok(()));
        let other = Archived { last: feed[7].hash, ..marker.clone() };
        assert_eq!(after(&other), Err(Broken::Link { at: Position(10) }));
        let range =
            |from, to, count| Archived { from: Position(from), to: Position(to), count, ..marker.clone() };
        assert_eq!(after(&range(2, 9, 8)), Err(Broken::Gap { after: Position(0), found: Position(2) }));
        let wrong = |from, to| Err(Broken::Marker { from: Position(from), to: Position(to) });
        assert_eq!(after(&range(1, 9, 8)), wrong(1, 9));
        assert_eq!(after(&range(1, 0, 0)), wrong(1, 0));
        assert_eq!(after(&range(1, u64::MAX, 9)), wrong(1, u64::MAX));
        assert_eq!(after(&range(1, 1, 1)), wrong(1, 1));
        assert_eq!(after(&range(1, 8, 8)), Err(Broken::Link { at: Position(9) }));
    }

    #[test]
    fn a_changed_file_is_told_by_its_digest_and_a_forged_one_by_its_events() {
        let events = feed(9);
        let (file, marker) = archive(&events);
        for at in [0, file.len() / 2, file.len() - 1] {
            let mut changed = file.clone();
            changed[at] ^= 1;
            assert!(matches!(check(&marker, &changed), Err(ArchiveError::Digest { .. })), "byte {at}");
        }
        assert!(matches!(check(&marker, &file[..file.len() - 1]), Err(ArchiveError::Digest { .. })));
        assert!(matches!(check(&marker, &[]), Err(ArchiveError::Digest { .. })));
        // Whoever can write the marker too can fit the digest, but not the chain.
        let forged = |text: &[u8]| {
            let digest = Hash(*blake3::hash(text).as_bytes());
            check(&Archived { digest, ..marker.clone() }, text).unwrap_err().to_string()
        };
        let text = std::str::from_utf8(&file).unwrap();
        let lines: Vec<&str> = text.lines().collect();
        let without = |line: usize| {
            let kept =
                lines.iter().enumerate().filter(|(i, _)| *i != line).map(|(_, text)| format!("{text}\n"));
            kept.collect::<String>()
        };
        assert!(
            forged(text.replace("ff0003", "ff0004").as_bytes()).contains("the chain breaks at position 3")
        );
        assert!(forged(without(4).as_bytes()).contains("position 5 follows 3"));
        assert!(forged(without(9).as_bytes()).contains("the marker of positions 1 to 9"));
        assert!(forged(without(0).as_bytes()).contains("damaged at line 1"));
        assert!(forged(b"").contains("line 1: the file is empty"));
        assert!(
            forged(text.replace("ff0003", "ff000").as_bytes()).contains("line 4: its bytes are not in hex")
        );
        assert!(forged(text.replace("archive 1", "archive 2").as_bytes()).contains("another format"));
        assert!(forged(&file[..file.len() - 1]).contains("line 10: it is cut off or too long"));
        assert!(forged(format!("{text}{}\n", lines[9]).as_bytes()).contains("position 9 follows 9"));
        let first = Archived { first: events[1].hash, ..marker.clone() };
        assert!(check(&first, &file).unwrap_err().to_string().contains("the marker of positions 1 to 9"));
        let other = StoreId(Uuid::from_u128(8));
        let answer = Verifier::new(STORE).check_archive(other, &marker, file.as_slice(), |_| Ok(()));
        assert!(answer.unwrap_err().to_string().contains("another store"));
    }

    #[test]
    fn an_archive_that_lacks_its_end_is_not_finished_and_a_wrong_event_not_written() {
        let events = feed(3);
        let mut writer = ArchiveWriter::begin(Vec::new(), STORE, start(), Position(3)).unwrap();
        assert!(matches!(writer.event(&events[1]), Err(ArchiveError::Broken(Broken::Gap { .. }))));
        writer.event(&events[0]).unwrap();
        writer.event(&events[1]).unwrap();
        assert!(matches!(writer.finish("a"), Err(ArchiveError::Broken(Broken::Gap { .. }))));
    }
}
