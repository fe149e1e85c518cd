//! The broker: at least one device takes an entry, or the request fails.

use std::collections::BTreeMap;
use std::io;
use std::sync::Arc;
use std::time::Duration;

use arc_swap::ArcSwap;
use bytes::Bytes;
use futures_util::StreamExt as _;
use futures_util::stream::FuturesUnordered;
use keepfast_crypto::hmac::HmacKey;
use keepfast_crypto::random;
use keepfast_framework::{Clock, Error, Result, Timestamp, offload};
use keepfast_storage::{ReadTx, Tx, View};
use serde::Serialize;

use super::device::{Device, Ticket};
use super::entry::{Entry, Format};
use super::line::Line;
use super::redact;
use super::target::OpenedDevice;
use super::token_members::{TokenMembers, TokenMembersByDevice};
use crate::metrics::{Item, Metrics, Timing, Value};
use crate::settings::AuditSettings;
use crate::token::Token;

/// The timeout of a device that depends on a reader, when no other device has taken the entry.
const BLOCKING_TIMEOUT: Duration = Duration::from_secs(5);

/// All audit devices: the declared ones, and those that `sys/audit` created, if the configuration allows it.
pub(crate) struct Broker {
    devices: ArcSwap<Devices>,
    clock: Arc<dyn Clock>,
    metrics: Arc<Metrics>,
}

/// A snapshot of the devices.
struct Devices {
    /// Incremented by each change.
    generation: u64,
    recorders: Vec<Arc<Recorder>>,
}

/// An opened device with its settings, format and key.
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

/// A line that was submitted to a device.
struct Submitted<'a> {
    recorder: &'a Recorder,
    /// The time at which the device's work on the entry began.
    started: Timestamp,
    is_response: bool,
    ticket: Ticket<'a>,
}

/// The `request` member of a request entry, by device; the response entry repeats it.
#[derive(Default)]
pub(crate) struct SerializedRequest {
    generation: u64,
    by_device: Vec<Line>,
}

/// A device in the response of `sys/audit`.
#[derive(Serialize)]
pub(crate) struct DeviceResponse {
    description: String,
    local: bool,
    options: BTreeMap<String, String>,
    path: String,
    #[serde(rename = "type")]
    device: String,
}

impl Broker {
    /// Takes opened devices, in the order of `settings`; each has a salt of its own, stored behind the barrier.
    ///
    /// Fails when storage fails or a device has no salt.
    pub(crate) async fn open(
        tx: &mut ReadTx,
        view: &View,
        settings: &[AuditSettings],
        opened: Vec<OpenedDevice>,
        clock: Arc<dyn Clock>,
        metrics: Arc<Metrics>,
    ) -> Result<Self> {
        let mut recorders = Vec::with_capacity(settings.len());
        for (settings, (options, device)) in settings.iter().zip(opened) {
            let key = HmacKey::new(&salt(tx, view, &settings.name).await?);
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

    /// Writes an entry. A response entry repeats the `earlier` part of its request entry; a request entry returns that part.
    ///
    /// Fails with 500 when there are devices and none takes it: no request runs unaudited.
    pub(crate) async fn record(&self, entry: &Entry<'_>, earlier: &SerializedRequest) -> Result<SerializedRequest> {
        let (timing, failures) = match entry.response {
            Some(_) => (&self.metrics.audit_response, &self.metrics.audit_response_failure),
            None => (&self.metrics.audit_request, &self.metrics.audit_request_failure),
        };
        let (outcome, end) = self.submit(entry, earlier).await;
        timing.record(end.since(entry.time));
        if outcome.is_err() {
            failures.add();
        }
        outcome
    }

    /// Submits an entry to all devices, then waits until one has taken it. Also returns the time of that.
    async fn submit(&self, entry: &Entry<'_>, earlier: &SerializedRequest) -> (Result<SerializedRequest>, Timestamp) {
        let devices = self.devices.load_full();
        let Devices { generation, recorders } = &*devices;
        let is_response = entry.response.is_some();
        let marks = entry.caller.zip(entry.request.token).map(|(token, text)| devices.marks_of(token, text));
        let expected = if is_response { 0 } else { recorders.len() };
        let mut serialized = SerializedRequest { generation: *generation, by_device: Vec::with_capacity(expected) };
        // Most servers have one device; this case allocates nothing.
        let (mut first, mut others) = (None, Vec::new());
        let mut started = entry.time;
        for (at, recorder) in recorders.iter().enumerate() {
            if at > 0 {
                started = self.clock.now();
            }
            let mark = marks.as_ref().and_then(|marks| marks.by_device.get(at));
            let earlier = earlier.by_device.get(at).filter(|_| earlier.generation == *generation).map(|s| &**s);
            let (line, request) = offload::run(entry.input_length(earlier.is_some()), || {
                let mut line = Vec::with_capacity(entry.expected_length());
                let request = entry.line(&recorder.key, &recorder.format, mark, earlier, &mut line);
                (Line::new(line, recorder.format.log_raw), request)
            })
            .await;
            if !is_response {
                serialized.by_device.push(Line::new(&line[request], recorder.format.log_raw));
            }
            let submitted = Submitted { recorder, started, is_response, ticket: recorder.device.submit(line) };
            match first {
                None => first = Some(submitted),
                Some(_) => others.push(submitted),
            }
        }
        let mut end = entry.time;
        let mut taken = recorders.is_empty();
        let mut blocking = Vec::new();
        for submitted in first.into_iter().chain(others) {
            if submitted.recorder.device.can_block() {
                blocking.push(submitted);
                continue;
            }
            let Submitted { recorder, started, ticket, .. } = submitted;
            let outcome = ticket.written().await;
            end = self.clock.now();
            taken |= recorder.note(is_response, end.since(started), outcome.err());
        }
        if !blocking.is_empty() {
            taken = Box::pin(self.wait_for_blocking(blocking, taken)).await;
            end = self.clock.now();
        }
        let outcome = if taken { Ok(serialized) } else { Err(Error::internal("no audit device took the entry")) };
        (outcome, end)
    }

    /// Waits for the first device that takes the entry, or for none when `taken` is already true. Returns whether one
    /// has.
    async fn wait_for_blocking(&self, submitted: Vec<Submitted<'_>>, taken: bool) -> bool {
        if taken {
            for Submitted { recorder, started, is_response, ticket } in submitted {
                recorder.note(is_response, self.clock.now().since(started), ticket.failure());
            }
            return true;
        }
        let in_time = |Submitted { recorder, started, is_response, ticket }| async move {
            let end = self.clock.sleep_until(self.clock.now().after(BLOCKING_TIMEOUT));
            let failure = tokio::select! {
                biased;
                outcome = ticket.written() => outcome.err(),
                () = end => Some(io::Error::new(io::ErrorKind::TimedOut, "nobody reads the audit stream")),
            };
            recorder.note(is_response, self.clock.now().since(started), failure)
        };
        let mut waiting: FuturesUnordered<_> = submitted.into_iter().map(in_time).collect();
        while let Some(taken) = waiting.next().await {
            if taken {
                return true;
            }
        }
        false
    }

    /// The response of `sys/audit`: the devices by path.
    pub(crate) fn to_response(&self) -> BTreeMap<String, DeviceResponse> {
        let response = |r: &Arc<Recorder>| {
            let path = format!("{}/", r.settings.name);
            let response = DeviceResponse {
                description: r.settings.description.clone(),
                local: r.local,
                options: r.settings.options.clone(),
                path: path.clone(),
                device: r.settings.device.clone(),
            };
            (path, response)
        };
        self.devices.load().recorders.iter().map(response).collect()
    }

    /// The timings of the devices.
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

    /// Whether the path of a device with this name would be equal to, above or below that of another one.
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

    /// Opens every target again, after log rotation. A target that cannot be opened keeps the open file.
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

    /// Counts and logs the outcome of an entry. Returns whether it succeeded.
    fn note(&self, is_response: bool, took: Duration, failure: Option<io::Error>) -> bool {
        let timing = if is_response { &self.responses } else { &self.requests };
        timing.record(took);
        if let Some(error) = &failure {
            tracing::error!(device = %self.settings.name, %error, "an audit device failed to write an entry");
        }
        failure.is_none()
    }
}

impl Devices {
    /// Sorts the devices: those that cannot block come first.
    fn sort(&mut self) {
        self.recorders.sort_by_key(|r| r.device.can_block());
    }

    /// The members of a token that entries repeat, written with its first entry.
    fn marks_of(&self, token: &Token, text: &str) -> Arc<TokenMembersByDevice> {
        if let Some(known) = token.marks.load_full().filter(|known| known.generation == self.generation) {
            return known;
        }
        let mark = |r: &Arc<Recorder>| TokenMembers::new(text, &token.record, &r.key, &r.format);
        let by_device = self.recorders.iter().map(mark).collect();
        let marks = Arc::new(TokenMembersByDevice { generation: self.generation, by_device });
        token.marks.store(Some(marks.clone()));
        marks
    }
}

/// The storage key of the salt of a device.
pub(crate) fn salt_key(name: &str) -> String {
    format!("salt/{name}")
}

async fn salt(tx: &mut ReadTx, view: &View, name: &str) -> Result<Bytes> {
    let salt = tx.get(view, &salt_key(name)).await?;
    salt.ok_or_else(|| Error::internal(format!("the audit device {name:?} has no salt")))
}

/// Creates the salts of the declared devices that have none.
pub(crate) async fn make_salts(tx: &mut Tx, view: &View, settings: &[AuditSettings]) -> Result<()> {
    for device in settings {
        let key = salt_key(&device.name);
        if tx.get(view, &key).await?.is_none() {
            tx.put(view, &key, Bytes::copy_from_slice(&random::bytes::<32>()));
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::io::PipeReader;

    use keepfast_framework::Query;
    use keepfast_framework::clock::TestClock;

    use super::*;
    use crate::audit::allowed_targets::AllowedTargets;
    use crate::audit::device::StreamDevice;
    use crate::audit::{PolicyResults, RequestPart, device::FileDevice};
    use crate::namespace::Namespace;

    fn recorder(device: Box<dyn Device>) -> Arc<Recorder> {
        let settings = AuditSettings {
            device: "file".into(),
            name: "log".into(),
            description: String::new(),
            options: BTreeMap::new(),
        };
        let format = Format { log_raw: false, hmac_accessor: true, elide_list_responses: false, prefix: String::new() };
        Arc::new(Recorder::new(settings, format, HmacKey::new(&[1; 32]), device))
    }

    fn file(path: &str) -> Arc<Recorder> {
        recorder(Box::new(FileDevice::open(path.as_ref(), None, &AllowedTargets::default()).unwrap()))
    }

    /// A full pipe without a reader.
    fn stuck() -> (PipeReader, Arc<Recorder>) {
        let (reader, mut writer) = io::pipe().unwrap();
        rustix::io::ioctl_fionbio(&writer, true).unwrap();
        while io::Write::write(&mut writer, &[b'x'; 4096]).is_ok() {}
        rustix::io::ioctl_fionbio(&writer, false).unwrap();
        (reader, recorder(Box::new(StreamDevice::new(Box::new(writer)).unwrap())))
    }

    fn broker(recorders: Vec<Arc<Recorder>>) -> (Broker, TestClock) {
        let clock = TestClock::default();
        let mut devices = Devices { generation: 1, recorders };
        devices.sort();
        let metrics = Arc::new(Metrics::default());
        (Broker { devices: ArcSwap::from_pointee(devices), clock: Arc::new(clock.clone()), metrics }, clock)
    }

    async fn record(broker: &Broker) -> Result<()> {
        let (query, policy_results) = (Query::default(), PolicyResults::default());
        let namespace = Namespace::root();
        let request = RequestPart {
            id: "1",
            namespace: &namespace,
            operation: "read",
            path: "secret/a",
            mount: None,
            token: None,
            data: None,
            query: &query,
            headers: &[],
            remote: None,
            forwarded_from: None,
            wrap_ttl: 0,
            public: None,
        };
        let time = broker.clock.now();
        let entry = Entry { time, request, caller: None, policy_results: &policy_results, response: None, error: None };
        broker.record(&entry, &SerializedRequest::default()).await.map(drop)
    }

    #[tokio::test]
    async fn sec_al07_all_devices_that_block_are_waited_for_5_seconds_in_all() {
        let ((_one, first), (_two, second)) = (stuck(), stuck());
        let (broker, clock) = broker(vec![first, second]);
        let mut recording = Box::pin(record(&broker));
        assert!(futures_util::poll!(&mut recording).is_pending());
        clock.advance(BLOCKING_TIMEOUT - Duration::from_millis(1));
        assert!(futures_util::poll!(&mut recording).is_pending());
        clock.advance(Duration::from_millis(1));
        assert!(recording.await.is_err());
    }

    #[tokio::test]
    async fn a_blocked_device_delays_no_request_when_another_writes_the_entry() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("log");
        for other in
            [file(path.to_str().unwrap()), recorder(Box::new(StreamDevice::new(Box::new(io::sink())).unwrap()))]
        {
            let (_reader, stuck) = stuck();
            let (broker, clock) = broker(vec![stuck, other]);
            let started = clock.now();
            record(&broker).await.unwrap();
            assert_eq!(clock.now(), started);
        }
        assert_eq!(std::fs::read_to_string(path).unwrap().lines().count(), 1);
    }

    #[tokio::test]
    async fn a_pipe_writes_the_entry_when_the_file_is_full() {
        let (mut reader, writer) = io::pipe().unwrap();
        let pipe = recorder(Box::new(StreamDevice::new(Box::new(writer)).unwrap()));
        let (broker, _) = broker(vec![pipe, file("/dev/full")]);
        record(&broker).await.unwrap();
        drop(broker);
        let mut text = String::new();
        io::Read::read_to_string(&mut reader, &mut text).unwrap();
        assert_eq!(text.lines().count(), 1);
    }
}
