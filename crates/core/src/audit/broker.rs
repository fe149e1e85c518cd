//! The broker: an entry is taken by at least one device, or the request fails.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use arc_swap::ArcSwap;
use bytes::Bytes;
use keepfast_crypto::hmac::HmacKey;
use keepfast_crypto::random;
use keepfast_framework::{Clock, Error, Result, Timestamp, offload};
use keepfast_storage::{Barrier, View};
use serde::Serialize;

use super::caller::Mark;
use super::device::Device;
use super::entry::{Entry, Format};
use super::redact;
use super::target::OpenedDevice;
use crate::metrics::{Item, Metrics, Timing, Value};
use crate::settings::AuditSettings;
use crate::token::Token;

/// How long a device that waits for somebody else is waited for when no other has taken the entry.
const PATIENCE: Duration = Duration::from_secs(5);

/// All audit devices: the declared ones, and where the configuration allows it those that `sys/audit` created.
pub(crate) struct Broker {
    devices: ArcSwap<Devices>,
    clock: Arc<dyn Clock>,
    metrics: Arc<Metrics>,
}

/// The devices between two changes of them.
struct Devices {
    /// Raised with each change.
    generation: u64,
    recorders: Vec<Arc<Recorder>>,
}

/// An opened device with what its entries are written with.
pub(crate) struct Recorder {
    settings: AuditSettings,
    format: Format,
    key: HmacKey,
    device: Box<dyn Device>,
    /// Created by `sys/audit`.
    created: bool,
    local: bool,
    requests: Timing,
    responses: Timing,
}

/// The request's member of the entry before a request runs, by device: the entry of the answer repeats it.
#[derive(Default)]
pub(crate) struct Said {
    generation: u64,
    by_device: Vec<Box<[u8]>>,
}

/// What entries repeat of a token, by device.
pub(crate) struct Marks {
    generation: u64,
    by_device: Vec<Mark>,
}

/// A device as `sys/audit` shows it.
#[derive(Serialize)]
pub(crate) struct Shown {
    description: String,
    local: bool,
    options: BTreeMap<String, String>,
    path: String,
    #[serde(rename = "type")]
    device: String,
}

impl Broker {
    /// Takes opened devices, in the order of `settings`; each has a salt of its own, made at the first time and stored
    /// behind the barrier.
    pub(crate) async fn open(
        barrier: &Arc<Barrier>,
        view: &View,
        settings: &[AuditSettings],
        opened: Vec<OpenedDevice>,
        clock: Arc<dyn Clock>,
        metrics: Arc<Metrics>,
    ) -> Result<Self> {
        let mut recorders = Vec::with_capacity(settings.len());
        for (settings, (options, device)) in settings.iter().zip(opened) {
            let key = HmacKey::new(&salt(barrier, view, &settings.name).await?);
            recorders.push(Arc::new(Recorder::new(settings.clone(), options.format, key, device)));
        }
        let mut devices = Devices { generation: 1, recorders };
        devices.sort();
        Ok(Broker { devices: ArcSwap::from_pointee(devices), clock, metrics })
    }

    /// Whether there is any device.
    pub(crate) fn is_on(&self) -> bool {
        !self.devices.load().recorders.is_empty()
    }

    /// Adds a device.
    pub(crate) fn add(&self, recorder: Recorder) {
        let recorder = Arc::new(recorder);
        self.change(|recorders| recorders.push(recorder.clone()));
    }

    /// Removes the device of this name that `sys/audit` created.
    pub(crate) fn remove(&self, name: &str) {
        self.change(|recorders| recorders.retain(|r| !r.created || r.settings.name != name));
    }

    fn change(&self, change: impl Fn(&mut Vec<Arc<Recorder>>)) {
        self.devices.rcu(|present| {
            let mut next = Devices { generation: present.generation + 1, recorders: present.recorders.clone() };
            change(&mut next.recorders);
            next.sort();
            next
        });
    }

    /// Records an entry. `said` is what the entry before said of the same request; what this one says is returned.
    ///
    /// Fails with 500 when there are devices and none takes it: nothing happens unrecorded.
    pub(crate) async fn record(&self, entry: &Entry<'_>, said: &Said) -> Result<Said> {
        let (timing, failures) = match entry.response {
            Some(_) => (&self.metrics.audit_response, &self.metrics.audit_response_failure),
            None => (&self.metrics.audit_request, &self.metrics.audit_request_failure),
        };
        let (outcome, end) = self.hand_out(entry, said).await;
        timing.record(end.since(entry.time));
        if outcome.is_err() {
            failures.add();
        }
        outcome
    }

    /// Gives an entry to all devices. Returns also when the last one was done.
    async fn hand_out(&self, entry: &Entry<'_>, said: &Said) -> (Result<Said>, Timestamp) {
        let devices = self.devices.load_full();
        let Devices { generation, recorders } = &*devices;
        let mut taken = recorders.is_empty();
        let marks = entry.caller.zip(entry.request.token).map(|(token, text)| devices.marks_of(token, text));
        let expected = if entry.response.is_some() { 0 } else { recorders.len() };
        let mut saying = Said { generation: *generation, by_device: Vec::with_capacity(expected) };
        let mut begun = entry.time;
        for (at, recorder) in recorders.iter().enumerate() {
            let mark = marks.as_ref().and_then(|marks| marks.by_device.get(at));
            let said = said.by_device.get(at).filter(|_| said.generation == *generation).map(|s| &**s);
            let (line, request) = offload::run(entry.input_length(said.is_some()), || {
                let mut line = Vec::with_capacity(entry.expected_length());
                let request = entry.line(&recorder.key, &recorder.format, mark, said, &mut line);
                (line, request)
            })
            .await;
            if entry.response.is_none() {
                saying.by_device.push(Box::from(&line[request]));
            }
            let outcome = match recorder.device.can_block() {
                false => recorder.device.write(&line).await,
                true => Box::pin(self.write_in_time(recorder, &line, taken)).await,
            };
            let done = self.clock.now();
            let timing = if entry.response.is_some() { &recorder.responses } else { &recorder.requests };
            timing.record(done.since(begun));
            begun = done;
            match outcome {
                Ok(()) => taken = true,
                Err(error) => {
                    tracing::error!(device = %recorder.settings.name, %error, "audit device did not take an entry")
                }
            }
        }
        let outcome = if taken { Ok(saying) } else { Err(Error::internal("no audit device took the entry")) };
        (outcome, begun)
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
    pub(crate) fn shown(&self) -> BTreeMap<String, Shown> {
        let shown = |r: &Arc<Recorder>| {
            let path = format!("{}/", r.settings.name);
            let shown = Shown {
                description: r.settings.description.clone(),
                local: r.local,
                options: r.settings.options.clone(),
                path: path.clone(),
                device: r.settings.device.clone(),
            };
            (path, shown)
        };
        self.devices.load().recorders.iter().map(shown).collect()
    }

    /// How long each device takes.
    pub(crate) fn items(&self) -> Vec<Item> {
        let of_one = |r: &Arc<Recorder>| {
            let item = |what: &str, timing: &Timing| {
                Item::new(format!("audit.{}/.{what}", r.settings.name), Value::Summary(timing.read()))
            };
            [item("log_request", &r.requests), item("log_response", &r.responses)]
        };
        self.devices.load().recorders.iter().flat_map(of_one).collect()
    }

    /// Ends an interval of the devices' timings.
    pub(crate) fn turn(&self) {
        self.devices.load().recorders.iter().flat_map(|r| [&r.requests, &r.responses]).for_each(Timing::turn);
    }

    /// Whether at least one target is open.
    pub(crate) fn has_open_device(&self) -> bool {
        self.devices.load().recorders.iter().any(|r| r.device.is_open())
    }

    /// Whether a device of this name is declared in the configuration.
    pub(crate) fn is_declared(&self, name: &str) -> bool {
        self.devices.load().recorders.iter().any(|r| !r.created && r.settings.name == name)
    }

    /// Whether a device of this name would stand at, above or below the path of another one.
    pub(crate) fn collides(&self, name: &str) -> bool {
        let path = format!("{name}/");
        let near = |other: &str| path.starts_with(&format!("{other}/")) || other.starts_with(&path);
        self.devices.load().recorders.iter().any(|r| near(&r.settings.name))
    }

    /// The hash by which a value appears in the entries of one device; `None` if there is no such device.
    pub(crate) fn hash(&self, name: &str, value: &str) -> Option<String> {
        let devices = self.devices.load();
        let recorder = devices.recorders.iter().find(|r| r.settings.name == name.trim_end_matches('/'))?;
        let mut out = Vec::new();
        redact::hash(value.as_bytes(), &recorder.key, &mut out);
        String::from_utf8(out).ok()
    }

    /// Opens every target anew, after log rotation. A target that cannot be opened keeps the open file.
    pub(crate) fn reopen(&self) {
        for recorder in &self.devices.load().recorders {
            if let Err(error) = recorder.device.reopen() {
                let device = &recorder.settings.name;
                tracing::error!(%device, %error, "audit device cannot be reopened; the open file is kept");
            }
        }
    }
}

impl Recorder {
    /// A device that `sys/audit` created.
    pub(crate) fn created(settings: AuditSettings, (options, device): OpenedDevice, salt: &[u8], local: bool) -> Self {
        Recorder { created: true, local, ..Recorder::new(settings, options.format, HmacKey::new(salt), device) }
    }

    /// A device of the configuration.
    fn new(settings: AuditSettings, format: Format, key: HmacKey, device: Box<dyn Device>) -> Self {
        let (requests, responses) = (Timing::default(), Timing::default());
        Recorder { settings, format, key, device, created: false, local: false, requests, responses }
    }
}

impl Devices {
    /// One that cannot wait is asked first; when it has the entry, nobody waits for the others.
    fn sort(&mut self) {
        self.recorders.sort_by_key(|r| r.device.can_block());
    }

    /// What entries repeat of a token, written when its first entry is.
    fn marks_of(&self, token: &Token, text: &str) -> Arc<Marks> {
        if let Some(known) = token.marks.load_full().filter(|known| known.generation == self.generation) {
            return known;
        }
        let mark = |r: &Arc<Recorder>| Mark::new(text, &token.record, &r.key, &r.format);
        let by_device = self.recorders.iter().map(mark).collect();
        let marks = Arc::new(Marks { generation: self.generation, by_device });
        token.marks.store(Some(marks.clone()));
        marks
    }
}

/// Where the salt of a device is.
pub(crate) fn salt_key(name: &str) -> String {
    format!("salt/{name}")
}

async fn salt(barrier: &Arc<Barrier>, view: &View, name: &str) -> Result<Vec<u8>> {
    let key = salt_key(name);
    let mut tx = barrier.begin();
    if let Some(salt) = tx.get(view, &key).await? {
        return Ok(salt.to_vec());
    }
    let salt = random::bytes::<32>();
    tx.put(view, &key, Bytes::copy_from_slice(&salt));
    tx.commit().await?;
    Ok(salt.to_vec())
}
