//! A client that sends each request to another node.

use std::time::Duration;

use anyhow::{Context, Result};

use crate::http::Client;
use crate::rng::Rng;

/// A connection to each node, and the choice of the next one.
pub(super) struct RandomNode {
    urls: Vec<String>,
    clients: Vec<Option<Client>>,
    timeout: Duration,
    at: usize,
    rng: Rng,
}

impl RandomNode {
    /// A client of the nodes with these URLs that waits at most `timeout` for a response.
    pub(super) fn new(urls: Vec<String>, timeout: Duration, seed: u64) -> Self {
        let mut rng = Rng::of(seed, 0);
        let at = rng.below(urls.len());
        Self { clients: urls.iter().map(|_| None).collect(), urls, timeout, at, rng }
    }

    /// The number of nodes.
    pub(super) fn count(&self) -> usize {
        self.urls.len()
    }

    /// The URL of the chosen node.
    pub(super) fn url(&self) -> &str {
        &self.urls[self.at]
    }

    /// Chooses a node.
    pub(super) fn choose(&mut self, at: usize) {
        self.at = at;
    }

    /// Chooses a random node.
    pub(super) fn next(&mut self) {
        self.at = self.rng.below(self.urls.len());
    }

    /// The connection to the chosen node.
    pub(super) fn client(&mut self) -> Result<&mut Client> {
        let (slot, url) = (&mut self.clients[self.at], &self.urls[self.at]);
        if slot.is_none() {
            *slot = Some(Client::new(url)?.with_timeout(self.timeout));
        }
        slot.as_mut().context("no client")
    }
}
