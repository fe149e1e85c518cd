//! The broker: an entry is taken by at least one device, or the request fails.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use keepfast_crypto::hmac::HmacKey;
use keepfast_crypto::random;
use keepfast_framework::{Clock, Error, Result, offload};
use keepfast_storage::{Barrier, View};
use serde::Serialize;

use super::device::{self, Device};
use super::entry::{Entry, Format, Mark};
use super::redact;
use crate::metrics::Metrics;
use crate::settings::AuditSettings;

/// How long a device that waits for somebody else is waited for when no other has taken the entry.
const PATIENCE: Duration = Duration::from_secs(5);

/// All audit devices. They come from the configuration file only.
pub struct Broker {
    devices: Vec<Recorder>,
    clock: Arc<dyn Clock>,
    metrics: Arc<Metrics>,
}

struct Recorder {
    settings: AuditSettings,
    format: Format,
    key: HmacKey,
    device: Box<dyn Device>,
}

/// What the entry before a request runs said of it, by device: its answer's entry says the same.
#[derive(Default)]
pub struct Said(Vec<Box<[u8]>>);

/// A device as `sys/audit` shows it.
#[derive(Serialize)]
pub struct Shown<'a> {
    description: &'a str,
    local: bool,
    options: &'a BTreeMap<String, String>,
    path: String,
    #[serde(rename = "type")]
    device: &'a str,
}

impl Broker {
    /// Opens all devices; each has a salt of its own, made at the first time and stored behind the barrier.
    ///
    /// # Errors
    /// When a device or its salt cannot be opened: a server without its audit must not serve.
    pub async fn open(
        barrier: &Arc<Barrier>,
        view: &View,
        settings: &[AuditSettings],
        clock: Arc<dyn Clock>,
        metrics: Arc<Metrics>,
    ) -> Result<Self> {
        let mut devices = Vec::with_capacity(settings.len());
        for settings in settings {
            let salt = salt(barrier, view, &settings.name).await?;
            let device = device::open(settings)
                .map_err(|e| Error::internal(format!("audit device {:?} cannot be opened: {e}", settings.name)))?;
            let flag = |name: &str, default: bool| {
                settings.options.get(name).map_or(default, |v| matches!(v.as_str(), "true" | "1"))
            };
            let format = Format { log_raw: flag("log_raw", false), hmac_accessor: flag("hmac_accessor", true) };
            devices.push(Recorder { settings: settings.clone(), format, key: HmacKey::new(&salt), device });
        }
        // One that cannot wait is asked first; when it has the entry, nobody waits for the others.
        devices.sort_by_key(|d| d.device.can_block());
        Ok(Broker { devices, clock, metrics })
    }

    /// Records an entry. `said` is what the entry before said of the same request; what this one says is returned.
    ///
    /// # Errors
    /// 500 when there are devices and none takes it: nothing happens unrecorded.
    pub async fn record(&self, entry: &Entry<'_>, said: &Said) -> Result<Said> {
        let (timing, failures) = match entry.response {
            Some(_) => (&self.metrics.audit_response, &self.metrics.audit_response_failure),
            None => (&self.metrics.audit_request, &self.metrics.audit_request_failure),
        };
        let outcome = self.hand_out(entry, said).await;
        timing.record(self.clock.now().since(entry.time));
        if outcome.is_err() {
            failures.add();
        }
        outcome
    }

    async fn hand_out(&self, entry: &Entry<'_>, said: &Said) -> Result<Said> {
        let mut taken = self.devices.is_empty();
        let marks = entry.caller.zip(entry.request.token).map(|(token, text)| {
            let mark = |d: &Recorder| Mark::new(text, &token.record, &d.key, &d.format);
            token.marks.get_or_init(|| self.devices.iter().map(mark).collect())
        });
        let mut saying = Said(Vec::with_capacity(if entry.response.is_some() { 0 } else { self.devices.len() }));
        for (at, recorder) in self.devices.iter().enumerate() {
            let mark = marks.and_then(|m| m.get(at));
            let said = said.0.get(at).map(|s| &**s);
            let (line, request) = offload::run(entry.input_length(said.is_some()), || {
                let mut line = Vec::with_capacity(entry.expected_length());
                let request = entry.line(&recorder.key, &recorder.format, mark, said, &mut line);
                (line, request)
            })
            .await;
            if entry.response.is_none() {
                saying.0.push(Box::from(&line[request]));
            }
            let outcome = match recorder.device.can_block() {
                false => recorder.device.write(&line).await,
                true => Box::pin(self.write_in_time(recorder, &line, taken)).await,
            };
            match outcome {
                Ok(()) => taken = true,
                Err(error) => {
                    tracing::error!(device = %recorder.settings.name, %error, "audit device did not take an entry")
                }
            }
        }
        if taken { Ok(saying) } else { Err(Error::internal("no audit device took the entry")) }
    }

    async fn write_in_time(&self, recorder: &Recorder, line: &[u8], taken: bool) -> std::io::Result<()> {
        let writing = recorder.device.write(line);
        tokio::pin!(writing);
        let patience = if taken { Duration::ZERO } else { PATIENCE };
        let end = self.clock.sleep_until(self.clock.now().after(patience));
        tokio::select! {
            biased;
            outcome = &mut writing => outcome,
            () = end => if taken { Ok(()) } else { Err(std::io::Error::new(std::io::ErrorKind::TimedOut, "nobody reads the audit stream")) },
        }
    }

    /// The devices as `sys/audit` shows them, by path.
    pub fn shown(&self) -> BTreeMap<String, Shown<'_>> {
        self.devices
            .iter()
            .map(|d| {
                let path = format!("{}/", d.settings.name);
                let shown = Shown {
                    description: &d.settings.description,
                    local: false,
                    options: &d.settings.options,
                    path: path.clone(),
                    device: &d.settings.device,
                };
                (path, shown)
            })
            .collect()
    }

    /// The hash by which a value appears in the entries of one device; `None` if there is no such device.
    pub fn hash(&self, name: &str, value: &str) -> Option<String> {
        let recorder = self.devices.iter().find(|d| d.settings.name == name.trim_end_matches('/'))?;
        let mut out = Vec::new();
        redact::hash(value.as_bytes(), &recorder.key, &mut out);
        String::from_utf8(out).ok()
    }

    /// Opens every target anew, after log rotation.
    pub fn reopen(&self) {
        for recorder in &self.devices {
            if let Err(error) = recorder.device.reopen() {
                tracing::error!(device = %recorder.settings.name, %error, "audit device cannot be opened anew");
            }
        }
    }
}

async fn salt(barrier: &Arc<Barrier>, view: &View, name: &str) -> Result<Vec<u8>> {
    let key = format!("salt/{name}");
    let mut tx = barrier.begin();
    if let Some(salt) = tx.get(view, &key).await? {
        return Ok(salt.to_vec());
    }
    let salt = random::bytes::<32>();
    tx.put(view, &key, Bytes::copy_from_slice(&salt));
    tx.commit().await?;
    Ok(salt.to_vec())
}
