//! `mainstay events key` and `mainstay events checkpoint`: heads that somebody vouches for.

use std::fs::{File, OpenOptions};
use std::io::{Read, Write};
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use anyhow::Result;
use mainstay::Context;
use mainstay::store::chain::{Checkpoint, PublicKey, SignedCheckpoint, SigningKey};
use mainstay::store::{Broken, Head, Store, StoreId, Verifier};
use serde::Serialize;

use super::Where;
use super::prove::Walk;
use crate::output::{BadInput, Output, Unusable};
use crate::place::on_store;

/// What is read of a file with keys or checkpoints.
const FILE_BYTES_MAX: u64 = 16 << 20;

/// Makes a key to sign checkpoints with, and the key to verify them. Keep the private one where nobody who can
/// write the store can read it.
#[derive(Debug, clap::Args)]
pub(crate) struct Key {
    /// The private key's file: new, and readable by its owner only.
    #[arg(long, value_name = "FILE")]
    private: PathBuf,
    /// The public key's file: new.
    #[arg(long, value_name = "FILE")]
    public: PathBuf,
}

/// Proves the chain, then prints its head on one line, signed. Keep the line elsewhere; `events verify
/// --checkpoint` later shows that nothing before it was changed.
#[derive(Debug, clap::Args)]
pub(crate) struct Arguments {
    #[command(flatten)]
    place: Where,
    /// The private key's file, as `events key` made it.
    #[arg(long, value_name = "FILE")]
    key: PathBuf,
    /// An earlier checkpoint signed with the same key: only what follows it is proved anew.
    #[arg(long, value_name = "FILE")]
    since: Option<PathBuf>,
}

#[derive(Serialize)]
struct Made {
    key: String,
    private: PathBuf,
    public: PathBuf,
}

pub(crate) fn make_key(arguments: Key, output: &Output) -> Result<()> {
    let Key { private, public } = arguments;
    let key = SigningKey::generate()?;
    let shared = key.public()?;
    create(&private, 0o600, &key.to_pem()?)?;
    if let Err(error) = create(&public, 0o644, &shared.to_pem()) {
        // Half a pair would be in the way of the next try. It was made just now; nothing is signed with it.
        let _ = std::fs::remove_file(&private);
        return Err(error);
    }
    let made = Made { key: shared.fingerprint(), private, public };
    output.print(&made, |made| {
        format!(
            "key {}\nprivate {} (sign with it; keep it secret, and away from the store)\npublic  {} (verify with it)",
            made.key,
            made.private.display(),
            made.public.display()
        )
    })?;
    Ok(())
}

/// A file that wasn't there, with these rights from its first moment on, on disk when this returns.
fn create(path: &Path, mode: u32, text: &str) -> Result<()> {
    let in_the_way = |error| Unusable(format!("{} was not made: {error}; choose a new file", path.display()));
    let mut file =
        OpenOptions::new().write(true).create_new(true).mode(mode).open(path).map_err(in_the_way)?;
    let written = file.write_all(text.as_bytes()).and_then(|()| file.sync_all());
    if let Err(error) = written {
        let _ = std::fs::remove_file(path);
        return Err(in_the_way(error).into());
    }
    Ok(())
}

pub(crate) async fn run(arguments: Arguments, output: &Output) -> Result<()> {
    let key = private_key(&arguments.key)?;
    on_store!(arguments.place.look().await?, |store| sign(&store, &key, &arguments, output).await)
}

async fn sign(store: &impl Store, key: &SigningKey, arguments: &Arguments, output: &Output) -> Result<()> {
    let from = match &arguments.since {
        Some(file) => since(store, file, &key.public()?).await?,
        None => Verifier::new(store.id()),
    };
    let head = Walk::new(store, from).prove(output).await?.head;
    let checkpoint = Checkpoint::of(store.id(), head, Context::system().wall());
    output.line(&key.sign(checkpoint)?.to_string())?;
    Ok(())
}

/// A verifier that begins at a checkpoint, of which this store still has the head.
async fn since(store: &impl Store, file: &Path, key: &PublicKey) -> Result<Verifier> {
    let Some(Head { position, hash }) =
        checkpoints(file, key, store.id())?.into_iter().max_by_key(|h| h.position)
    else {
        return Err(BadInput(format!("{} holds no checkpoint", file.display())).into());
    };
    match store.head_at(position).await? {
        Some(head) if head.hash == hash => Ok(Verifier::from_head(head)),
        Some(_) => Err(Broken::Rewritten { at: position }.into()),
        None => Err(Broken::Truncated { ends: store.head().await?.position, expected: position }.into()),
    }
}

/// The heads of the checkpoints in a file, one a line; each signed with this key, and of this store.
pub(crate) fn checkpoints(file: &Path, key: &PublicKey, store: StoreId) -> Result<Vec<Head>> {
    let mut heads = Vec::new();
    for (i, line) in read(file)?.lines().enumerate().filter(|(_, line)| !line.trim().is_empty()) {
        let signed: Result<SignedCheckpoint, _> = line.trim().parse();
        let checkpoint = signed.and_then(|signed| signed.verify(key, store));
        let checkpoint =
            checkpoint.map_err(|why| BadInput(format!("{}, line {}: {why}", file.display(), i + 1)))?;
        heads.push(checkpoint.head());
    }
    if heads.is_empty() {
        return Err(BadInput(format!("{} holds no checkpoint", file.display())).into());
    }
    Ok(heads)
}

pub(crate) fn public_key(file: &Path) -> Result<PublicKey> {
    let key = PublicKey::from_pem(&read(file)?);
    Ok(key.map_err(|why| BadInput(format!("{}: {why}", file.display())))?)
}

fn private_key(file: &Path) -> Result<SigningKey> {
    let mode = std::fs::metadata(file).map(|found| found.mode() & 0o777);
    if let Ok(mode) = mode
        && mode & 0o077 != 0
    {
        let why = format!(
            "{} can be used by others (mode {mode:03o}): nothing was signed; if nobody has it, run chmod 600 on it, \
             else make a new key",
            file.display()
        );
        return Err(Unusable(why).into());
    }
    let key = SigningKey::from_pem(&read(file)?);
    Ok(key.map_err(|why| BadInput(format!("{}: {why}", file.display())))?)
}

fn read(path: &Path) -> Result<String> {
    let unreadable = |error| BadInput(format!("{} can't be read as text: {error}", path.display()));
    let mut text = String::new();
    let file = File::open(path).map_err(unreadable)?;
    file.take(FILE_BYTES_MAX + 1).read_to_string(&mut text).map_err(unreadable)?;
    if text.len() as u64 > FILE_BYTES_MAX {
        return Err(BadInput(format!("{} is larger than {FILE_BYTES_MAX} bytes", path.display())).into());
    }
    Ok(text)
}
