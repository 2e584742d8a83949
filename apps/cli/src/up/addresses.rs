//! Where the services answer.

use crate::folder::Service;

/// One port a service, on this machine only.
#[derive(Debug, Clone, Copy)]
pub(super) struct Addresses([u16; Service::ALL.len()]);

impl Addresses {
    /// Ports in the order of [`Service::ALL`].
    pub(super) fn new(ports: [u16; Service::ALL.len()]) -> Self {
        Self(ports)
    }

    pub(super) fn port(&self, service: Service) -> u16 {
        self.0[usize::from(service.port_offset()) - 1]
    }

    pub(super) fn url(&self, service: Service) -> String {
        format!("http://127.0.0.1:{}", self.port(service))
    }
}
