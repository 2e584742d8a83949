//! What a ring brings along: the messages of its commit, so that a follower at the end of the log need not read them
//! from the file.
//!
//! ```text
//!  2 │ the log's id, 16 bytes │ run │ run │ …
//!  run      topic · partition · first offset · count · bytes that follow │ message │ message │ …
//!  message  producer · epoch · sequence · number · content hash · key · mark · published · event · data
//! ```
//! Numbers are little-endian, texts and bytes begin with their length. A run is a stretch of one channel. It only goes
//! between two processes of one user on one machine; what can't be read is taken for a ring that brought nothing.

use bytes::{Buf, Bytes};
use mainstay_envelope::{CloudEvent, ContentHash, MessageIdentity, Producer, Timestamp};
use mainstay_messaging::{Delivered, Message, Offset, Topic};
use uuid::Uuid;

use super::append::Prepared;

/// Bytes of a parcel at most; what is more is read from the file. A socket takes 208 KiB of them, as Linux comes.
pub(super) const PARCEL_BYTES_MAX: usize = 64 << 10;

/// The first byte: what follows is as above. A ring without a parcel is one byte, [`RING`].
const PARCEL: u8 = 2;

/// A ring that brings nothing.
pub(super) const RING: u8 = 1;

/// A message's numbers and lengths.
const MESSAGE_BYTES: usize = 96;

/// Messages of one channel that stand together, not yet taken apart.
#[derive(Debug, Clone)]
pub(super) struct Run {
    pub(super) topic: Topic,
    pub(super) partition: u32,
    pub(super) first: u64,
    pub(super) count: u32,
    pub(super) body: Bytes,
}

impl Run {
    /// The offset of its last message.
    pub(super) fn last(&self) -> u64 {
        self.first + u64::from(self.count) - 1
    }
}

/// Packs what a commit has appended, and where. False where it is too much for one parcel: then it is not whole.
pub(super) fn pack<'a>(
    to: &mut Vec<u8>,
    log: Uuid,
    appended: impl Iterator<Item = (&'a Prepared, &'a [(u32, Offset)])>,
) -> bool {
    to.clear();
    to.push(PARCEL);
    to.extend_from_slice(log.as_bytes());
    let mut open: Option<Open<'_>> = None;
    for (append, places) in appended {
        for (row, (partition, offset)) in append.rows.iter().zip(places) {
            let message = &row.message;
            let more = MESSAGE_BYTES + message.key.len() + row.event.len() + message.data.len();
            // The names are short, and counted with what a run needs.
            if to.len() + more + 2 * 512 > PARCEL_BYTES_MAX {
                return false;
            }
            let goes_on = open.as_ref().is_some_and(|run| run.takes(&message.topic, *partition, offset.0));
            if !goes_on {
                if let Some(run) = open.take() {
                    run.close(to);
                }
                open = Some(Open::begin(to, &message.topic, *partition, offset.0));
            }
            if let Some(run) = &mut open {
                run.count += 1;
            }
            pack_message(to, row.event.as_slice(), message, append.published);
        }
    }
    if let Some(run) = open {
        run.close(to);
    }
    true
}

/// A run that is being packed.
struct Open<'a> {
    topic: &'a Topic,
    partition: u32,
    first: u64,
    count: u32,
    /// Where its count stands.
    head: usize,
}

impl<'a> Open<'a> {
    fn begin(to: &mut Vec<u8>, topic: &'a Topic, partition: u32, first: u64) -> Self {
        put(to, topic.as_str().as_bytes());
        to.extend_from_slice(&partition.to_le_bytes());
        to.extend_from_slice(&first.to_le_bytes());
        let head = to.len();
        to.extend_from_slice(&[0; 8]); // count and bytes, known when it is closed
        Self { topic, partition, first, count: 0, head }
    }

    fn takes(&self, topic: &Topic, partition: u32, offset: u64) -> bool {
        self.topic == topic && self.partition == partition && self.first + u64::from(self.count) == offset
    }

    fn close(self, to: &mut [u8]) {
        let bytes = (to.len() - self.head - 8) as u32;
        to[self.head..self.head + 4].copy_from_slice(&self.count.to_le_bytes());
        to[self.head + 4..self.head + 8].copy_from_slice(&bytes.to_le_bytes());
    }
}

fn pack_message(to: &mut Vec<u8>, event: &[u8], message: &Message, published: Timestamp) {
    let identity = &message.identity;
    put(to, identity.producer.as_str().as_bytes());
    to.extend_from_slice(&identity.epoch.to_le_bytes());
    to.extend_from_slice(&identity.partition.to_le_bytes());
    to.extend_from_slice(&identity.seq.to_le_bytes());
    to.extend_from_slice(&identity.content.0);
    put(to, message.key.as_bytes());
    to.extend_from_slice(&message.mark.to_le_bytes());
    to.extend_from_slice(&published.as_millis().to_le_bytes());
    put(to, event);
    put(to, &message.data);
}

fn put(to: &mut Vec<u8>, bytes: &[u8]) {
    to.extend_from_slice(&(bytes.len() as u32).to_le_bytes());
    to.extend_from_slice(bytes);
}

/// The log that a parcel is of, and its runs; none where it is no parcel, or not whole.
pub(super) fn unpack(parcel: &[u8]) -> Option<(Uuid, Vec<Run>)> {
    let [PARCEL, rest @ ..] = parcel else { return None };
    let mut rest = Bytes::copy_from_slice(rest);
    let log = Uuid::from_bytes(array(&mut rest)?);
    let mut runs = Vec::new();
    while rest.has_remaining() {
        let topic = Topic::new(text(&mut rest)?).ok()?;
        let (partition, first) = (rest.try_get_u32_le().ok()?, rest.try_get_u64_le().ok()?);
        let count = rest.try_get_u32_le().ok()?;
        let body = taken(&mut rest)?;
        // An offset after the run's last one must be a number, too.
        first.checked_add(u64::from(count))?;
        if first == 0 || count == 0 {
            return None;
        }
        runs.push(Run { topic, partition, first, count, body });
    }
    Some((log, runs))
}

/// The messages of a run, those after an offset; none where it can't be read.
pub(super) fn messages(run: &Run, after: u64) -> Option<Vec<Delivered>> {
    let mut rest = run.body.clone();
    let mut found = Vec::with_capacity(rest.len().min(run.count as usize * MESSAGE_BYTES) / MESSAGE_BYTES);
    for offset in run.first..=run.last() {
        let delivered = message(&mut rest, &run.topic, run.partition, Offset(offset))?;
        if offset > after {
            found.push(delivered);
        }
    }
    (!rest.has_remaining()).then_some(found)
}

fn message(rest: &mut Bytes, topic: &Topic, partition: u32, offset: Offset) -> Option<Delivered> {
    let identity = MessageIdentity {
        producer: Producer::new(text(rest)?).ok()?,
        epoch: rest.try_get_u32_le().ok()?,
        partition: rest.try_get_u32_le().ok()?,
        seq: rest.try_get_u64_le().ok()?,
        content: ContentHash(array(rest)?),
    };
    let (key, mark) = (text(rest)?, rest.try_get_u64_le().ok()?);
    let published = Timestamp::from_millis(rest.try_get_i64_le().ok()?);
    let (event, _) = CloudEvent::from_json(&taken(rest)?).ok()?;
    let data = taken(rest)?;
    let message = Message { identity, topic: topic.clone(), key, event, data, mark };
    Some(Delivered { offset, partition, published, message })
}

fn array<const N: usize>(rest: &mut Bytes) -> Option<[u8; N]> {
    let mut bytes = [0; N];
    rest.try_copy_to_slice(&mut bytes).ok()?;
    Some(bytes)
}

/// Bytes that begin with their length.
fn taken(rest: &mut Bytes) -> Option<Bytes> {
    let bytes = rest.try_get_u32_le().ok()? as usize;
    (bytes <= rest.len()).then(|| rest.split_to(bytes))
}

fn text(rest: &mut Bytes) -> Option<String> {
    String::from_utf8(taken(rest)?.into()).ok()
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use mainstay_envelope::Context;

    use super::*;

    fn of(topic: &str, number: u64, data: usize) -> Message {
        let data: Vec<u8> = (0..data).map(|at| (at as u64 * 31 + number) as u8).collect();
        let content = ContentHash::of(&data);
        let producer = Producer::new("order").unwrap();
        let event = CloudEvent::new(number.to_string(), "/order", "OrderCreated").unwrap();
        Message {
            identity: MessageIdentity { producer, epoch: 3, partition: 0, seq: number, content },
            topic: Topic::new(topic).unwrap(),
            key: format!("key ä {number}"),
            event: event.with_extension("colour", "blue").unwrap(),
            data: Bytes::from(data),
            mark: number + 7,
        }
    }

    type Append = (Vec<Message>, Vec<(u32, Offset)>);

    /// Appends, with their places, and the parcel made of them.
    fn packed(appends: &[Append]) -> (bool, Vec<u8>) {
        let cx = Context::system();
        let prepared: Vec<_> =
            appends.iter().map(|(messages, _)| Prepared::of(&cx, messages.clone(), 1)).collect();
        let mut parcel = vec![9; 3];
        let places = appends.iter().map(|(_, places)| &places[..]);
        let fits = pack(&mut parcel, Uuid::from_u128(5), prepared.iter().zip(places));
        (fits, parcel)
    }

    #[test]
    fn what_is_unpacked_is_what_was_packed() {
        let appends = [
            (vec![of("a", 1, 10), of("a", 2, 0)], vec![(0, Offset(11)), (0, Offset(12))]),
            (vec![of("a", 3, 5_000), of("b", 4, 1)], vec![(0, Offset(13)), (0, Offset(1))]),
            (vec![of("a", 5, 1)], vec![(1, Offset(14))]),
        ];
        let (fits, parcel) = packed(&appends);
        assert!(fits);
        let (log, runs) = unpack(&parcel).unwrap();
        assert_eq!(log, Uuid::from_u128(5));
        let shape: Vec<_> =
            runs.iter().map(|run| (run.topic.as_str(), run.partition, run.first, run.last())).collect();
        assert_eq!(shape, [("a", 0, 11, 13), ("b", 0, 1, 1), ("a", 1, 14, 14)]);
        let all: Vec<_> = runs.iter().flat_map(|run| messages(run, 0).unwrap()).collect();
        let sent = appends.iter().flat_map(|(messages, places)| messages.iter().zip(places));
        for (found, (message, (partition, offset))) in all.iter().zip(sent) {
            assert_eq!((&found.message, found.partition, found.offset), (message, *partition, *offset));
        }
        assert_eq!(all.len(), 5);
        let later = messages(&runs[0], 12).unwrap();
        assert_eq!(later.iter().map(|found| found.offset.0).collect::<Vec<_>>(), [13]);
    }

    #[test]
    fn too_much_is_not_packed() {
        let places = vec![(0, Offset(1))];
        assert!(packed(&[(vec![of("a", 1, PARCEL_BYTES_MAX - 2_000)], places.clone())]).0);
        assert!(!packed(&[(vec![of("a", 1, PARCEL_BYTES_MAX - 500)], places)]).0);
    }

    #[test]
    fn a_parcel_cut_or_spoilt_anywhere_is_none_or_says_nothing_wrong_of_its_length() {
        let (_, whole) = packed(&[(vec![of("a", 1, 40)], vec![(0, Offset(1))])]);
        let read = |parcel: &[u8]| {
            let (_, runs) = unpack(parcel)?;
            runs.iter().map(|run| messages(run, 0)).collect::<Option<Vec<_>>>()
        };
        assert!(read(&whole).is_some());
        for at in 0..whole.len() {
            // Cut after the id it is whole again, and empty.
            assert!(read(&whole[..at]).is_none_or(|found| at == 17 && found.is_empty()), "cut at {at}");
            for bit in 0..8 {
                let mut spoilt = whole.clone();
                spoilt[at] ^= 1 << bit;
                // Whatever it says, it does not panic, and takes no more memory than it has bytes.
                let _ = read(&spoilt);
            }
        }
        assert!(unpack(&[RING]).is_none());
    }
}
