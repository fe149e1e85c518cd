//! Reads secrets of a snapshot file without a server. Nothing is written, no engine acts on another system, and nothing
//! expires: only a read of one secrets engine runs.

use std::fs::File;
use std::io::BufReader;
use std::sync::Arc;

use keepfast_crypto::random;
use keepfast_crypto::secret::{SecretBytes, SecretString};
use keepfast_framework::cx::Request;
use keepfast_framework::engine::Registry;
use keepfast_framework::reply::Payload;
use keepfast_framework::{Clock, Cx, Error, Input, Operation, Outcome, Query, Result, Status};
use keepfast_storage::Barrier;

use super::file_records::FileRecords;
use super::format::{SNAPSHOTS, SnapshotFileError};
use super::read::VerifiedSnapshot;
use crate::layout::SYSTEM_STORAGE;
use crate::mount::Mounts;
use crate::mount::table::MountStorage;
use crate::namespace::NamespaceId;
use crate::request::envelope::Envelope;
use crate::seal::shares::{check_share, decode_share};
use crate::seal::{SealConfig, WayIn};
use crate::settings::Settings;

/// The prefixes of the records that every reader needs.
const KEPT: &[&str] = &["barrier/", "sys/mount/"];

/// The contents of a verified snapshot file, sealed.
pub struct SealedContents {
    snapshot: VerifiedSnapshot,
    records: Arc<FileRecords>,
    seal: SealConfig,
}

/// The mount of a path in a snapshot.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ContainedMount {
    /// Its path, without a slash at the end.
    pub path: String,
    /// The type of the engine.
    pub engine: String,
    /// The option `version`.
    pub version: Option<String>,
}

/// The unsealed contents of a snapshot file.
pub struct UnsealedContents {
    barrier: Arc<Barrier>,
    mounts: Mounts,
    clock: Arc<dyn Clock>,
}

impl SealedContents {
    /// Reads a whole file, of at most `limit` bytes when decompressed, and checks its digests.
    ///
    /// # Errors
    /// See [`SnapshotFileError`].
    pub async fn open(file: File, limit: u64) -> std::result::Result<Self, SnapshotFileError> {
        let snapshot = VerifiedSnapshot::read(BufReader::new(&file), limit)?;
        let records = FileRecords::new(file, KEPT).await?;
        let seal = SealConfig::load(&records).await.ok().flatten();
        let seal = seal.ok_or(SnapshotFileError::Damaged("it has no readable configuration of a seal"))?;
        Ok(SealedContents { snapshot, records: Arc::new(records), seal })
    }

    /// The number of shares that unseal it.
    pub fn threshold(&self) -> usize {
        self.seal.shape().threshold.into()
    }

    /// Unseals it with shares in hex or base64, and checks that its keyring has authenticated it.
    ///
    /// # Errors
    /// With 400 for other shares, and when no shares unseal it; when the snapshot is damaged.
    pub async fn unseal(
        self,
        shares: &[SecretString],
        registry: Registry,
        clock: Arc<dyn Clock>,
    ) -> Result<UnsealedContents> {
        let decode = |share: &SecretString| {
            let share = decode_share(share.expose())?;
            check_share(&share).map(|()| share)
        };
        let shares: Vec<SecretBytes> = shares.iter().map(decode).collect::<Result<_>>()?;
        if !self.seal.opens_by_shares() {
            return Err(Error::invalid("only a seal unseals this snapshot: restore it on a server with that seal"));
        }
        let wrong = || Error::invalid("Unsealing failed, invalid key");
        let key = self.seal.quorum(&shares).ok_or_else(wrong)?;
        let way = WayIn::Shares(key);
        let root = self.seal.open(&way)?.ok_or_else(wrong)?;
        let barrier = Barrier::open(self.records, &root).await.map_err(Error::internal)?;
        self.seal.unlock_wrapped_values(&way, &barrier)?;
        let key = barrier.derive(self.snapshot.details.key_term, SNAPSHOTS)?;
        if !self.snapshot.is_sealed_by(&key) {
            return Err(Error::invalid("the keyring of the snapshot has not authenticated it"));
        }
        let settings = Arc::new(Settings::default());
        let storage = MountStorage {
            namespace: Arc::from(""),
            all: barrier.view(""),
            entries: barrier.view(SYSTEM_STORAGE),
            cubbyhole: None,
        };
        let mounts = Mounts::new(NamespaceId::root(), storage, Arc::new(registry), settings);
        mounts.load(&mut barrier.begin_read()).await?;
        Ok(UnsealedContents { barrier, mounts, clock })
    }
}

impl UnsealedContents {
    /// The mount of a secrets engine whose path `path` begins with.
    pub fn mount(&self, path: &str) -> Option<ContainedMount> {
        let path = format!("{}/", path.trim_matches('/'));
        let router = self.mounts.router();
        let entry = &router.find(&path)?.0.entry;
        (!entry.auth).then(|| ContainedMount {
            path: entry.path.trim_end_matches('/').to_owned(),
            engine: entry.engine.clone(),
            version: entry.options().get("version").cloned(),
        })
    }

    /// Reads a path of a mount whose engine is of this type, as a request would. Returns the JSON of the response; `None`
    /// where there is nothing.
    ///
    /// # Errors
    /// With 400 for another engine; those of its read.
    pub async fn read(&self, engine: &str, path: &str, query: Query) -> Result<Option<SecretBytes>> {
        let router = self.mounts.router().clone();
        let found = router.find(path).filter(|(mounted, _)| !mounted.entry.auth && mounted.entry.engine == engine);
        let Some((mounted, within)) = found else {
            return Err(Error::invalid(format!("the snapshot has no mount of type {engine} at this path")));
        };
        let operation = Operation::Read;
        let Some(found) = mounted.table.find(operation, within) else { return Ok(None) };
        let entry = &mounted.entry;
        let registered = self.mounts.registry().find(entry.kind(), &entry.engine, &entry.options());
        let registered = registered.ok_or_else(Error::unsupported_path)?;
        let request = Request { id: random::request_id(), operation, path: within.to_owned(), remote: None, tls: None };
        // Its transaction is never committed.
        let mut cx = Cx::new(
            self.barrier.clone(),
            self.barrier.begin(),
            mounted.view.clone(),
            mounted.info.clone(),
            self.clock.clone(),
            Arc::default(),
            Arc::new(request),
        );
        let opened = registered.open(&mut cx).await?;
        let input = Input { captures: found.captures, query, ..Input::default() };
        match opened.call(found.row, operation, &mut cx, &input).await {
            Ok(Outcome::Data(payload)) => Ok(Some(response(payload))),
            Ok(_) => Ok(None),
            Err(error) if error.status() == Status::NOT_FOUND => Ok(None),
            Err(error) => Err(error),
        }
    }
}

/// The JSON of a response with these data.
fn response(payload: Payload) -> SecretBytes {
    let Payload { data, hint_ttl, .. } = payload;
    let envelope = Envelope { data: Some(data.into()), lease_duration: hint_ttl, ..Envelope::default() };
    SecretBytes::new(envelope.to_json())
}
