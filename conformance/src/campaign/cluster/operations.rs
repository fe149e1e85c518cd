//! The operations of the clients, and the checks of their responses.

use std::sync::atomic::Ordering;
use std::time::Duration;

use serde_json::{Value, json};

use super::clients::{Clients, Counts, Register, path};
use super::random_node::RandomNode;
use crate::http::{Request, Response};

/// The reads that a reader sends at once.
const PIPELINE: usize = 64;
/// The pause after a response that may be retried.
const PAUSE: Duration = Duration::from_millis(5);

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
        let register = &self.registers[number];
        let token = ("X-Vault-Token".to_owned(), self.root.clone());
        let path = format!("/v1/{}", path(number));
        let request = Request { method: "GET".to_owned(), path, headers: vec![token], body: None };
        let oldest = register.visible.load(Ordering::SeqCst);
        let (url, mut retries) = (node.url().to_owned(), 0);
        let sent = node.client().and_then(|client| {
            client.pipeline(&request, PIPELINE, |response| match version_of(response) {
                Some(version) => self.check(number, oldest, version, &url),
                None if may_be_retried(response.status) => retries += 1,
                None => self.violation(&format!("a read at {url}: {} {:?}", response.status, response.body)),
            })
        });
        node.next();
        retries += u64::from(sent.is_err());
        self.counts.retries.fetch_add(retries, Ordering::SeqCst);
        if retries > 0 {
            std::thread::sleep(PAUSE);
        }
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

    /// Creates a token, revokes it, and uses it at every node.
    pub(super) fn revoke(&self, node: &mut RandomNode) {
        // Longer than a step of a clock.
        let create = json!({"policies": ["default"], "ttl": "24h"});
        let Some((200, created, _)) = self.send(node, &self.root, "POST", "auth/token/create", Some(&create)) else {
            return;
        };
        let Some(token) = created["auth"]["client_token"].as_str() else { return };
        match self.send(node, token, "GET", "auth/token/lookup-self", None) {
            Some((200, ..)) => {}
            Some((status, response, url)) => {
                return self.violation(&format!("{url} refuses a token that was created: {status} {response}"));
            }
            None => return,
        }
        let revoke = json!({"token": token});
        let Some((204, ..)) = self.send(node, &self.root, "POST", "auth/token/revoke", Some(&revoke)) else { return };
        for at in 0..node.count() {
            node.choose(at);
            let Some((status, _, url)) = self.send(node, token, "GET", "auth/token/lookup-self", None) else {
                continue;
            };
            if status == 403 {
                Counts::add(&self.counts.refused_uses);
            } else {
                self.violation(&format!("{url} responded with {status} to a token whose revocation was acknowledged"));
            }
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
fn version_of(response: &Response) -> Option<u64> {
    let text = std::str::from_utf8(&response.body).ok().filter(|_| response.status == 200)?;
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
        let body = |text: &str| Response { status: 200, body: text.as_bytes().to_vec(), ..Response::default() };
        let shown = body(r#"{"data":{"data":{"n":17},"metadata":{"created_time":"x","version":17}}}"#);
        assert_eq!(version_of(&shown), Some(17));
        assert_eq!(version_of(&Response { status: 503, ..shown }), None);
        assert_eq!(version_of(&body(r#"{"data":{"data":{"n":16},"metadata":{"version":17}}}"#)), None);
        assert_eq!(version_of(&body("{}")), None);
    }
}
