//! The operations of the clients, and the checks of their responses.

use std::sync::atomic::Ordering;
use std::time::Duration;

use serde_json::{Value, json};

use super::clients::{Clients, Counts, Register, path};
use super::random_node::RandomNode;
use crate::http::Request;

/// The reads that a reader sends at once.
const PIPELINE: usize = 64;
/// The children of a token that is revoked.
const CHILDREN: usize = 2;
/// The uses of a revoked token at each node, sent at once.
const USES: usize = 8;
/// The pause after a response that may be retried.
const PAUSE: Duration = Duration::from_millis(5);
/// The same for clients that send many requests at once.
const PAUSE_OF_MANY: Duration = Duration::from_millis(20);
/// The policy with which a token creates its children.
pub(super) const PARENTS: &str = "path \"auth/token/create\" { capabilities = [\"update\"] }";

impl Clients {
    /// Writes the next version. The present version is read first, because the outcome of an earlier write may be
    /// unknown.
    pub(super) fn write(&self, number: usize, node: &mut RandomNode) {
        let register = &self.registers[number];
        let Some(version) = self.read(number, node) else { return };
        register.sent.fetch_max(version + 1, Ordering::SeqCst);
        let body = json!({"options": {"cas": version}, "data": {"n": version + 1}});
        let Some((status, response, url)) = self.send(node, &self.root, "POST", &path(number), Some(&body)) else {
            return;
        };
        match status {
            200 if response["data"]["version"] == version + 1 => {
                register.visible.fetch_max(version + 1, Ordering::SeqCst);
                Counts::add(&self.counts.writes);
            }
            // Its own earlier write, whose outcome was unknown, took effect between the read and this write.
            400 => {}
            _ => self.violation(&format!("a write at {url}: {status} {response}")),
        }
    }

    /// Reads a register, and returns its version; `None` when the node does not respond.
    pub(super) fn read(&self, number: usize, node: &mut RandomNode) -> Option<u64> {
        let register = &self.registers[number];
        let oldest = register.visible.load(Ordering::SeqCst);
        let (status, response, url) = self.send(node, &self.root, "GET", &path(number), None)?;
        let (version, value) = (&response["data"]["metadata"]["version"], &response["data"]["data"]["n"]);
        let version = version.as_u64().filter(|version| status == 200 && value == version);
        if version.is_none() {
            self.violation(&format!("a read at {url}: {status} {response}"));
        }
        self.check(number, oldest, version?, &url);
        version
    }

    /// Reads a register, with a client that waits long.
    pub(super) fn read_patiently(&self, number: usize, node: &mut RandomNode) {
        let _ = self.read(number, node);
    }

    /// Sends many reads at once on one connection.
    pub(super) fn read_often(&self, number: usize, node: &mut RandomNode) {
        let oldest = self.registers[number].visible.load(Ordering::SeqCst);
        self.send_many(node, &self.root, &path(number), PIPELINE, |url, status, body| match version_of(status, body) {
            Some(version) => self.check(number, oldest, version, url),
            None => self.violation(&format!("a read at {url}: {status} {}", String::from_utf8_lossy(body))),
        });
    }

    /// Checks the version that a read returned which began when `oldest` was visible.
    fn check(&self, number: usize, oldest: u64, version: u64, url: &str) {
        let Register { visible, sent } = &self.registers[number];
        let newest = sent.load(Ordering::SeqCst);
        if !is_linearizable(version, oldest, newest) {
            self.violation(&format!(
                "{url} returned version {version} of register {number}: {oldest} was visible, {newest} was sent"
            ));
        }
        visible.fetch_max(version, Ordering::SeqCst);
        Counts::add(&self.counts.reads);
    }

    /// Creates a token with children, revokes it, and uses all of them at every node.
    pub(super) fn revoke(&self, node: &mut RandomNode) {
        let Some(family) = self.create_family(node) else { return };
        let revoke = json!({"token": family[0]});
        let Some((204, ..)) = self.send(node, &self.root, "POST", "auth/token/revoke", Some(&revoke)) else { return };
        for at in 0..node.count() {
            for token in &family {
                node.choose(at);
                self.send_many(node, token, "auth/token/lookup-self", USES, |url, status, _| match status {
                    403 => Counts::add(&self.counts.refused_uses),
                    _ => self.violation(&format!(
                        "{url} responded with {status} to a token whose revocation was acknowledged"
                    )),
                });
            }
        }
    }

    /// A token and its children, each of which was accepted by a node; `None` when an outcome is unknown.
    fn create_family(&self, node: &mut RandomNode) -> Option<Vec<String>> {
        // Longer than a step of a clock.
        let parent = self.create(node, &self.root, &json!({"policies": ["default", "parents"], "ttl": "24h"}))?;
        let mut family = vec![parent];
        for _ in 0..CHILDREN {
            let child = self.create(node, &family[0], &json!({"policies": ["default"], "ttl": "24h"}))?;
            family.push(child);
        }
        for token in &family {
            let (status, response, url) = self.send(node, token, "GET", "auth/token/lookup-self", None)?;
            if status != 200 {
                self.violation(&format!("{url} refuses a token that was created: {status} {response}"));
                return None;
            }
        }
        Some(family)
    }

    fn create(&self, node: &mut RandomNode, creator: &str, token: &Value) -> Option<String> {
        let (status, created, url) = self.send(node, creator, "POST", "auth/token/create", Some(token))?;
        let id = created["auth"]["client_token"].as_str().filter(|_| status == 200).map(str::to_owned);
        if id.is_none() {
            self.violation(&format!("{url} creates no token: {status} {created}"));
        }
        id
    }

    /// Sends the same `GET` many times at once to the chosen node, and passes the URL, status and body of each response to
    /// `check`, except for those that clients may retry. Then chooses another node.
    fn send_many(
        &self,
        node: &mut RandomNode,
        token: &str,
        path: &str,
        count: usize,
        mut check: impl FnMut(&str, u16, &[u8]),
    ) {
        let token = ("X-Vault-Token".to_owned(), token.to_owned());
        let path = format!("/v1/{path}");
        let request = Request { method: "GET".to_owned(), path, headers: vec![token], body: None };
        let (url, mut retries) = (node.url().to_owned(), 0);
        let sent = node.client().and_then(|client| {
            client.pipeline(&request, count, |status, body| match may_be_retried(status) {
                true => retries += 1,
                false => check(&url, status, body),
            })
        });
        node.next();
        retries += u64::from(sent.is_err());
        if retries > 0 {
            self.counts.retries.fetch_add(retries, Ordering::SeqCst);
            std::thread::sleep(PAUSE_OF_MANY);
        }
    }

    /// Sends a request to a random node. `None` for a response that clients may retry, and for a broken connection: the
    /// outcome is then unknown.
    fn send(
        &self,
        node: &mut RandomNode,
        token: &str,
        method: &str,
        path: &str,
        body: Option<&Value>,
    ) -> Option<(u16, Value, String)> {
        let url = node.url().to_owned();
        let sent = node.client().and_then(|client| client.call(Some(token), method, path, body));
        node.next();
        match sent {
            Ok(response) if !may_be_retried(response.status) => {
                Some((response.status, response.json().unwrap_or_default(), url))
            }
            Ok(_) | Err(_) => {
                Counts::add(&self.counts.retries);
                std::thread::sleep(PAUSE);
                None
            }
        }
    }
}

/// Whether a read may return a version: `oldest` was visible before it began, `newest` was sent before it ended.
fn is_linearizable(version: u64, oldest: u64, newest: u64) -> bool {
    (oldest..=newest).contains(&version)
}

/// The responses that hvac and the clients of Vault retry: 412 and 5xx.
fn may_be_retried(status: u16) -> bool {
    status == 412 || status >= 500
}

/// The version in the response of a read, whose value is the same number; parsed without JSON, which costs more than the
/// request.
fn version_of(status: u16, body: &[u8]) -> Option<u64> {
    let text = std::str::from_utf8(body).ok().filter(|_| status == 200)?;
    let number = |name: &str| {
        let (_, rest) = text.split_once(name)?;
        rest[..rest.find(|c: char| !c.is_ascii_digit())?].parse::<u64>().ok()
    };
    number("\"version\":").filter(|version| number("\"n\":") == Some(*version))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_older_and_a_later_version_is_no_result_of_a_read() {
        let versions: Vec<u64> = (0..9).filter(|version| is_linearizable(*version, 4, 6)).collect();
        assert_eq!(versions, [4, 5, 6]);
    }

    #[test]
    fn a_version_is_read_with_its_value() {
        let shown = br#"{"data":{"data":{"n":17},"metadata":{"created_time":"x","version":17}}}"#;
        assert_eq!(version_of(200, shown), Some(17));
        assert_eq!(version_of(503, shown), None);
        assert_eq!(version_of(200, br#"{"data":{"data":{"n":16},"metadata":{"version":17}}}"#), None);
        assert_eq!(version_of(200, b"{}"), None);
    }
}
