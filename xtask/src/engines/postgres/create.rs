//! A new cluster: where its data goes, and from nothing to three servers and a pooler.

use std::fs;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::io::Read;
use std::net::TcpListener;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};
use rustix::process::geteuid;

use super::super::tool::{Account, succeed};
use super::cluster::Cluster;
use super::node::{Node, PORTS};
use super::processes::end_all_in;
use super::programs::Programs;
use super::state::Facts;
use super::texts;

/// `initdb` writes and flushes some tens of megabytes.
const INITDB_MAX: Duration = Duration::from_secs(180);

const OPENSSL_MAX: Duration = Duration::from_secs(60);

/// Stands in every home: only a folder with it is ever emptied.
const MARK: &str = ".mainstay-engine";

/// How the folder under the temporary one is called.
const FAR_PREFIX: &str = "mainstay-engines-";

/// What a new cluster is to be.
pub(super) struct Wanted<'a> {
    pub(super) instance: &'a str,
    pub(super) port_base: u16,
    /// The state file; beside it the data goes when the server's user gets there.
    pub(super) file: &'a Path,
    /// Where the data is to go instead.
    pub(super) data: Option<&'a Path>,
}

/// Makes a cluster from nothing and leaves it running.
///
/// # Errors
/// What failed; nothing of it is left running then.
pub(super) fn create(wanted: &Wanted<'_>, account: &Account, programs: &Programs) -> Result<Cluster> {
    // Of an earlier cluster whose state file is lost, or of one that was cut off while it was made.
    for home in possible_homes(wanted.file)?.iter().chain(&wanted.data.map(in_data)) {
        end_all_in(home)?;
    }
    check_ports(wanted.port_base)?;
    let home = home(wanted, account)?;
    empty(&home)?;
    let mut cluster = Cluster {
        facts: Facts {
            instance: wanted.instance.to_owned(),
            version: programs.version,
            port_base: wanted.port_base,
            leader: Node::R0,
            out: Vec::new(),
            sync: false,
            home: home.clone(),
        },
        account: account.clone(),
        programs: programs.clone(),
        file: wanted.file.to_path_buf(),
    };
    if let Err(error) = fill(&mut cluster) {
        end_all_in(&home).context("what was started can't be ended")?;
        return Err(error.context(format!(
            "the cluster was not made, and nothing of it runs; what its servers said is in {}",
            home.display()
        )));
    }
    Ok(cluster)
}

fn fill(cluster: &mut Cluster) -> Result<()> {
    let Facts { home, .. } = cluster.facts.clone();
    let account = cluster.account.clone();
    let password = password()?;
    let write = |name: &str, text: &str| account.write(&home.join(name), text, 0o600);
    write("password", &password)?;
    write("pgpass", &texts::passwords(&password))?;
    write("userlist.txt", &texts::pooler_users(&password))?;
    write("pg_hba.conf", texts::host_based_access())?;
    write("pg_ident.conf", "")?;
    certify(cluster)?;

    let leader = cluster.facts.leader;
    let mut initdb = cluster.client("initdb");
    initdb.arg("-D").arg(cluster.facts.data(leader)).arg("--pwfile").arg(home.join("password"));
    initdb.args(["-U", "postgres", "--auth=scram-sha-256", "--encoding=UTF8", "--data-checksums"]);
    // A language's order of texts and not the bytes' order, as users' databases have it: code that relies on the bytes'
    // has to say so.
    initdb.args(["--locale=C.UTF-8", "--locale-provider=icu", "--icu-locale=en-US"]);
    succeed(&mut initdb, "", INITDB_MAX)?;
    cluster.start(leader)?;
    // One after the other: a database can't be made inside a transaction.
    cluster.ask_node(leader, &texts::roles(&password))?;
    for node in leader.others() {
        cluster.copy(node)?;
    }
    cluster.raise_pooler()?;
    for node in leader.others() {
        ensure!(
            cluster.comes_to_follow(node)?,
            "{} does not follow the leader; see {}",
            node.name(),
            cluster.facts.log(node).display()
        );
    }
    Ok(())
}

/// A certificate that signs itself, for `localhost`: trusted by who is given it, refused by everybody else.
fn certify(cluster: &Cluster) -> Result<()> {
    let home = &cluster.facts.home;
    let mut openssl = cluster.account.command(&cluster.programs.openssl, home);
    openssl.args([
        "req",
        "-x509",
        "-newkey",
        "ec",
        "-pkeyopt",
        "ec_paramgen_curve:P-256",
        "-nodes",
        "-days",
        "3650",
    ]);
    openssl.args(["-subj", "/CN=localhost", "-addext", "subjectAltName=DNS:localhost,IP:127.0.0.1"]);
    openssl.args(["-keyout", "server.key", "-out", "server.crt"]);
    succeed(&mut openssl, "", OPENSSL_MAX)?;
    // Again as files of ours: the server refuses a key that others may read.
    for (name, mode) in [("server.key", 0o600), ("server.crt", 0o644)] {
        let file = home.join(name);
        let text = fs::read_to_string(&file).with_context(|| format!("{} can't be read", file.display()))?;
        cluster.account.write(&file, &text, mode)?;
    }
    Ok(())
}

/// 128 bits of the kernel's, as hexadecimal digits: nothing in it needs quoting anywhere.
fn password() -> Result<String> {
    let mut bytes = [0; 16];
    let read = fs::File::open("/dev/urandom").and_then(|mut chance| chance.read_exact(&mut bytes));
    read.context("the kernel gives no random bytes for a password")?;
    Ok(bytes.iter().map(|byte| format!("{byte:02x}")).collect())
}

/// The folder for data, configuration and logs, made and marked: as asked, otherwise beside the state file, otherwise,
/// where the server's user does not get there, under the system's temporary folder.
fn home(wanted: &Wanted<'_>, account: &Account) -> Result<PathBuf> {
    if let Some(data) = wanted.data {
        let home = in_data(data);
        ensure!(
            claim(&home, account)?,
            "the server's user can't write in {}; let it pass through every folder on the way",
            data.display()
        );
        return Ok(home);
    }
    let near = wanted.file.with_extension("");
    if claim(&near, account)? {
        return Ok(near);
    }
    // It may not even be readable to its owner; it is empty but for the mark.
    discard(&near)?;
    let far = far(&near)?;
    ensure!(
        claim(&far, account)?,
        "the server's user can write neither in {} nor in {}; name a folder with --data",
        near.display(),
        far.display()
    );
    Ok(far)
}

/// The home in a folder that was asked for, which may hold other things.
fn in_data(data: &Path) -> PathBuf {
    data.join("mainstay-postgres")
}

/// Where an instance's data may be when it was not asked for.
pub(super) fn possible_homes(file: &Path) -> Result<[PathBuf; 2]> {
    let near = file.with_extension("");
    let far = far(&near)?;
    Ok([near, far])
}

/// The place under the temporary folder: another for every user and checkout.
fn far(near: &Path) -> Result<PathBuf> {
    let mut hasher = DefaultHasher::new();
    near.parent().hash(&mut hasher);
    let folder = format!("{FAR_PREFIX}{}-{:016x}", geteuid().as_raw(), hasher.finish());
    let name = near.file_name().context("an instance without a name")?;
    Ok(std::env::temp_dir().join(folder).join(name))
}

/// Makes the folder and marks it as ours; whether the server's user reaches it.
fn claim(home: &Path, account: &Account) -> Result<bool> {
    let mark = home.join(MARK);
    if home.exists() && !mark.exists() {
        let is_empty = fs::read_dir(home).is_ok_and(|mut entries| entries.next().is_none());
        ensure!(is_empty, "{} holds what is not ours; move it away, or name another folder", home.display());
    }
    if let Some(parent) = home.parent() {
        fs::create_dir_all(parent).with_context(|| format!("{} can't be made", parent.display()))?;
        let owner = fs::symlink_metadata(parent)
            .with_context(|| format!("{} can't be looked at", parent.display()))?;
        // In a temporary folder anybody may have made it before us.
        ensure!(
            !parent.starts_with(std::env::temp_dir()) || owner.is_dir() && owner.uid() == geteuid().as_raw(),
            "{} belongs to somebody else; remove it, or name another folder with --data",
            parent.display()
        );
    }
    account.make_folder(home)?;
    fs::write(&mark, "").with_context(|| format!("{} can't be written", mark.display()))?;
    account.reaches(home)
}

/// Removes everything from a home but its mark.
fn empty(home: &Path) -> Result<()> {
    ensure!(home.join(MARK).exists(), "{} is not a folder of ours; nothing was removed", home.display());
    let failed = || format!("{} can't be emptied", home.display());
    for entry in fs::read_dir(home).with_context(failed)? {
        let entry = entry.with_context(failed)?;
        let path = entry.path();
        if entry.file_type().with_context(failed)?.is_dir() {
            fs::remove_dir_all(&path).with_context(failed)?;
        } else if entry.file_name() != MARK {
            fs::remove_file(&path).with_context(failed)?;
        }
    }
    Ok(())
}

/// Removes a home with all its data; no error when there is none.
pub(super) fn discard(home: &Path) -> Result<()> {
    if !home.exists() {
        return Ok(());
    }
    end_all_in(home)?;
    empty(home)?;
    fs::remove_dir_all(home).with_context(|| format!("{} can't be removed", home.display()))?;
    // Ours as well, and not empty when another instance is in it.
    let ours = |parent: &&Path| {
        parent.file_name().is_some_and(|name| name.to_string_lossy().starts_with(FAR_PREFIX))
    };
    if let Some(parent) = home.parent().filter(ours) {
        let _ = fs::remove_dir(parent);
    }
    Ok(())
}

/// The ports exist and are free, or this tells which one is not.
fn check_ports(base: u16) -> Result<()> {
    if !(1024..=u16::MAX - PORTS).contains(&base) {
        bail!("--port-base {base}: four ports from there on are needed, between 1024 and 65535");
    }
    for port in base..base + PORTS {
        TcpListener::bind(("127.0.0.1", port)).with_context(|| {
            format!(
                "port {port} on the loopback is taken, so nothing was started; end who has it (ss -ltnp shows it), or \
                 choose others with --port-base"
            )
        })?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn wanted<'a>(file: &'a Path, data: Option<&'a Path>) -> Wanted<'a> {
        Wanted { instance: "postgres", port_base: 25_432, file, data }
    }

    #[test]
    fn data_lies_beside_the_state_file_or_where_asked() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("engines/postgres.json");
        let own = Account::own();
        let near = home(&wanted(&file, None), &own).unwrap();
        assert_eq!(near, folder.path().join("engines/postgres"));
        let data = folder.path().join("disk");
        let asked = home(&wanted(&file, Some(&data)), &own).unwrap();
        assert_eq!(asked, data.join("mainstay-postgres"));
    }

    #[test]
    fn what_is_not_ours_is_neither_taken_nor_removed() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("engines/postgres.json");
        let near = folder.path().join("engines/postgres");
        fs::create_dir_all(&near).unwrap();
        fs::write(near.join("thesis.txt"), "years of work").unwrap();
        let error = home(&wanted(&file, None), &Account::own()).unwrap_err();
        assert!(error.to_string().contains("not ours"), "{error}");
        assert!(discard(&near).is_err());
        assert!(near.join("thesis.txt").exists());
    }

    #[test]
    fn a_home_of_ours_is_emptied_and_removed() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("engines/postgres.json");
        let near = home(&wanted(&file, None), &Account::own()).unwrap();
        fs::create_dir(near.join("r0")).unwrap();
        fs::write(near.join("r0/PG_VERSION"), "15").unwrap();
        fs::write(near.join("r0.conf"), "").unwrap();
        empty(&near).unwrap();
        assert_eq!(fs::read_dir(&near).unwrap().count(), 1);
        discard(&near).unwrap();
        assert!(!near.exists() && near.parent().unwrap().exists());
        discard(&near).unwrap();
    }

    #[test]
    fn every_instance_and_checkout_has_its_own_place_under_the_temporary_folder() {
        let one = far(Path::new("/a/target/engines/postgres")).unwrap();
        let other = far(Path::new("/b/target/engines/postgres")).unwrap();
        assert!(one.starts_with(std::env::temp_dir()) && one.ends_with("postgres"));
        assert_ne!(one.parent(), other.parent());
        assert_eq!(one.parent(), far(Path::new("/a/target/engines/lane")).unwrap().parent());
    }

    #[test]
    fn a_password_is_new_each_time_and_needs_no_quotes() {
        let one = password().unwrap();
        assert!(one.len() == 32 && one.bytes().all(|byte| byte.is_ascii_hexdigit()), "{one}");
        assert_ne!(one, password().unwrap());
    }

    #[test]
    fn four_ports_have_to_exist() {
        for base in [80, 65_532] {
            let error = check_ports(base).unwrap_err();
            assert!(error.to_string().contains("four ports"), "{error}");
        }
    }

    #[test]
    fn a_port_that_is_taken_is_named() {
        let taken = TcpListener::bind(("127.0.0.1", 0)).unwrap();
        let port = taken.local_addr().unwrap().port();
        let error = check_ports(port.min(u16::MAX - PORTS)).unwrap_err();
        assert!(error.to_string().contains("is taken"), "{error}");
    }
}
