//! Signed checkpoints: a head of the chain, to be kept where nobody who can write the store can write too.
//!
//! ```text
//! store ──► head (position, hash) ──► Checkpoint ──► SigningKey ──► one line of JSON, kept elsewhere
//!                                                                             │ later
//! store ──► Verifier: every link, and the hash at that position ◄── PublicKey ┘
//! ```
//! A chain proves change only against a head that was kept elsewhere. Signed, that head may be kept with anybody:
//! on paper, in a mail, in another party's store. Ed25519 (RFC 8032) by aws-lc-rs; keys are PKCS#8 and
//! SubjectPublicKeyInfo in PEM (RFC 7468, RFC 8410), which other tools read too. What is signed is the plain text of
//! [`Checkpoint::signed_text`], so a signature can be checked without this program.

use std::fmt;
use std::str::FromStr;

use aws_lc_rs::signature::{ED25519, Ed25519KeyPair, KeyPair, UnparsedPublicKey};
use mainstay_envelope::Timestamp;
use serde::{Deserialize, Serialize};

use crate::hash::Hash;
use crate::position::{Head, Position, StoreId};

/// What the first line of every signed text and every exported line says. A change of the text makes a new kind.
const KIND: &str = "mainstay checkpoint 1";
/// Bytes of a line; a checkpoint has some 400.
const LINE_BYTES_MAX: usize = 4096;
const PRIVATE_TAG: &str = "PRIVATE KEY";
const PUBLIC_TAG: &str = "PUBLIC KEY";
/// Bytes of a file that holds a key; an Ed25519 key's has some 120.
const PEM_BYTES_MAX: usize = 16 << 10;

/// The head of a store at some time.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Checkpoint {
    /// Whose head.
    pub store: StoreId,
    /// The last position then.
    pub position: Position,
    /// The chain's hash there.
    pub hash: Hash,
    /// The wall clock of whoever made it: data, it proves nothing.
    pub at: Timestamp,
}

impl Checkpoint {
    /// The checkpoint of a head.
    pub fn of(store: StoreId, head: Head, at: Timestamp) -> Self {
        Self { store, position: head.position, hash: head.hash, at }
    }

    /// The head it is of.
    pub fn head(&self) -> Head {
        Head { position: self.position, hash: self.hash }
    }

    /// What is signed, and stays so: five lines, each ended by a line feed. No part can hold one, so no two
    /// checkpoints have the same text.
    pub fn signed_text(&self) -> String {
        let Self { store, position, hash, at } = self;
        format!(
            "{KIND}\nstore {}\nposition {position}\nhash {hash}\nat {}\n",
            store.0.hyphenated(),
            at.as_millis()
        )
    }
}

/// A checkpoint and who vouches for it. As text it is one line of JSON.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SignedCheckpoint {
    checkpoint: Checkpoint,
    key: String,
    signature: [u8; 64],
}

/// A line as it is written.
#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Line {
    kind: String,
    store: StoreId,
    position: Position,
    hash: Hash,
    at: Timestamp,
    key: String,
    signature: String,
}

impl SignedCheckpoint {
    /// What it claims. Nothing is proved before [`SignedCheckpoint::verify`].
    pub fn claimed(&self) -> &Checkpoint {
        &self.checkpoint
    }

    /// Checks that it is of this store and signed with this key. Then its head may be compared with the store's.
    ///
    /// # Errors
    /// The reason why it proves nothing here; the store was not judged.
    pub fn verify(&self, key: &PublicKey, store: StoreId) -> Result<Checkpoint, BadCheckpoint> {
        if self.key != key.fingerprint() {
            return Err(BadCheckpoint::OtherKey { signed: self.key.clone(), given: key.fingerprint() });
        }
        let text = self.checkpoint.signed_text();
        UnparsedPublicKey::new(&ED25519, &key.0)
            .verify(text.as_bytes(), &self.signature)
            .map_err(|_| BadCheckpoint::Signature)?;
        if self.checkpoint.store != store {
            return Err(BadCheckpoint::OtherStore { theirs: self.checkpoint.store, ours: store });
        }
        Ok(self.checkpoint)
    }
}

impl fmt::Display for SignedCheckpoint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Checkpoint { store, position, hash, at } = self.checkpoint;
        let signature = hex(&self.signature);
        let line = Line { kind: KIND.into(), store, position, hash, at, key: self.key.clone(), signature };
        f.write_str(&serde_json::to_string(&line).map_err(|_| fmt::Error)?)
    }
}

impl FromStr for SignedCheckpoint {
    type Err = BadCheckpoint;

    fn from_str(text: &str) -> Result<Self, BadCheckpoint> {
        let not = |why: String| BadCheckpoint::NotOne { why };
        if text.len() > LINE_BYTES_MAX {
            return Err(not(format!("{} bytes, at most {LINE_BYTES_MAX}", text.len())));
        }
        let line: Line = serde_json::from_str(text).map_err(|error| not(error.to_string()))?;
        if line.kind != KIND {
            let kind: String = line.kind.chars().take(40).collect();
            return Err(not(format!("its kind is {kind:?}, this build knows {KIND:?}")));
        }
        let is_hex = |text: &str| text.bytes().all(|b| b.is_ascii_digit() || (b'a'..=b'f').contains(&b));
        if line.key.len() != 16 || !is_hex(&line.key) {
            return Err(not("its key is not named by 16 hexadecimal digits".into()));
        }
        let signature = unhex(&line.signature);
        let Some(signature) = signature else {
            return Err(not("its signature is not 128 hexadecimal digits".into()));
        };
        let Line { store, position, hash, at, key, .. } = line;
        Ok(Self { checkpoint: Checkpoint { store, position, hash, at }, key, signature })
    }
}

/// Why a checkpoint proves nothing. Of the store it says nothing.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum BadCheckpoint {
    /// The text is none.
    #[error("this is no checkpoint: {why}; hand in the line as it was exported")]
    NotOne {
        /// What is wrong with it.
        why: String,
    },
    /// Somebody else signed it.
    #[error(
        "the checkpoint names the key {signed}, the one given is {given}: verify it with its signer's public key"
    )]
    OtherKey {
        /// The fingerprint in the checkpoint.
        signed: String,
        /// That of the key that was given.
        given: String,
    },
    /// What was signed is not what it says now.
    #[error(
        "the checkpoint's signature does not hold: it was changed after it was signed, or made up; trust neither it \
         nor where it was kept"
    )]
    Signature,
    /// It is sound, and of another store.
    #[error("the checkpoint is of store {theirs}, this is store {ours}: it says nothing about what is here")]
    OtherStore {
        /// The checkpoint's.
        theirs: StoreId,
        /// This one.
        ours: StoreId,
    },
}

/// What checkpoints are signed with. Whoever has it can vouch for any history: keep it where the store is not.
pub struct SigningKey(Ed25519KeyPair);

impl fmt::Debug for SigningKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("SigningKey").field(&self.public().map(|key| key.fingerprint())).finish()
    }
}

/// A key that can't be used or made. Its text never holds any of the key.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("this is no {what}: {why}")]
pub struct BadKey {
    /// What was expected.
    pub what: &'static str,
    /// What is wrong.
    pub why: &'static str,
}

const A_PRIVATE_KEY: &str = "private key to sign with";
const A_PUBLIC_KEY: &str = "public key to verify with";

impl SigningKey {
    /// A new one, of the operating system's randomness.
    pub fn generate() -> Result<Self, BadKey> {
        let failed =
            |_| BadKey { what: A_PRIVATE_KEY, why: "none could be made; the system gave no randomness" };
        Ed25519KeyPair::generate().map(Self).map_err(failed)
    }

    /// Reads PKCS#8 in PEM (`-----BEGIN PRIVATE KEY-----`), not encrypted.
    pub fn from_pem(text: &str) -> Result<Self, BadKey> {
        let der = der_of(text, PRIVATE_TAG, A_PRIVATE_KEY)?;
        let not = |_| BadKey { what: A_PRIVATE_KEY, why: "it holds no Ed25519 key" };
        Ed25519KeyPair::from_pkcs8(&der).map(Self).map_err(not)
    }

    /// As [`SigningKey::from_pem`] reads it. Secret: write it nowhere but to a file that only its owner can read.
    pub fn to_pem(&self) -> Result<String, BadKey> {
        let failed = |_| BadKey { what: A_PRIVATE_KEY, why: "it can't be written as PKCS#8" };
        let der = self.0.to_pkcs8v1().map_err(failed)?;
        Ok(pem_of(PRIVATE_TAG, der.as_ref()))
    }

    /// What others verify with.
    pub fn public(&self) -> Result<PublicKey, BadKey> {
        PublicKey::of(self.0.public_key().as_ref())
    }

    /// Vouches for a checkpoint. The signer should have proved the chain up to there.
    pub fn sign(&self, checkpoint: Checkpoint) -> Result<SignedCheckpoint, BadKey> {
        let failed = BadKey { what: A_PRIVATE_KEY, why: "its signature is not 64 bytes long" };
        let signature = self.0.sign(checkpoint.signed_text().as_bytes());
        let signature = signature.as_ref().try_into().map_err(|_| failed)?;
        Ok(SignedCheckpoint { checkpoint, key: self.public()?.fingerprint(), signature })
    }
}

/// What checkpoints are verified with. No secret.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct PublicKey([u8; 32]);

/// SubjectPublicKeyInfo of an Ed25519 key, before its 32 bytes: RFC 8410 §4.
const SPKI: [u8; 12] = [0x30, 0x2a, 0x30, 0x05, 0x06, 0x03, 0x2b, 0x65, 0x70, 0x03, 0x21, 0x00];

impl PublicKey {
    fn of(bytes: &[u8]) -> Result<Self, BadKey> {
        bytes.try_into().map(Self).map_err(|_| BadKey { what: A_PUBLIC_KEY, why: "it is not 32 bytes long" })
    }

    /// Reads SubjectPublicKeyInfo in PEM (`-----BEGIN PUBLIC KEY-----`).
    pub fn from_pem(text: &str) -> Result<Self, BadKey> {
        let der = der_of(text, PUBLIC_TAG, A_PUBLIC_KEY)?;
        let not = BadKey { what: A_PUBLIC_KEY, why: "it holds no Ed25519 key" };
        der.strip_prefix(&SPKI).ok_or(not).and_then(Self::of)
    }

    /// As [`PublicKey::from_pem`] reads it.
    pub fn to_pem(&self) -> String {
        pem_of(PUBLIC_TAG, &[SPKI.as_slice(), &self.0].concat())
    }

    /// Names the key: 16 hexadecimal digits of its BLAKE3 hash. For telling keys apart, not for trusting one.
    pub fn fingerprint(&self) -> String {
        hex(&blake3::hash(&self.0).as_bytes()[..8])
    }
}

fn pem_of(tag: &str, der: &[u8]) -> String {
    let line_feeds = pem::EncodeConfig::new().set_line_ending(pem::LineEnding::LF);
    pem::encode_config(&pem::Pem::new(tag, der), line_feeds)
}

fn der_of(text: &str, tag: &str, what: &'static str) -> Result<Vec<u8>, BadKey> {
    let refuse = |why| Err(BadKey { what, why });
    if text.len() > PEM_BYTES_MAX {
        return refuse("the text is longer than any key's");
    }
    match pem::parse(text) {
        Ok(found) if found.tag() == tag => Ok(found.into_contents()),
        Ok(found) if found.tag() == PRIVATE_TAG => refuse("it is the private key: keep that one for signing"),
        Ok(found) if found.tag() == PUBLIC_TAG => refuse("it is the public key"),
        Ok(_) => refuse("it is something else in PEM"),
        Err(_) => refuse("it is not PEM"),
    }
}

fn hex(bytes: &[u8]) -> String {
    bytes
        .iter()
        .flat_map(|byte| [byte >> 4, byte & 15])
        .filter_map(|d| char::from_digit(d.into(), 16))
        .collect()
}

/// 64 bytes from 128 lower-case hexadecimal digits: one signature has one text.
fn unhex(text: &str) -> Option<[u8; 64]> {
    let digits = text.as_bytes();
    let value = |digit: u8| match digit {
        b'0'..=b'9' => Some(digit - b'0'),
        b'a'..=b'f' => Some(digit - b'a' + 10),
        _ => None,
    };
    let mut bytes = [0; 64];
    if digits.len() != 2 * bytes.len() {
        return None;
    }
    for (byte, pair) in bytes.iter_mut().zip(digits.chunks_exact(2)) {
        *byte = value(pair[0])? << 4 | value(pair[1])?;
    }
    Some(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// RFC 8032 §7.1, test 1, as RFC 8410 writes keys.
    const KEY: &str = "-----BEGIN PRIVATE KEY-----\n\
        MC4CAQAwBQYDK2VwBCIEIJ1hsZ3v/VpguoRK9JLsLMREScVpezJpGXA7rAMcrn9g\n-----END PRIVATE KEY-----\n";
    const STORE: StoreId = StoreId(uuid::Uuid::from_u128(7));

    fn checkpoint() -> Checkpoint {
        Checkpoint {
            store: STORE,
            position: Position(12),
            hash: Hash([0xab; 32]),
            at: Timestamp::from_millis(1_767_607_200_000),
        }
    }

    fn signed() -> SignedCheckpoint {
        SigningKey::from_pem(KEY).unwrap().sign(checkpoint()).unwrap()
    }

    fn public() -> PublicKey {
        SigningKey::from_pem(KEY).unwrap().public().unwrap()
    }

    #[test]
    fn the_line_the_text_and_the_keys_are_as_they_were_exported_before() {
        assert_eq!(
            checkpoint().signed_text(),
            "mainstay checkpoint 1\nstore 00000000-0000-0000-0000-000000000007\nposition 12\n\
             hash abababababababababababababababababababababababababababababababab\nat 1767607200000\n"
        );
        // The public key that RFC 8032 gives.
        assert_eq!(hex(&public().0), "d75a980182b10ab7d54bfed3c964073a0ee172f3daa62325af021a68f707511a");
        assert_eq!(SigningKey::from_pem(KEY).unwrap().to_pem().unwrap(), KEY);
        assert_eq!(PublicKey::from_pem(&public().to_pem()), Ok(public()));
        let line = signed().to_string();
        assert_eq!(
            line,
            concat!(
                r#"{"kind":"mainstay checkpoint 1","store":"00000000-0000-0000-0000-000000000007","position":12,"#,
                r#""hash":"abababababababababababababababababababababababababababababababab","at":1767607200000,"#,
                r#""key":"6c31041268f47160","signature":"9d0114ac1529fd8abee79d656e4d27641e9fd2dbcb0e76bc216927"#,
                r#"e4f9462850a95e39cfe2074b1b03bc724666ed5288a1f268c5622bf0720ca3b257e4775402"}"#
            )
        );
        assert_eq!(line.parse(), Ok(signed()));
    }

    #[test]
    fn a_sound_checkpoint_is_accepted_and_a_new_key_signs_as_well() {
        assert_eq!(signed().verify(&public(), STORE), Ok(checkpoint()));
        let key = SigningKey::generate().unwrap();
        let key = SigningKey::from_pem(&key.to_pem().unwrap()).unwrap();
        let line = key.sign(checkpoint()).unwrap().to_string();
        let public = PublicKey::from_pem(&key.public().unwrap().to_pem()).unwrap();
        assert_eq!(line.parse::<SignedCheckpoint>().unwrap().verify(&public, STORE), Ok(checkpoint()));
    }

    #[test]
    fn whatever_is_changed_in_it_the_signature_no_longer_holds() {
        let changes: [fn(&mut SignedCheckpoint); 5] = [
            |signed| signed.checkpoint.position = Position(11),
            |signed| signed.checkpoint.hash.0[31] ^= 1,
            |signed| signed.checkpoint.at = Timestamp::from_millis(0),
            |signed| signed.checkpoint.store = StoreId(uuid::Uuid::from_u128(8)),
            |signed| signed.signature[63] ^= 1,
        ];
        for (i, change) in changes.into_iter().enumerate() {
            let mut changed = signed();
            change(&mut changed);
            assert_eq!(changed.verify(&public(), STORE), Err(BadCheckpoint::Signature), "{i}");
        }
    }

    #[test]
    fn another_key_and_another_store_are_told_apart() {
        let other = SigningKey::generate().unwrap().public().unwrap();
        let given = other.fingerprint();
        let told = BadCheckpoint::OtherKey { signed: public().fingerprint(), given: given.clone() };
        assert_eq!(signed().verify(&other, STORE), Err(told));
        // One who claims the other key's name has its signature against them.
        let mut claimed = signed();
        claimed.key = given;
        assert_eq!(claimed.verify(&other, STORE), Err(BadCheckpoint::Signature));
        let ours = StoreId(uuid::Uuid::from_u128(9));
        assert_eq!(signed().verify(&public(), ours), Err(BadCheckpoint::OtherStore { theirs: STORE, ours }));
    }

    #[test]
    fn a_line_that_is_no_checkpoint_is_refused_with_its_reason() {
        let line = signed().to_string();
        let why = |text: &str| match text.parse::<SignedCheckpoint>() {
            Err(BadCheckpoint::NotOne { why }) => why,
            other => panic!("{other:?}"),
        };
        assert!(why("").contains("EOF"));
        assert!(why(&line.replace("checkpoint 1", "checkpoint 2")).contains("checkpoint 2"));
        assert!(why(&line.replace("\"at\"", "\"position\":13,\"at\"")).contains("duplicate field"));
        assert!(why(&line.replace("\"at\"", "\"more\":1,\"at\"")).contains("unknown field"));
        assert!(why(&line[..line.len() - 1]).contains("EOF"));
        assert!(why(&line.replace(&hex(&signed().signature), "00")).contains("128 hexadecimal"));
        assert!(why(&line.to_uppercase()).contains("unknown field"));
        assert!(why(&line.replace(&public().fingerprint(), "../../../../key1")).contains("16 hexadecimal"));
        assert!(why(&"x".repeat(5_000)).contains("at most 4096"));
    }

    #[test]
    fn a_file_that_is_no_key_is_refused_without_showing_it() {
        let private = |text: &str| SigningKey::from_pem(text).unwrap_err().to_string();
        let public_of = |text: &str| PublicKey::from_pem(text).unwrap_err().to_string();
        assert_eq!(private("secret"), "this is no private key to sign with: it is not PEM");
        assert_eq!(private(&public().to_pem()), "this is no private key to sign with: it is the public key");
        let told = "this is no public key to verify with: it is the private key: keep that one for signing";
        assert_eq!(public_of(KEY), told);
        let rsa = pem_of(PUBLIC_TAG, &[0x30, 0x2a, 1, 2, 3]);
        assert_eq!(public_of(&rsa), "this is no public key to verify with: it holds no Ed25519 key");
        assert!(public_of(&"x".repeat(20_000)).contains("longer than any key's"));
        assert!(private(&pem_of(PRIVATE_TAG, &[1; 48])).contains("holds no Ed25519 key"));
        let shown = format!("{:?}", SigningKey::from_pem(KEY).unwrap());
        assert_eq!(shown, format!("SigningKey(Ok({:?}))", public().fingerprint()));
    }
}
