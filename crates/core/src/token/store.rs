//! Lookup of tokens, with the check that they are valid.

use std::net::IpAddr;
use std::sync::Arc;

use arc_swap::ArcSwapOption;
use bytes::Bytes;
use keepfast_crypto::{Zeroizing, compare, random};
use keepfast_framework::{Error, Records, Result, Timestamp};
use keepfast_storage::{Barrier, Page, ReadTx, Tx, View};
use quick_cache::UnitWeighter;
use quick_cache::sync::Cache;

use super::batch::BatchCipher;
use super::id::{BATCH, Ids, TokenKey};
use super::record::TokenRecord;
use crate::audit::TokenMembersByDevice;
use crate::invalidation::{CacheOwner, CommittedChange};
use crate::layout;
use crate::lease::Leases;
use crate::lease::index::{self, LeaseName};
use crate::metrics::Metrics;
use crate::namespace::{Namespace, NamespaceId, split_suffix};
use crate::policy::store::CompiledAcl;
use crate::stamps::{Stamp, Stamps};
use crate::unreadable::{self, Stored};

pub(super) const RECORDS: Records<TokenRecord> = Records::at(layout::TOKENS);
/// The secrets of keyed hashes and of batch tokens: 160 random bytes, created once.
const SECRETS: &str = "secrets";
/// Their size in bytes.
const SECRETS_SIZE: usize = 160;
/// The maximum number of cached tokens. One takes about 1 kB.
const CACHED: u64 = 16_384;
/// The number of tokens for which the cache allocates room at first.
const FIRST_ROOM: usize = 256;
/// The maximum length of a chain of parents; no client creates a longer one.
const DEEPEST: usize = 64;

/// A token that was found valid.
pub(crate) struct Token {
    /// The key of its record; `None` for batch tokens, which have none.
    pub(crate) key: Option<TokenKey>,
    /// Its record.
    pub(crate) record: TokenRecord,
    /// The name of its own storage.
    pub(crate) store: Arc<str>,
    /// The compiled ACL of its policies.
    pub(crate) acl: ArcSwapOption<CompiledAcl>,
    /// Its representation for each audit device; filled at the first entry.
    pub(crate) marks: ArcSwapOption<TokenMembersByDevice>,
}

impl Token {
    fn new(key: Option<TokenKey>, record: TokenRecord, ids: &Ids) -> Arc<Self> {
        let store = Arc::from(ids.store_of(&record.hash));
        Arc::new(Token { key, record, store, acl: ArcSwapOption::empty(), marks: ArcSwapOption::empty() })
    }
}

/// A cached token, with the stamp of its record.
#[derive(Clone)]
struct Cached {
    stamp: Stamp,
    token: Arc<Token>,
}

impl Cached {
    /// The token, if no commit has changed its record since it was read.
    fn into_current(self) -> Option<Arc<Token>> {
        self.stamp.is_current().then_some(self.token)
    }
}

/// All tokens of the cluster.
pub(crate) struct Tokens {
    pub(super) barrier: Arc<Barrier>,
    pub(super) view: View,
    pub(super) ids: Ids,
    pub(super) batch: BatchCipher,
    pub(super) cubbyhole: View,
    pub(super) leases: Arc<Leases>,
    cache: Cache<TokenKey, Cached>,
    /// The same tokens by the keyed hash of their text, so that a cached token costs one hash.
    by_hash: Cache<[u8; 32], Cached>,
    /// Stamps of records, by their keys.
    stamps: Stamps,
}

impl Tokens {
    /// The tokens under `view`.
    pub(crate) fn new(
        barrier: &Arc<Barrier>,
        view: View,
        secrets: &TokenSecrets,
        cubbyhole: View,
        leases: Arc<Leases>,
    ) -> Arc<Self> {
        Arc::new(Tokens {
            barrier: barrier.clone(),
            view,
            ids: Ids::new(&secrets.hashes),
            batch: BatchCipher::new(&secrets.batch),
            cubbyhole,
            leases,
            cache: Cache::with_weighter(FIRST_ROOM, CACHED, UnitWeighter),
            by_hash: Cache::with_weighter(FIRST_ROOM, CACHED, UnitWeighter),
            stamps: Stamps::default(),
        })
    }

    /// The token with this text, valid at `now` with all its ancestors and usable from `remote` in `namespace`: it is of
    /// that namespace or of one above. Counts no use.
    ///
    /// Fails when storage fails. For a token that is unknown, expired, revoked or used from another network it returns
    /// the inner error, with the reason for the audit log.
    pub(crate) async fn find(
        &self,
        token: &str,
        namespace: &Namespace,
        remote: Option<IpAddr>,
        now: Timestamp,
    ) -> Result<Result<Arc<Token>, &'static str>> {
        let Some(found) = self.find_record(token).await? else {
            return Ok(Err("the token does not exist: unknown, revoked or expired"));
        };
        let record = &found.record;
        Ok(match () {
            () if !record.is_valid_at(now) => Err("the token has expired"),
            () if namespace.relative_to(&record.namespace).is_none() => Err(OTHER_NAMESPACE),
            () if !record.allows_from(remote) => Err("the address is not in the bound CIDRs of the token"),
            () if record.num_uses < 0 => Err(USES_SPENT),
            () if !self.ancestors_live(record, now).await? => Err("a parent of the token is revoked or has expired"),
            () => Ok(found),
        })
    }

    /// As [`Tokens::find`], for a lookup of a token: of any namespace, and without the check of the address.
    pub(crate) async fn find_anywhere(&self, token: &str, now: Timestamp) -> Result<Option<Arc<Token>>> {
        let Some(found) = self.find_record(token).await? else { return Ok(None) };
        let alive = found.record.is_valid_at(now)
            && found.record.num_uses >= 0
            && self.ancestors_live(&found.record, now).await?;
        Ok(alive.then_some(found))
    }

    /// The token with this key, valid at `now` with all its ancestors.
    pub(crate) async fn at(&self, key: &TokenKey, now: Timestamp) -> Result<Option<Arc<Token>>> {
        let Some(found) = self.load(key).await? else { return Ok(None) };
        let alive = found.record.is_valid_at(now) && self.ancestors_live(&found.record, now).await?;
        Ok(alive.then_some(found))
    }

    /// The key of the token with this accessor, whether it exists or not.
    pub(crate) fn place_of(&self, accessor: &str) -> TokenKey {
        self.ids.place_of(accessor)
    }

    /// The key of the token with this text, whether it exists or not.
    pub(crate) fn place(&self, token: &str) -> TokenKey {
        self.ids.locate(token).key
    }

    /// The keyed hash of a code that is used once, by which its record is found. No token has the same text.
    pub(crate) fn hash_of_code(&self, code: &str) -> String {
        hex::encode(self.ids.hash(&format!("code:{code}")))
    }

    /// The name of a token's own storage.
    pub(crate) fn store_of(&self, record: &TokenRecord) -> String {
        self.ids.store_of(&record.hash)
    }

    /// The current time.
    pub(super) fn now(&self) -> Timestamp {
        self.leases.clock.now()
    }

    /// The metrics.
    pub(super) fn metrics(&self) -> &Metrics {
        &self.leases.metrics
    }

    /// The storage of what belongs to tokens in a namespace.
    pub(crate) fn cubbyhole_of(&self, namespace: &NamespaceId) -> View {
        if namespace.is_root() { self.cubbyhole.clone() } else { self.cubbyhole.sub(&namespace_folder(namespace)) }
    }

    async fn find_record(&self, token: &str) -> Result<Option<Arc<Token>>> {
        if token.starts_with(BATCH) {
            let (text, suffix) = split_suffix(token);
            let record = self.batch.open(text).filter(|record| record.namespace.as_str() == suffix.unwrap_or("root"));
            let Some(record) = record else { return Ok(None) };
            return Ok(Some(Token::new(None, record, &self.ids)));
        }
        let hash = self.ids.hash(token);
        if let Some(token) = self.by_hash.get(&hash).and_then(Cached::into_current) {
            return Ok(Some(token));
        }
        Box::pin(self.find_stored(token, &hash)).await
    }

    async fn find_stored(&self, token: &str, hash: &[u8; 32]) -> Result<Option<Arc<Token>>> {
        let cached = self.load_cached(&self.ids.locate(token).key).await?;
        let Some(cached) = cached.filter(|cached| compare::equal(&cached.token.record.hash, hash)) else {
            return Ok(None);
        };
        self.by_hash.insert(*hash, cached.clone());
        Ok(Some(cached.token))
    }

    async fn ancestors_live(&self, record: &TokenRecord, now: Timestamp) -> Result<bool> {
        let mut parent = record.parent.clone();
        for _ in 0..DEEPEST {
            let Some(key) = parent else { return Ok(true) };
            match self.load(&key).await? {
                Some(found) if found.record.is_valid_at(now) => parent = found.record.parent.clone(),
                _ => return Ok(false),
            }
        }
        Ok(false)
    }

    /// The token with this key, from the cache if it is current.
    async fn load(&self, key: &TokenKey) -> Result<Option<Arc<Token>>> {
        if let Some(token) = self.cache.get(key).and_then(Cached::into_current) {
            return Ok(Some(token));
        }
        Ok(Box::pin(self.load_cached(key)).await?.map(|cached| cached.token))
    }

    /// The same with its stamp.
    async fn load_cached(&self, key: &TokenKey) -> Result<Option<Cached>> {
        if let Some(cached) = self.cache.get(key).filter(|cached| cached.stamp.is_current()) {
            return Ok(Some(cached));
        }
        // The stamp is taken first: a later change of the record ends it, and this entry is never used.
        let stamp = self.stamps.stamp(key.as_str());
        let mut tx = self.barrier.begin_read();
        let Some(record) = RECORDS.get_in(&mut tx, &self.view, key.as_str()).await? else { return Ok(None) };
        let cached = Cached { stamp, token: Token::new(Some(key.clone()), record, &self.ids) };
        self.cache.insert(key.clone(), cached.clone());
        Ok(Some(cached))
    }

    /// Removes a token from the cache, because a commit changed or deleted its record.
    fn forget(&self, key: &TokenKey) {
        self.stamps.invalidate(key.as_str());
        if let Some((_, cached)) = self.cache.remove(key) {
            self.by_hash.remove(&cached.token.record.hash);
        }
    }

    /// The record with this key, in a transaction that may change it.
    pub(crate) async fn record(&self, tx: &mut ReadTx, key: &TokenKey) -> Result<Option<TokenRecord>> {
        RECORDS.get_in(tx, &self.view, key.as_str()).await
    }

    /// Writes a changed record.
    pub(crate) fn save(&self, tx: &mut Tx, key: &TokenKey, record: &TokenRecord) -> Result<()> {
        let started = self.now();
        RECORDS.put_in(tx, &self.view, key.as_str(), record)?;
        self.metrics().tokens.store.record(self.now().since(started));
        Ok(())
    }

    /// A page of the keys of all service tokens, and whether it is the last one. Advances `page` past it.
    pub(crate) async fn keys(&self, tx: &mut ReadTx, page: &mut Page) -> Result<(Vec<TokenKey>, bool)> {
        let names = RECORDS.list_in(tx, &self.view, "", page).await?;
        page.after = names.last().cloned();
        let is_last = page.limit.is_none_or(|limit| names.len() < limit);
        Ok((names.iter().filter_map(|name| TokenKey::parse(name)).collect(), is_last))
    }

    /// Counts one use of a token with a limited number of uses, before the request runs.
    ///
    /// Returns whether the use was granted, and whether it was the last one. The count has its own transaction: of
    /// parallel requests exactly as many are granted as there are uses.
    pub(crate) async fn count_use(&self, key: &TokenKey) -> Result<Use> {
        // Boxed, because most tokens have no limit of uses.
        Box::pin(self.barrier.transact(|mut tx| async move {
            let Some(mut record) = self.record(&mut tx, key).await? else { return Ok((tx, Use::Refused)) };
            let outcome = match record.num_uses {
                0 => return Ok((tx, Use::Granted)),
                1 => Use::Last,
                n if n > 1 => Use::Granted,
                _ => return Ok((tx, Use::Refused)),
            };
            record.num_uses = if outcome == Use::Last { -1 } else { record.num_uses - 1 };
            self.save(&mut tx, key, &record)?;
            Ok((tx, outcome))
        }))
        .await
    }

    /// The accessors of the tokens in a folder of lease ids.
    async fn accessors_below(&self, folder: String) -> Result<Vec<String>> {
        let (mut out, mut folders) = (Vec::new(), vec![folder]);
        while let Some(folder) = folders.pop() {
            let mut page = Page::first(1000);
            loop {
                let mut tx = self.barrier.begin_read();
                let names = tx.list(&self.view, &folder, &page).await?;
                page.after = names.last().cloned();
                for name in &names {
                    if name.ends_with('/') {
                        folders.push(format!("{folder}{name}"));
                    } else if let Some(LeaseName::Token(key)) = LeaseName::parse(name) {
                        let read = unreadable::read((&RECORDS, "token"), &mut tx, &self.view, key.as_str()).await?;
                        out.extend(read.readable().map(|record| record.accessor));
                    }
                }
                if names.len() < 1000 {
                    break;
                }
            }
        }
        Ok(out)
    }

    /// The accessors of all service tokens of a namespace, read page by page.
    pub(crate) async fn accessors(&self, namespace: &NamespaceId) -> Result<Vec<String>> {
        if !namespace.is_root() {
            return self.accessors_below(index::leases_of(namespace)).await;
        }
        let mut out = Vec::new();
        let mut page = Page::first(1000);
        loop {
            let mut tx = self.barrier.begin_read();
            let names = RECORDS.list_in(&mut tx, &self.view, "", &page).await?;
            for name in &names {
                let read = unreadable::read((&RECORDS, "token"), &mut tx, &self.view, name).await?;
                if let Stored::Record(record) = read
                    && record.namespace == *namespace
                {
                    out.push(record.accessor);
                }
            }
            match names.last() {
                Some(last) if names.len() == 1000 => page.after = Some(last.clone()),
                _ => return Ok(out),
            }
        }
    }
}

/// The folder of a namespace in the storage of what belongs to tokens, beside the folders of the tokens of root.
fn namespace_folder(namespace: &NamespaceId) -> String {
    format!("ns/{}/", namespace.as_str())
}

/// The error of a token of a namespace that is not above that of the request.
pub(crate) const OTHER_NAMESPACE: &str = "the token belongs to another namespace";

/// The error of a token without remaining uses.
pub(crate) const USES_SPENT: &str = "the token has no uses left";

/// The result of one use of a token with a limited number of uses.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Use {
    /// The request continues.
    Granted,
    /// The request continues; the token is revoked with it.
    Last,
    /// No use is left.
    Refused,
}

/// Follows the records of tokens: a changed record is read again.
impl CacheOwner for Tokens {
    fn applied(&self, change: &CommittedChange<'_>) {
        if let Some(token) = TokenKey::parse(change.key) {
            self.forget(&token);
        }
    }
}

/// The secrets of keyed hashes and of batch tokens.
pub(crate) struct TokenSecrets {
    hashes: Zeroizing<[u8; 128]>,
    batch: Zeroizing<[u8; 32]>,
}

impl TokenSecrets {
    /// Reads the secrets under the view of tokens.
    ///
    /// Fails when storage fails or has no secrets.
    pub(crate) async fn load(tx: &mut ReadTx, view: &View) -> Result<Self> {
        let bytes = tx.get(view, SECRETS).await?.ok_or_else(|| Error::internal("there are no secrets of token ids"))?;
        let wrong_size = || Error::internal("the secrets of token ids have a wrong size");
        let (hashes, batch) = bytes.split_first_chunk().ok_or_else(wrong_size)?;
        let batch = batch.try_into().map_err(|_| wrong_size())?;
        Ok(TokenSecrets { hashes: Zeroizing::new(*hashes), batch: Zeroizing::new(batch) })
    }

    /// Creates the secrets if there are none.
    pub(crate) async fn make(tx: &mut Tx, view: &View) -> Result<()> {
        if tx.get(view, SECRETS).await?.is_none() {
            tx.put(view, SECRETS, Bytes::copy_from_slice(&random::bytes::<SECRETS_SIZE>()));
        }
        Ok(())
    }
}
