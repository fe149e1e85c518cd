//! What serves the API: one server, or a cluster.

use anyhow::Result;

use crate::http::Client;
use crate::nodes::Nodes;
use crate::servers::{Make, Server, Storage};

/// One server, or a cluster whose requests go to its nodes in turn.
pub enum Served {
    /// A server.
    One(Box<Server>),
    /// A cluster, and the node that was killed.
    Cluster(Box<Nodes>, Option<usize>),
}

impl Served {
    /// Starts it, durable and unsealed.
    ///
    /// # Errors
    /// When a server does not start.
    pub fn start(make: Make, nodes: usize) -> Result<Self> {
        Ok(match nodes {
            1 => Self::One(Box::new(Server::start_unsealed(make, Storage::Durable)?)),
            _ => Self::Cluster(Box::new(Nodes::start(make, nodes)?), None),
        })
    }

    /// A client; of a cluster, for the next node.
    ///
    /// # Errors
    /// When its address is none.
    pub fn client(&self) -> Result<Client> {
        match self {
            Self::One(server) => server.client(),
            Self::Cluster(nodes, _) => nodes.client_of_next(),
        }
    }

    /// The root token.
    pub fn root(&self) -> &str {
        match self {
            Self::One(server) => &server.root,
            Self::Cluster(nodes, _) => nodes.root(),
        }
    }

    /// The base URLs of all nodes.
    pub fn urls(&self) -> Vec<String> {
        match self {
            Self::One(server) => vec![server.url.clone()],
            Self::Cluster(nodes, _) => nodes.urls(),
        }
    }

    /// Whether it is a cluster.
    pub fn is_cluster(&self) -> bool {
        matches!(self, Self::Cluster(..))
    }

    /// Kills the server, or the leader.
    ///
    /// # Errors
    /// When no node leads.
    pub fn kill(&mut self) -> Result<()> {
        match self {
            Self::One(server) => server.kill(),
            Self::Cluster(nodes, killed) => {
                let leader = nodes.leader()?;
                *killed = Some(leader);
                nodes.kill(leader)
            }
        }
    }

    /// Restarts and unseals what was killed, and waits until every node serves.
    ///
    /// # Errors
    /// When it does not.
    pub fn open(&mut self) -> Result<()> {
        match self {
            Self::One(server) => {
                server.restart()?;
                server.unseal()
            }
            Self::Cluster(nodes, killed) => {
                if let Some(at) = killed.take() {
                    nodes.restart(at)?;
                }
                nodes.wait_until_all_serve()
            }
        }
    }
}
