//! The three servers by name, and their ports.

use serde::{Deserialize, Serialize};

/// One server. `r0` leads at first; after a promotion another one does.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, clap::ValueEnum, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum Node {
    R0,
    R1,
    R2,
}

impl Node {
    pub(super) const ALL: [Node; 3] = [Node::R0, Node::R1, Node::R2];

    /// Also its `cluster_name`, its `application_name` as a replica, and its data folder's.
    pub(super) fn name(self) -> &'static str {
        match self {
            Node::R0 => "r0",
            Node::R1 => "r1",
            Node::R2 => "r2",
        }
    }

    pub(super) fn port(self, base: u16) -> u16 {
        base + self as u16
    }

    pub(super) fn others(self) -> impl Iterator<Item = Node> {
        Node::ALL.into_iter().filter(move |other| *other != self)
    }
}

/// Ports: one for each server, and the pooler's.
pub(super) const PORTS: u16 = 4;

pub(super) fn pooler_port(base: u16) -> u16 {
    base + PORTS - 1
}
