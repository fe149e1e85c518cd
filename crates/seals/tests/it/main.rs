//! Seals against real programs: OpenBao, Keepfast, an emulator of AWS, an HSM in software.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::print_stderr, clippy::disallowed_methods)]

mod awskms;
mod kmip;
mod pkcs11;
mod program;
mod transit;

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http::Request;
use keepfast_framework::Clock;
use keepfast_framework::clock::SystemClock;
use keepfast_framework::seal::Seal;
use keepfast_outbound::{Outbound, Settings};
use keepfast_seals::{Environment, SealStanza, from_stanza};

/// No variables but those of the machine that a seal's program needs.
struct Variables(BTreeMap<String, String>);

impl Environment for Variables {
    fn variable(&self, name: &str) -> Option<String> {
        self.0.get(name).cloned()
    }

    fn kept(&self) -> Arc<dyn Environment> {
        Arc::new(Variables(self.0.clone()))
    }
}

fn map(pairs: &[(&str, &str)]) -> BTreeMap<String, String> {
    pairs.iter().map(|(key, value)| ((*key).to_owned(), (*value).to_owned())).collect()
}

/// A seal of these keys and variables.
fn seal(kind: &str, keys: &[(&str, &str)], variables: &[(&str, &str)]) -> Arc<dyn Seal> {
    let options = map(keys);
    let clock: Arc<dyn Clock> = Arc::new(SystemClock);
    let stanza = SealStanza { timeout: Duration::from_secs(30), ..SealStanza::new(kind, "s", &options) };
    from_stanza(&stanza, &Variables(map(variables)), &clock).unwrap().seal
}

/// Sends a request; returns the status and the body.
async fn call(method: &str, url: &str, headers: &[(&str, &str)], body: &str) -> (u16, String) {
    let mut request = Request::builder().method(method).uri(url);
    for (name, value) in headers {
        request = request.header(*name, *value);
    }
    let request = request.body(Bytes::from(body.to_owned())).unwrap();
    let response = Outbound::new(&Settings::default()).unwrap().call(request).await.unwrap();
    (response.status().as_u16(), String::from_utf8_lossy(response.body()).into_owned())
}
