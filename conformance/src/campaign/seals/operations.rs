//! The operations during which the server is killed, and the storages on which they begin.

use std::fs::OpenOptions;
use std::os::unix::fs::FileExt as _;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use rustix::process::{Pid, Signal, kill_process};
use serde_json::{Value, json};
use tempfile::TempDir;

use super::ways::{Known, QUIET, Way, Ways, listed, settled};
use crate::http::Response;
use crate::node_faults::compile;
use crate::seals::{STATIC_KEYS, SealKind, SealServices, copy, done};
use crate::servers::Server;

/// The records of a storage before an operation.
const RECORDS: usize = 5;

/// A storage with some seals and shares.
pub(super) struct Template {
    directory: TempDir,
    known: Known,
}

impl Template {
    /// Creates a storage that these seals and recovery keys open; without seals, unseal keys.
    pub(super) fn create(services: &SealServices, kinds: &[SealKind]) -> Result<Self> {
        let stanzas: String = kinds.iter().map(|kind| services.stanza(*kind, QUIET)).collect();
        let mut server = services.serve(None, &stanzas, Vec::new())?;
        if kinds.is_empty() {
            server.init_with(3, 2)?;
        } else {
            server.init_with_seals(3, 2)?;
        }
        let mut known = Known { root: server.root.clone(), shares: server.keys.clone(), ..Known::default() };
        let mut client = server.client()?;
        done(&mut client, &server.root, "POST", "sys/mounts/kv", &json!({"type": "kv"}))?;
        for number in 0..RECORDS {
            let path = format!("kv/first{number}");
            done(&mut client, &server.root, "PUT", &path, &json!({"path": path}))?;
            known.written.push(path);
        }
        let (listed, expected) = (listed(&server)?, ways(kinds));
        if listed != expected {
            bail!("a new storage lists {listed:?}, not {expected:?}");
        }
        server.terminate()?;
        let directory = tempfile::Builder::new().prefix("conformance-seals-").tempdir()?;
        copy(&server.directory().join("data"), directory.path())?;
        Ok(Self { directory, known })
    }
}

/// The ways of these seals, and of shares.
fn ways(kinds: &[SealKind]) -> Ways {
    kinds.iter().map(|kind| Way::of(*kind)).chain([Way::Shares]).collect()
}

/// The request at which the server is killed.
enum Request {
    Init,
    /// A request with the root token.
    Send(&'static str, &'static str, Value),
    /// The last share of the verification of new recovery keys.
    NewShares,
    /// The last share of a migration.
    Migrate,
}

/// An operation.
pub(super) struct Operation {
    pub(super) name: String,
    template: Option<usize>,
    stanzas: String,
    request: Request,
    /// The ways before it and after it.
    pub(super) before: Ways,
    pub(super) after: Ways,
}

impl Operation {
    /// Whether it is a migration, which is repeated after a kill.
    pub(super) fn migrates(&self) -> bool {
        matches!(self.request, Request::Migrate)
    }
}

/// All operations with their storages.
pub(super) struct Operations {
    templates: Vec<Template>,
    pub(super) all: Vec<Operation>,
    library: PathBuf,
    _directory: TempDir,
}

/// The storages: without seals, with each seal, with all.
const TEMPLATES: [&[SealKind]; 5] =
    [&[], &[SealKind::Static], &[SealKind::Transit], &[SealKind::Pkcs11], &SealKind::ALL];
const SHARES: usize = 0;
const STATIC: usize = 1;
const ALL: usize = 4;

impl Operations {
    /// Prepares all operations.
    pub(super) fn prepare(services: &SealServices) -> Result<Self> {
        let directory = tempfile::Builder::new().prefix("conformance-faults-").tempdir()?;
        let library = compile("campaign/seals/kill_point.c", directory.path())?;
        let templates = TEMPLATES.iter().map(|kinds| Template::create(services, kinds)).collect::<Result<_>>()?;
        let mut all = changes(services);
        all.extend(migrations(services));
        Ok(Self { templates, all, library, _directory: directory })
    }
}

/// The operations of an unsealed server, and init.
fn changes(services: &SealServices) -> Vec<Operation> {
    let every: String = SealKind::ALL.iter().map(|kind| services.stanza(*kind, QUIET)).collect();
    let all = ways(&SealKind::ALL);
    let of = |name: &str, template, request, after: &Ways| Operation {
        name: name.to_owned(),
        template: Some(template),
        stanzas: every.clone(),
        request,
        before: ways(TEMPLATES[template]),
        after: after.clone(),
    };
    let without = |way: Way| all.iter().copied().filter(|other| *other != way).collect::<Ways>();
    let order = json!({"names": ["pkcs11", "static", "transit"]});
    let new_shares = without(Way::Shares).into_iter().chain([Way::NextShares]).collect();
    let stanzas = services.static_stanza(STATIC_KEYS[1], Some(STATIC_KEYS[0]), QUIET);
    let next_key = [Way::NextStatic, Way::Shares].into();
    let init = of("init", SHARES, Request::Init, &all);
    vec![
        Operation { template: None, before: Ways::new(), ..init },
        of(
            "enrol",
            STATIC,
            Request::Send("POST", "sys/seals/transit", json!({})),
            &[Way::Static, Way::Transit, Way::Shares].into(),
        ),
        of("remove", ALL, Request::Send("DELETE", "sys/seals/pkcs11", Value::Null), &without(Way::Pkcs11)),
        of("order", ALL, Request::Send("POST", "sys/seals/order", order), &all),
        of("new root", ALL, Request::Send("POST", "sys/rotate/root", json!({})), &all),
        of("no break-glass", ALL, Request::Send("DELETE", "sys/seals/break-glass", Value::Null), &without(Way::Shares)),
        of("new shares", ALL, Request::NewShares, &new_shares),
        Operation {
            stanzas,
            ..of("new KEK", STATIC, Request::Send("POST", "sys/seals/static/check", json!({})), &next_key)
        },
    ]
}

/// The migrations of all ordered pairs of shares and seals.
fn migrations(services: &SealServices) -> Vec<Operation> {
    let mut all = Vec::new();
    for (template, from) in TEMPLATES[..ALL].iter().enumerate() {
        for to in TEMPLATES[..ALL].iter().filter(|to| *to != from) {
            let disabled: String =
                from.iter().map(|kind| services.stanza(*kind, &format!("{QUIET} disabled = \"true\"\n"))).collect();
            let enabled: String = to.iter().map(|kind| services.stanza(*kind, QUIET)).collect();
            let name = |kinds: &[SealKind]| kinds.first().map_or("shares", |kind| kind.name());
            all.push(Operation {
                name: format!("{} to {}", name(from), name(to)),
                template: Some(template),
                stanzas: disabled + &enabled,
                request: Request::Migrate,
                before: ways(from),
                after: ways(to),
            });
        }
    }
    all
}

/// More effects than any request has.
const UNLIMITED: u64 = i64::MAX as u64;

/// When the server is killed.
#[derive(Clone, Copy, Debug)]
pub(super) enum Kill {
    /// After the request.
    Never,
    /// At this effect of the request: `kill_point.c`.
    AtEffect(u64),
    /// After this time.
    After(Duration),
}

/// A server that was killed.
pub(super) struct Killed {
    pub(super) server: Server,
    pub(super) known: Known,
    /// Whether the request was acknowledged.
    pub(super) is_acknowledged: bool,
    /// The error response, if any.
    pub(super) refused: Option<String>,
    /// When it was.
    pub(super) kill: Kill,
    /// The effects of the request.
    pub(super) effects: u64,
    pub(super) took: Duration,
}

impl Operations {
    /// Runs an operation and kills the server during it, or after it.
    pub(super) fn run(&self, services: &SealServices, operation: &Operation, kill: Kill) -> Result<Killed> {
        let preload = vec![("LD_PRELOAD".to_owned(), self.library.display().to_string())];
        let template = operation.template.map(|template| &self.templates[template]);
        let data = template.map(|template| template.directory.path());
        let mut known = template.map(|template| template.known.clone()).unwrap_or_default();
        let mut server = services.serve(data, &operation.stanzas, preload)?;
        server.root.clone_from(&known.root);
        let (method, path, body) = prepare(&server, operation, &mut known)?;
        let point = server.directory().join("kill-point");
        let has_writer = !matches!(operation.request, Request::Init | Request::Migrate);
        let is_over = AtomicBool::new(false);
        let started = Instant::now();
        let (response, written) = std::thread::scope(|scope| -> Result<_> {
            let writer = has_writer.then(|| scope.spawn(|| write(&server, &is_over)));
            match kill {
                Kill::Never => arm(&point, UNLIMITED)?,
                Kill::AtEffect(number) => arm(&point, number)?,
                Kill::After(time) => {
                    arm(&point, UNLIMITED)?;
                    let pid = Pid::from_raw(i32::try_from(server.pid())?).context("no process")?;
                    scope.spawn(move || {
                        std::thread::sleep(time);
                        kill_process(pid, Signal::KILL)
                    });
                }
            }
            let token = Some(server.root.as_str()).filter(|token| !token.is_empty());
            let response = server.client()?.call(token, method, &path, body.as_ref());
            is_over.store(true, Ordering::Relaxed);
            let written = writer.map(|writer| writer.join().unwrap_or_default()).unwrap_or_default();
            Ok((response, written))
        })?;
        let took = started.elapsed();
        server.kill()?;
        let effects = read(&point)?;
        arm(&point, 0)?;
        known.written.extend(written);
        let (is_acknowledged, refused) = judged(response, &mut known, operation);
        Ok(Killed { server, known, is_acknowledged, refused, kill, effects, took })
    }
}

/// Whether the response acknowledges the request, and the error response.
fn judged(response: Result<Response>, known: &mut Known, operation: &Operation) -> (bool, Option<String>) {
    let Ok(response) = response else { return (false, None) };
    if response.status >= 300 {
        return (false, Some(format!("{} {}", response.status, String::from_utf8_lossy(&response.body))));
    }
    if matches!(operation.request, Request::Init) {
        let body = response.json().unwrap_or_default();
        let keys = body["recovery_keys_base64"].as_array().cloned().unwrap_or_default();
        known.shares = keys.iter().filter_map(Value::as_str).map(str::to_owned).collect();
        known.root = body["root_token"].as_str().unwrap_or_default().to_owned();
    }
    (true, None)
}

/// Brings the server to the request at which it is killed, and returns that.
fn prepare(server: &Server, operation: &Operation, known: &mut Known) -> Result<(&'static str, String, Option<Value>)> {
    let mut client = server.client()?;
    match &operation.request {
        Request::Init => {
            let body = json!({"recovery_shares": 3, "recovery_threshold": 2});
            Ok(("PUT", "sys/init".to_owned(), Some(body)))
        }
        Request::Send(method, path, body) => {
            server.wait_until_serving()?;
            Ok((method, (*path).to_owned(), (!body.is_null()).then(|| body.clone())))
        }
        Request::NewShares => {
            server.wait_until_serving()?;
            let root = &server.root;
            let init = json!({"secret_shares": 3, "secret_threshold": 2, "require_verification": true});
            let started = done(&mut client, root, "PUT", "sys/rotate/recovery/init", &init)?;
            let mut last = Value::Null;
            for share in &known.shares[..2] {
                let body = json!({"key": share, "nonce": started["data"]["nonce"]});
                last = done(&mut client, root, "PUT", "sys/rotate/recovery/update", &body)?;
            }
            let keys = last["data"]["keys_base64"].as_array().context("no new keys")?;
            known.next_shares = keys.iter().filter_map(Value::as_str).map(str::to_owned).collect();
            let verify = |share: &str| json!({"key": share, "nonce": last["data"]["verification_nonce"]});
            let path = "sys/rotate/recovery/verify";
            done(&mut client, root, "PUT", path, &verify(&known.next_shares[0]))?;
            Ok(("PUT", path.to_owned(), Some(verify(&known.next_shares[1]))))
        }
        Request::Migrate => {
            let (_, status) = settled(server)?;
            if status["migration"] != true {
                bail!("no migration is pending: {status}");
            }
            let share = |at: usize| json!({"key": known.shares[at], "migrate": true});
            done(&mut client, "", "PUT", "sys/unseal", &share(0))?;
            Ok(("PUT", "sys/unseal".to_owned(), Some(share(1))))
        }
    }
}

/// Writes records until the connection breaks or the operation is over; the acknowledged ones.
fn write(server: &Server, is_over: &AtomicBool) -> Vec<String> {
    let Ok(mut client) = server.client() else { return Vec::new() };
    let mut written = Vec::new();
    while !is_over.load(Ordering::Relaxed) && written.len() < 50 {
        let path = format!("kv/live{}", written.len());
        if done(&mut client, &server.root, "PUT", &path, &json!({"path": path})).is_err() {
            break;
        }
        written.push(path);
    }
    written
}

/// Sets the number of effects that the process still has, and begins to count.
fn arm(point: &Path, effects: u64) -> Result<()> {
    let file = OpenOptions::new().write(true).open(point)?;
    file.write_all_at(&0_u64.to_ne_bytes(), 8)?;
    Ok(file.write_all_at(&effects.to_ne_bytes(), 0)?)
}

/// The effects since then.
fn read(point: &Path) -> Result<u64> {
    let mut bytes = [0; 8];
    OpenOptions::new().read(true).open(point)?.read_exact_at(&mut bytes, 8)?;
    Ok(u64::from_ne_bytes(bytes))
}
