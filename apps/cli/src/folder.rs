//! The data folder of `mainstay up`: what lies where, and which services there are.

use std::fs::{self, DirBuilder, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use anyhow::Result;
use mainstay::Context;
use mainstay::postgres::Postgres;
use mainstay::sqlite::{Options, Sqlite};
use serde::Serialize;
use uuid::Uuid;

use crate::output::Unusable;
use crate::place::{self, Given, Server};

/// Where the data are when nothing is said about it.
pub(crate) const DEFAULT: &str = "mainstay-data";

/// The beginning of the schemas' names where the stores are in a database and the URL names none: `shop_order` and so on.
pub(crate) const SCHEMAS: &str = "shop";

/// The stores of several services, all of one kind.
#[derive(Debug)]
pub(crate) enum Stores {
    Files(Vec<(Service, Sqlite)>),
    Server(Vec<(Service, Postgres)>),
}

/// What a small file says, that is for this user alone; written with `text` when it is not there.
pub(crate) fn kept(path: &Path, text: &str) -> io::Result<String> {
    match OpenOptions::new().write(true).create_new(true).mode(0o600).open(path) {
        Ok(mut file) => {
            file.write_all(text.as_bytes())?;
            file.sync_all()?;
        }
        Err(cause) if cause.kind() == io::ErrorKind::AlreadyExists => {}
        Err(cause) => return Err(cause),
    }
    fs::read_to_string(path)
}

/// A service of the shop.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, clap::ValueEnum)]
#[serde(rename_all = "lowercase")]
pub(crate) enum Service {
    Order,
    Payment,
    Inventory,
    /// Somebody else's, simulated.
    Processor,
}

impl Service {
    /// All of them, in the order of their ports.
    pub(crate) const ALL: [Self; 4] = [Self::Order, Self::Payment, Self::Inventory, Self::Processor];

    /// Those that tell each other what happened.
    pub(crate) const PARTICIPANTS: [Self; 3] = [Self::Order, Self::Payment, Self::Inventory];

    /// In the order in which they start, which is reversed when they drain: what takes orders comes last and goes
    /// first, so that an accepted order finds the others there.
    pub(crate) const STARTING: [Self; 4] = [Self::Processor, Self::Inventory, Self::Payment, Self::Order];

    /// Whom it calls.
    pub(crate) fn callees(self) -> &'static [Self] {
        match self {
            Self::Order => &[Self::Inventory],
            Self::Payment => &[Self::Processor],
            Self::Inventory | Self::Processor => &[],
        }
    }

    /// The name of its folder, its topic, and its lines in the log.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Order => "order",
            Self::Payment => "payment",
            Self::Inventory => "inventory",
            Self::Processor => "processor",
        }
    }

    /// How far its port lies above `--port-base`.
    pub(crate) fn port_offset(self) -> u16 {
        match self {
            Self::Order => 1,
            Self::Payment => 2,
            Self::Inventory => 3,
            Self::Processor => 4,
        }
    }
}

impl std::fmt::Display for Service {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(self.name())
    }
}

/// ```text
/// DIR/up.lock
/// DIR/{order,payment,inventory,processor}/lock        held by the process that writes there
/// DIR/{order,payment,inventory,processor}/store.db    its facts and views
/// DIR/{order,payment,inventory,processor}/log.db      what it tells the others
/// ```
/// Where the stores are in a database (`--store`), in place of store.db:
/// ```text
/// DIR/identity                              by which each store knows its folder again
/// DIR/{order,payment,inventory,processor}/store.id    by which the folder knows its stores again
/// ```
#[derive(Debug, Clone)]
pub(crate) struct Folder(PathBuf);

impl Folder {
    pub(crate) fn new(path: impl Into<PathBuf>) -> Self {
        Self(path.into())
    }

    pub(crate) fn path(&self) -> &Path {
        &self.0
    }

    /// Held by the supervisor.
    pub(crate) fn up_lock(&self) -> PathBuf {
        self.0.join("up.lock")
    }

    /// Makes the data folder and those of `services`, so far as they are not there; on an error, with the folder that
    /// could not be made. What it makes is for this user alone: facts are about people. What is there keeps the
    /// rights that somebody gave it, and missing folders above the data folder get the usual ones.
    pub(crate) fn make(&self, services: &[Service]) -> Result<(), (PathBuf, io::Error)> {
        let above = self.0.parent().map_or(Ok(()), fs::create_dir_all);
        above.map_err(|cause| (self.0.clone(), cause))?;
        for path in std::iter::once(self.0.clone()).chain(services.iter().map(|service| self.of(*service))) {
            match DirBuilder::new().mode(0o700).create(&path) {
                Err(cause) if !path.is_dir() => return Err((path, cause)),
                _ => {}
            }
        }
        Ok(())
    }

    pub(crate) fn of(&self, service: Service) -> PathBuf {
        self.0.join(service.name())
    }

    pub(crate) fn lock(&self, service: Service) -> PathBuf {
        self.of(service).join("lock")
    }

    pub(crate) fn store(&self, service: Service) -> PathBuf {
        self.of(service).join("store.db")
    }

    /// Which store in a database belongs to a service's log.
    pub(crate) fn store_id(&self, service: Service) -> PathBuf {
        self.of(service).join("store.id")
    }

    /// What this folder is called by the stores that belong to it; given when it is first asked for.
    pub(crate) fn identity(&self) -> io::Result<Uuid> {
        let path = self.0.join("identity");
        let text = kept(&path, &Context::system().new_id().to_string())?;
        let said =
            |_| io::Error::other(format!("{} holds no identity; restore it from a copy", path.display()));
        Uuid::parse_str(text.trim()).map_err(said)
    }

    /// Those of these services' stores that are there, opened for reading only; `store`: the database they are in.
    pub(crate) async fn stores(&self, services: &[Service], store: Option<&Given>) -> Result<Stores> {
        match store {
            Some(store) => Ok(Stores::Server(self.on_server(services, &store.server()?).await?)),
            None => Ok(Stores::Files(self.in_files(services)?)),
        }
    }

    async fn on_server(&self, services: &[Service], server: &Server) -> Result<Vec<(Service, Postgres)>> {
        let mut stores = Vec::new();
        for service in services {
            let options = server.part(SCHEMAS, service.name())?.options().read_only();
            stores.push((*service, place::open(options).await?));
        }
        Ok(stores)
    }

    fn in_files(&self, services: &[Service]) -> Result<Vec<(Service, Sqlite)>> {
        let mut stores = Vec::new();
        for service in services {
            let file = self.store(*service);
            if file.exists() {
                stores.push((*service, Sqlite::open(Options::new(&file).read_only())?));
            }
        }
        if !stores.is_empty() {
            return Ok(stores);
        }
        let folder = self.0.display();
        let why = match services.iter().any(|service| self.store_id(*service).exists()) {
            true => format!(
                "{folder}: the stores of this folder's services are in a database; nothing was done; name it with --store, \
                 as `mainstay up` was told"
            ),
            false => format!(
                "{folder}: there is no store of a service in this folder; nothing was done; give the data folder of \
                 `mainstay up` with --data"
            ),
        };
        Err(Unusable(why).into())
    }

    pub(crate) fn log(&self, service: Service) -> PathBuf {
        self.of(service).join("log.db")
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    fn rights(path: &Path) -> u32 {
        fs::metadata(path).unwrap().permissions().mode() & 0o777
    }

    #[test]
    fn what_it_makes_is_for_this_user_alone_and_what_is_there_stays_as_it_is() {
        let dir = tempfile::tempdir().unwrap();
        let folder = Folder::new(dir.path().join("above/data"));
        folder.make(&Service::ALL).unwrap();
        assert_eq!(rights(folder.path()), 0o700);
        for service in Service::ALL {
            assert_eq!(rights(&folder.of(service)), 0o700, "{service}");
        }
        assert_ne!(rights(&dir.path().join("above")), 0o700, "the folder above is not ours");

        fs::set_permissions(folder.path(), fs::Permissions::from_mode(0o750)).unwrap();
        folder.make(&Service::ALL).unwrap();
        assert_eq!(rights(folder.path()), 0o750);

        fs::write(dir.path().join("file"), "in the way").unwrap();
        let (path, _) = Folder::new(dir.path().join("file")).make(&[]).unwrap_err();
        assert_eq!(path, dir.path().join("file"));
    }
}
