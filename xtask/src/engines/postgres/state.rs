//! What tests and tools read: `target/engines/INSTANCE.json`.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use super::node::{Node, pooler_port};
use super::texts;

/// What a server is to the others.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum Role {
    Leader,
    Replica,
    /// It led when another was promoted; its data is of an abandoned history until it is rebuilt.
    Out,
}

/// The file. Everything but the process ids follows from a few facts, see [`Facts`].
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct State {
    pub(super) instance: String,
    /// The server's major version.
    pub(super) version: u32,
    pub(super) port_base: u16,
    pub(super) leader: Node,
    /// Whether a commit waits for one replica.
    pub(super) sync: bool,
    /// Data, configuration and logs.
    pub(super) home: PathBuf,
    pub(super) urls: Urls,
    pub(super) nodes: BTreeMap<Node, NodeState>,
    pub(super) pooler: PoolerState,
}

/// All as the user `mainstay`, who owns the database `mainstay`, unless said otherwise.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Urls {
    pub(super) leader: String,
    /// Every server that is a replica now.
    pub(super) replicas: Vec<String>,
    pub(super) r0: String,
    pub(super) r1: String,
    pub(super) r2: String,
    /// The leader, as its superuser.
    pub(super) admin: String,
    /// The leader through pgbouncer in transaction mode.
    pub(super) pooler: String,
    /// The leader through pgbouncer in session mode: an address that stays when another server is promoted.
    pub(super) failover: String,
    /// The leader as the user `mainstay_tls`, whom it refuses without TLS; with the certificate to trust.
    pub(super) tls: String,
}

/// One server.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct NodeState {
    pub(super) role: Role,
    pub(super) port: u16,
    pub(super) url: String,
    pub(super) admin_url: String,
    pub(super) data: PathBuf,
    pub(super) log: PathBuf,
    /// None while it does not run.
    pub(super) pid: Option<i32>,
}

/// pgbouncer.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct PoolerState {
    pub(super) port: u16,
    pub(super) config: PathBuf,
    pub(super) log: PathBuf,
    pub(super) pid: Option<i32>,
}

/// What the state follows from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Facts {
    pub(super) instance: String,
    pub(super) version: u32,
    pub(super) port_base: u16,
    pub(super) leader: Node,
    pub(super) out: Vec<Node>,
    pub(super) sync: bool,
    pub(super) home: PathBuf,
}

impl Facts {
    pub(super) fn role(&self, node: Node) -> Role {
        if node == self.leader {
            Role::Leader
        } else if self.out.contains(&node) {
            Role::Out
        } else {
            Role::Replica
        }
    }

    /// The servers that follow the leader.
    pub(super) fn replicas(&self) -> impl Iterator<Item = Node> {
        Node::ALL.into_iter().filter(|node| self.role(*node) == Role::Replica)
    }

    pub(super) fn data(&self, node: Node) -> PathBuf {
        self.home.join(node.name())
    }

    pub(super) fn config(&self, node: Node) -> PathBuf {
        self.home.join(format!("{}.conf", node.name()))
    }

    pub(super) fn log(&self, node: Node) -> PathBuf {
        self.home.join(format!("{}.log", node.name()))
    }

    pub(super) fn pooler_config(&self) -> PathBuf {
        self.home.join("pgbouncer.ini")
    }

    pub(super) fn pooler_log(&self) -> PathBuf {
        self.home.join("pgbouncer.log")
    }

    /// The file's contents; `pid` tells which servers run.
    pub(super) fn state(
        &self,
        password: &str,
        pid: impl Fn(Node) -> Option<i32>,
        pooler: Option<i32>,
    ) -> State {
        let url = |user: &str, port: u16, database: &str| texts::url(user, password, port, database);
        let own = |node: Node| url("mainstay", node.port(self.port_base), "mainstay");
        let admin = |node: Node| url("postgres", node.port(self.port_base), "mainstay");
        let pooled = |database: &str| url("mainstay", pooler_port(self.port_base), database);
        let node = |node: Node| NodeState {
            role: self.role(node),
            port: node.port(self.port_base),
            url: own(node),
            admin_url: admin(node),
            data: self.data(node),
            log: self.log(node),
            pid: pid(node),
        };
        State {
            instance: self.instance.clone(),
            version: self.version,
            port_base: self.port_base,
            leader: self.leader,
            sync: self.sync,
            home: self.home.clone(),
            urls: Urls {
                leader: own(self.leader),
                replicas: self.replicas().map(own).collect(),
                r0: own(Node::R0),
                r1: own(Node::R1),
                r2: own(Node::R2),
                admin: admin(self.leader),
                pooler: pooled("mainstay"),
                failover: pooled("mainstay_session"),
                tls: texts::tls_url(password, self.leader.port(self.port_base), &self.home),
            },
            nodes: Node::ALL.into_iter().map(|name| (name, node(name))).collect(),
            pooler: PoolerState {
                port: pooler_port(self.port_base),
                config: self.pooler_config(),
                log: self.pooler_log(),
                pid: pooler,
            },
        }
    }
}

impl State {
    /// Back from the file to what it follows from.
    pub(super) fn facts(&self) -> Facts {
        let is_out = |(node, state): (&Node, &NodeState)| (state.role == Role::Out).then_some(*node);
        Facts {
            instance: self.instance.clone(),
            version: self.version,
            port_base: self.port_base,
            leader: self.leader,
            out: self.nodes.iter().filter_map(is_out).collect(),
            sync: self.sync,
            home: self.home.clone(),
        }
    }

    /// What a test finds in its environment.
    pub(super) fn settings(&self, file: &Path) -> Vec<(&'static str, String)> {
        vec![
            ("MAINSTAY_TEST_POSTGRES", self.urls.leader.clone()),
            ("MAINSTAY_TEST_POSTGRES_REPLICAS", self.urls.replicas.join(",")),
            ("MAINSTAY_TEST_POSTGRES_POOLER", self.urls.pooler.clone()),
            ("MAINSTAY_TEST_POSTGRES_STATE", file.display().to_string()),
        ]
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn facts() -> Facts {
        Facts {
            instance: "postgres".into(),
            version: 15,
            port_base: 25_432,
            leader: Node::R0,
            out: Vec::new(),
            sync: false,
            home: "/data/my engines".into(),
        }
    }

    fn state(facts: &Facts) -> State {
        facts.state("secret", |node| Some(100 + node as i32), None)
    }

    #[test]
    fn every_url_leads_where_its_name_says() {
        let urls = state(&facts()).urls;
        assert_eq!(urls.leader, "postgres://mainstay:secret@127.0.0.1:25432/mainstay?sslmode=disable");
        assert_eq!(urls.replicas.join(","), format!("{},{}", urls.r1, urls.r2));
        assert_eq!(urls.r2, "postgres://mainstay:secret@127.0.0.1:25434/mainstay?sslmode=disable");
        assert_eq!(urls.admin, "postgres://postgres:secret@127.0.0.1:25432/mainstay?sslmode=disable");
        assert_eq!(urls.pooler, "postgres://mainstay:secret@127.0.0.1:25435/mainstay?sslmode=disable");
        assert_eq!(
            urls.failover,
            "postgres://mainstay:secret@127.0.0.1:25435/mainstay_session?sslmode=disable"
        );
        assert_eq!(
            urls.tls,
            "postgres://mainstay_tls:secret@localhost:25432/mainstay?sslmode=verify-full\
             &sslrootcert=/data/my%20engines/server.crt"
        );
    }

    #[test]
    fn after_a_promotion_the_old_leader_is_no_replica() {
        let promoted = Facts { leader: Node::R1, out: vec![Node::R0], ..facts() };
        let state = state(&promoted);
        assert_eq!(state.urls.leader, state.urls.r1);
        assert_eq!(state.urls.replicas.join(","), state.urls.r2);
        assert_eq!(state.nodes[&Node::R0].role, Role::Out);
        assert_eq!(state.facts(), promoted);
    }

    #[test]
    fn the_file_is_read_back_as_it_was_written() {
        let written = state(&facts());
        let text = serde_json::to_string_pretty(&written).unwrap();
        let read: State = serde_json::from_str(&text).unwrap();
        assert_eq!(read, written);
        assert_eq!(read.facts(), facts());
        // Names that others read.
        let json: serde_json::Value = serde_json::from_str(&text).unwrap();
        assert_eq!(json["nodes"]["r1"]["role"], "replica");
        assert_eq!(json["nodes"]["r1"]["pid"], 101);
        assert_eq!(json["leader"], "r0");
        assert!(json["pooler"]["pid"].is_null());
    }

    #[test]
    fn a_test_finds_leader_replicas_pooler_and_file_in_its_environment() {
        let state = state(&facts());
        let settings = state.settings(Path::new("/t/engines/postgres.json"));
        let value = |name| &settings.iter().find(|(known, _)| *known == name).unwrap().1;
        assert_eq!(*value("MAINSTAY_TEST_POSTGRES"), state.urls.leader);
        assert_eq!(*value("MAINSTAY_TEST_POSTGRES_REPLICAS"), format!("{},{}", state.urls.r1, state.urls.r2));
        assert_eq!(*value("MAINSTAY_TEST_POSTGRES_POOLER"), state.urls.pooler);
        assert_eq!(value("MAINSTAY_TEST_POSTGRES_STATE"), "/t/engines/postgres.json");
    }
}
