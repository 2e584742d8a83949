//! All that must hold before any service is started.

use std::net::{Ipv4Addr, SocketAddrV4, TcpListener};
use std::path::Path;
use std::time::Duration;

use anyhow::Result;
use mainstay_runtime::{Lock, NotLocked};

use crate::folder::{Folder, Service};
use crate::output::{BadInput, Unusable};
use crate::place::{Durability, Server};
use crate::shop_store::{self, For};

/// How long services of an `up` that was killed are waited for. They drain in at most
/// [`DRAIN_WITHIN`](crate::service::DRAIN_WITHIN).
const OLD_ONES_WITHIN: Duration = Duration::from_secs(30);

/// How long a folder's holder is waited for. A process that was killed keeps its locks until the system has taken it
/// apart, and whoever starts the next one at once (a supervisor, a script) is not to be refused for that.
const HOLDER_WITHIN: Duration = Duration::from_secs(2);

/// The largest `--port-base`: four ports lie above it.
pub(super) const PORT_BASE_MAX: u16 = u16::MAX - 4;

/// Makes the data folder and takes it for this process.
pub(super) async fn take(folder: &Folder) -> Result<Lock> {
    folder.make(&Service::ALL).map_err(|(path, cause)| {
        Unusable(format!(
            "{}: this folder can't be made: {cause}; nothing was started; check who may write there, or give \
             another with --data",
            path.display()
        ))
    })?;
    let taken = Lock::take_within(&folder.up_lock(), "up", HOLDER_WITHIN, |_| {}).await;
    let lock = taken.map_err(|error| match error {
        NotLocked::Held { holder, .. } => Unusable(format!(
            "{}: this data folder is in use: {holder} runs on it; nothing was started; stop it, or give another \
             folder with --data",
            folder.path().display()
        )),
        NotLocked::Unusable { path, cause } => not_writable(&path, &cause),
    })?;
    Ok(lock)
}

fn not_writable(path: &Path, cause: &std::io::Error) -> Unusable {
    Unusable(format!(
        "{}: this file can't be written: {cause}; nothing was started; check who may write to the data folder, or \
         give another with --data",
        path.display()
    ))
}

/// Waits until no service of an earlier `up` is left in the folder. `tell` hears whom it waits for.
pub(super) async fn old_ones_gone(folder: &Folder, mut tell: impl FnMut(Service, &str)) -> Result<()> {
    let ends = tokio::time::Instant::now() + OLD_ONES_WITHIN;
    for service in Service::ALL {
        let left = ends.saturating_duration_since(tokio::time::Instant::now());
        let waiting = |held: &NotLocked| {
            if let NotLocked::Held { holder, .. } = held {
                tell(service, holder);
            }
        };
        // Let go again at once: the service itself takes it. Nobody else starts one while we hold `up.lock`.
        match Lock::take_within(&folder.lock(service), "up", left, waiting).await {
            Ok(lock) => drop(lock),
            Err(NotLocked::Held { holder, .. }) => {
                return Err(Unusable(format!(
                    "{}: the {service} service of an earlier run is still there after {OLD_ONES_WITHIN:?}: {holder}; \
                     nothing was started; end that process, then try again",
                    folder.of(service).display()
                ))
                .into());
            }
            Err(NotLocked::Unusable { path, cause }) => return Err(not_writable(&path, &cause).into()),
        }
    }
    Ok(())
}

/// Can all stores be used, and are they this folder's? Those in a database are made when they are not there.
pub(super) async fn stores(store: Option<&(Server, Durability)>, folder: &Folder) -> Result<()> {
    for service in Service::ALL {
        match store {
            None => shop_store::keeps_files(folder, service)?,
            // What a server loses is told by each service, in its own lines.
            Some((server, durability)) => {
                let tell = |_: &str| {};
                shop_store::open(server, folder, service, *durability, For::Looking, tell)
                    .await?
                    .close()
                    .await;
            }
        }
    }
    Ok(())
}

/// The ports of the services, in the order of [`Service::ALL`], each of them free a moment ago. With a base of
/// 0 they are chosen by the system.
pub(super) fn ports(base: u16) -> Result<[u16; Service::ALL.len()]> {
    let mut ports = [0; Service::ALL.len()];
    // Held together until all are found, so that the system does not choose one twice.
    let mut held = Vec::new();
    for (port, service) in ports.iter_mut().zip(Service::ALL) {
        let wanted = if base == 0 { 0 } else { base.saturating_add(service.port_offset()) };
        let listener = TcpListener::bind(SocketAddrV4::new(Ipv4Addr::LOCALHOST, wanted))
            .map_err(|cause| BadInput(refused(wanted, service, &cause)))?;
        *port = listener.local_addr()?.port();
        held.push(listener);
    }
    Ok(ports)
}

fn refused(port: u16, service: Service, cause: &std::io::Error) -> String {
    let why = match cause.kind() {
        std::io::ErrorKind::AddrInUse => "is in use by another program".to_owned(),
        std::io::ErrorKind::PermissionDenied => "may not be used by this user".to_owned(),
        _ => format!("can't be used: {cause}"),
    };
    format!(
        "port {port}, for the {service} service, {why}; nothing was started; free it, or choose others with \
         --port-base N (the services take N+1 to N+4; 0: any free ones)"
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn a_folder_is_waited_for_as_long_as_a_killed_holder_may_take_to_be_gone() {
        let data = tempfile::tempdir().unwrap();
        let folder = Folder::new(data.path());
        let held = take(&folder).await.unwrap();
        let began = tokio::time::Instant::now();
        let refused = take(&folder).await.unwrap_err().to_string();
        assert!(refused.contains("this data folder is in use: process "), "{refused}");
        assert_eq!(began.elapsed(), HOLDER_WITHIN);
        let gone = async {
            tokio::time::sleep(HOLDER_WITHIN / 2).await;
            drop(held);
        };
        let (taken, ()) = tokio::join!(take(&folder), gone);
        taken.unwrap();
    }

    #[test]
    fn a_port_in_use_is_named_with_its_service() {
        let free = ports(0).unwrap();
        assert!(free[0] != free[1] && free[1] != free[2] && free[0] != free[2], "{free:?}");
        // Found by trying, since neighbours of a free port need not be free.
        let (taken, base) = (0..100)
            .find_map(|_| {
                let taken = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
                let base = taken.local_addr().unwrap().port().checked_sub(2)?;
                TcpListener::bind((Ipv4Addr::LOCALHOST, base + 1)).is_ok().then_some((taken, base))
            })
            .unwrap();
        let refused = ports(base).unwrap_err().to_string();
        assert!(
            refused.contains(&format!("port {}, for the payment service, is in use", base + 2)),
            "{refused}"
        );
        drop(taken);
    }
}
