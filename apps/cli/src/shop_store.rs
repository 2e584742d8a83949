//! A service's store in a database: that it and the data folder, in which its log is, belong together.
//!
//! The relay publishes in the folder's log what the store's outbox holds, under the store's name; a follower's place in
//! that log is in its own store. So a store with another folder's log would publish everything once more, and two folders
//! on one store would share its rows out between two logs. Each remembers the other, and who does not fit is refused.

use std::time::Duration;

use anyhow::Result;
use mainstay::Context;
use mainstay::postgres::{Postgres, Transaction};
use mainstay::store::{Abort, Row, Store, TransactError, Tx, ViewName};
use serde::{Deserialize, Serialize};
use uuid::Uuid;

use crate::folder::{Folder, SCHEMAS, Service, kept};
use crate::output::Unusable;
use crate::place::{self, Durability, Server};

/// Where the store keeps whose it is: its view, and the key there.
const VIEW: &str = "mainstay.data_folder";
const KEY: &str = "owner";

/// How long a service's answer may wait for its place in the feed; then it carries a receipt that only its own service
/// can tell.
const PLACED_WITHIN: Duration = Duration::from_secs(3);

/// Whose a store is.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
struct Owner {
    folder: Uuid,
    /// Where the folder was then, for whoever looks for it.
    path: String,
}

/// What a service's store is opened for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum For {
    /// To see whether it can be: nothing of ours goes on in the background.
    Looking,
    /// To serve.
    Serving,
}

/// Opens the store of a service, made when it is not there, if it is this folder's.
pub(crate) async fn open(
    server: &Server,
    data: &Folder,
    service: Service,
    durability: Durability,
    purpose: For,
    tell: fn(&str),
) -> Result<Postgres> {
    let cx = Context::system();
    let file = data.store(service);
    if file.exists() {
        let why = format!(
            "{}: this folder's {service} service keeps its store in a file; nothing was started; leave --store away, or \
             give another folder with --data",
            file.display()
        );
        return Err(Unusable(why).into());
    }
    let options = durability.of(server.part(SCHEMAS, service.name())?.options(), tell);
    let options = match purpose {
        For::Looking => options.sequencer(None).retention(None),
        // Followers compare receipts with the positions that messages carry.
        For::Serving => options.settled_receipts(PLACED_WITHIN),
    };
    let store = place::open(options).await?;
    match belongs(&store, &cx, data, service).await {
        Ok(()) => Ok(store),
        Err(error) => {
            store.close().await;
            Err(error)
        }
    }
}

/// Refuses a folder whose stores are in a database, where files are meant.
pub(crate) fn keeps_files(data: &Folder, service: Service) -> Result<()> {
    match data.store_id(service).exists() {
        false => Ok(()),
        true => {
            let why = format!(
                "{}: the stores of this folder's services are in a database; nothing was started; name it with --store, or \
                 give another folder with --data",
                data.path().display()
            );
            Err(Unusable(why).into())
        }
    }
}

async fn belongs(store: &Postgres, cx: &Context, data: &Folder, service: Service) -> Result<()> {
    let (schema, id) = (store.schema().name().to_owned(), store.id());
    let path = data.store_id(service);
    let unusable =
        |cause: std::io::Error| Unusable(format!("{}: {cause}; nothing was started", path.display()));
    let before = match std::fs::read_to_string(&path) {
        Err(cause) if cause.kind() == std::io::ErrorKind::NotFound => None,
        before => Some(before.map_err(unusable)?),
    };
    let differs = |before: &str| {
        Unusable(format!(
            "{}: this folder's log belongs to another store, {}; schema {schema} of this database holds {id}; nothing was \
             started; name the database that the folder was used with, or give another folder with --data",
            data.path().display(),
            before.trim()
        ))
    };
    if let Some(before) = before.as_deref().filter(|before| before.trim() != id.to_string()) {
        return Err(differs(before).into());
    }
    let me = Owner { folder: data.identity().map_err(unusable)?, path: data.path().display().to_string() };
    claim(store, cx, &me).await.map_err(|error| match error {
        TransactError::User(Some(owner)) => Unusable(format!(
            "schema {schema} is the store of another data folder, {} ({}), in which its log is; nothing was started; give \
             that folder with --data, or another schema in the URL (?schema=NAME)",
            owner.path, owner.folder
        )),
        TransactError::User(None) => Unusable(format!(
            "schema {schema}: what it says of its data folder can't be read; nothing was started; restore it from a copy"
        )),
        TransactError::Store(error) => Unusable(format!("schema {schema}: {error}; nothing was started")),
    })?;
    // After the claim: a folder that says so has a store that says so.
    let written = kept(&path, &id.to_string()).map_err(unusable)?;
    if written.trim() == id.to_string() { Ok(()) } else { Err(differs(&written).into()) }
}

/// Says in the store whose it is, unless somebody else has; then, whose.
async fn claim(store: &Postgres, cx: &Context, me: &Owner) -> Result<(), TransactError<Option<Owner>>> {
    let me = me.clone();
    let claiming = move |tx: &Transaction| {
        let view = ViewName::new(VIEW).map_err(mainstay::store::Refusal::from)?;
        match tx.view_get(&view, KEY)? {
            None => {
                let row = serde_json::to_vec(&me).map_err(|_| Abort::User(None))?;
                Ok(tx.view_put(&view, &Row::new(KEY, row))?)
            }
            Some(row) => match serde_json::from_slice::<Owner>(&row) {
                Ok(owner) if owner.folder == me.folder => Ok(()),
                owner => Err(Abort::User(owner.ok())),
            },
        }
    };
    store.transact(cx, claiming).await.map(drop)
}
