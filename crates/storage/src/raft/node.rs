//! What the threads of the store and its callers share, and the way of a commit.

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicUsize, Ordering},
        mpsc::Sender,
    },
    time::Duration,
};

use keepfast_consensus::{Body, LogId, MAX_ENTRY, Message, Payload};
use parking_lot::Mutex;
use tokio::{sync::oneshot, time::timeout};

use super::{
    boot, clock,
    event::{Event, Proposal, Request, encode, has_put},
    published::{Lease, Published, View},
    reads::ReadBatch,
    snapshot::StateParts,
};
use crate::{
    Addresses, Batch, Index, Joined, LocalOptions, Member, Origin, SnapshotHead, SnapshotParts, StorageError,
    local::{apply::Applier, disk::Disk, layout::Layout, open_layout::OpenLayout},
};

/// How long a follower waits for the result of the leader, and for the entry to be applied here.
const COMMIT_TIMEOUT: Duration = Duration::from_secs(10);
/// How long a commit waits for a confirmed index.
const READ_TIMEOUT: Duration = Duration::from_secs(2);
/// After this time something that failed is tried again, unless the leader is another one before.
const RETRY: Duration = Duration::from_millis(50);
/// How often a commit is passed to another leader.
const TRIES: usize = 3;

/// A node, lone or not.
pub(crate) struct Node {
    pub(crate) applier: Arc<Applier>,
    pub(crate) disk: Arc<dyn Disk>,
    pub(crate) options: LocalOptions,
    pub(crate) layout: Arc<OpenLayout>,
    pub(crate) published: Arc<Published>,
    pub(crate) inbox: Inbox,
    pub(super) is_receiving: Arc<AtomicBool>,
    is_restoring: AtomicBool,
    reads: Arc<ReadBatch>,
    events: Mutex<Option<Sender<Event>>>,
}

/// Messages of other members that wait for the driver.
#[derive(Default)]
pub(crate) struct Inbox(AtomicUsize);

/// The most bytes that wait; later messages are lost.
const MAX_INBOX: usize = 64 << 20;

impl Inbox {
    pub(super) fn size(message: &Message) -> usize {
        let entries = match &message.body {
            Body::Append { entries, .. } => entries.iter().map(|entry| entry.payload.len() + 64).sum(),
            _ => 0,
        };
        entries + 256
    }

    pub(super) fn take(&self, message: &Message) -> bool {
        let size = Self::size(message);
        let fits = self.0.fetch_add(size, Ordering::Relaxed) <= MAX_INBOX;
        if !fits {
            self.0.fetch_sub(size, Ordering::Relaxed);
        }
        fits
    }

    pub(super) fn done(&self, message: &Message) {
        self.0.fetch_sub(Self::size(message), Ordering::Relaxed);
    }
}

impl Node {
    pub(crate) fn new(
        applier: Arc<Applier>,
        disk: Arc<dyn Disk>,
        options: LocalOptions,
        layout: Layout,
        events: Sender<Event>,
        is_lone: bool,
        term: u64,
    ) -> Result<Self, StorageError> {
        let options = LocalOptions { max_batch_bytes: options.max_batch_bytes.min(MAX_ENTRY - 1), ..options };
        let members = applier.state().members()?.map(|members| members.list).unwrap_or_default();
        let id = boot::find(&members, &layout.origin()).map(|member| member.id);
        let view = View::without_leader(id, term, members.into());
        let published = Arc::new(Published::new(is_lone, view));
        published.set_removed(&layout.removed_peers);
        let node = Self {
            applier,
            disk,
            options,
            layout: Arc::new(OpenLayout::new(layout)),
            published,
            inbox: Inbox::default(),
            is_receiving: Arc::default(),
            is_restoring: AtomicBool::new(false),
            reads: Arc::default(),
            events: Mutex::new(Some(events)),
        };
        if is_lone {
            node.publish_lone(term);
        }
        Ok(node)
    }

    pub(crate) fn origin(&self) -> Origin {
        self.layout.read(Layout::origin)
    }

    /// Publishes that this node leads alone.
    pub(crate) fn publish_lone(&self, term: u64) {
        let own = self.own_member();
        let listed = self.published.view().members.iter().find(|member| member.node == own.node).cloned();
        let own = Member { id: listed.map_or(own.id, |member| member.id), ..own };
        let members = [own.clone()].into();
        let view = View { id: Some(own.id), term, accepts: true, is_leading: true, leader: Some(own), members };
        self.published.set_view(view);
    }

    /// Publishes that this node waits for its leader.
    pub(crate) fn publish_joining(&self) {
        let term = self.published.view().term;
        self.published.set_view(View::without_leader(None, term, [].into()));
    }

    /// This node, with the addresses of the last start.
    fn own_member(&self) -> Member {
        let none = Addresses { api_addr: String::new(), cluster_addr: String::new(), version: String::new() };
        let addresses = self.published.network().map_or(none, |network| network.addresses.clone());
        boot::member(&self.origin(), &addresses, &self.options)
    }

    /// The first list of members, which has this node alone, with its current addresses; `None` if it is stored so. The
    /// name of the node becomes durable.
    ///
    /// # Errors
    /// [`StorageError::NoLeader`] before the first start: the node has no addresses.
    pub(crate) fn first_list(&self) -> Result<Option<Vec<Member>>, StorageError> {
        let network = self.published.network().ok_or(StorageError::NoLeader)?;
        let Some(members) = self.applier.state().members()? else {
            self.name_it()?;
            return Ok(Some(vec![self.own_member()]));
        };
        // The list of a lone node has no other member.
        let own = boot::find(&members.list, &self.origin());
        Ok(own.and_then(|own| boot::updated(own, &network, &self.options)).map(|own| vec![own]))
    }

    /// A member keeps its name.
    fn name_it(&self) -> Result<(), StorageError> {
        self.layout.change(|layout| {
            if layout.node_id.is_some() {
                return Ok(());
            }
            layout.node_id = Some(layout.name().to_owned());
            layout.write(&*self.disk)
        })
    }

    /// Notes, durably, that this node joins a cluster.
    pub(crate) fn store_join(&self, joined: &Joined) -> Result<(), StorageError> {
        let list = Payload::Members(joined.members.clone()).encode();
        let body = list.slice(1..);
        let readable = Payload::decode_list(&body).is_ok_and(|list| boot::find(&list, &self.origin()).is_some());
        if !readable {
            return Err(StorageError::Layout("the list of the leader does not have this node".into()));
        }
        self.layout.change(|layout| {
            layout.node_id = Some(layout.name().to_owned());
            (layout.cluster_id, layout.joined, layout.joining) = (Some(joined.cluster_id.clone()), body.to_vec(), true);
            layout.write(&*self.disk)
        })
    }

    /// A consistent view of the state.
    pub(super) fn image(&self) -> Result<(SnapshotHead, Box<dyn SnapshotParts>), StorageError> {
        let image = self.applier.state().image()?;
        let parts = Box::new(StateParts::of(&image)?);
        let LogId { term, index } = image.position.id;
        let members = image.members.map(|members| members.list).unwrap_or_default();
        Ok((SnapshotHead { term, index: Index(index), members }, parts))
    }

    /// Passes an event to the thread that writes.
    pub(super) fn send(&self, event: Event) -> Result<(), StorageError> {
        let sent = match &*self.events.lock() {
            Some(events) => events.send(event).is_ok(),
            None => false,
        };
        if sent { Ok(()) } else { Err(self.stopped_error()) }
    }

    /// Passes an event with a reply to the thread that writes, and waits for the result.
    pub(super) async fn call<T>(&self, event: impl FnOnce(super::event::Reply<T>) -> Event) -> Result<T, StorageError> {
        let (reply, result) = oneshot::channel();
        self.send(event(reply))?;
        result.await.unwrap_or_else(|_| Err(self.stopped_error()))
    }

    /// Why the thread that writes does not respond.
    fn stopped_error(&self) -> StorageError {
        if let Some(error) = self.applier.stopped() {
            return error;
        }
        match *self.events.lock() {
            Some(_) => StorageError::Stopped("the storage thread has ended".into()),
            None => StorageError::Closed,
        }
    }

    pub(crate) fn close(&self) {
        if let Some(events) = self.events.lock().take() {
            let _ = events.send(Event::Close);
        }
    }

    /// Whether this node, as the leader, restores a snapshot: no batch may come between.
    pub(super) fn is_restoring(&self) -> bool {
        self.is_restoring.load(Ordering::Acquire)
    }

    /// Begins or ends that. Returns whether it was so before.
    pub(super) fn set_restoring(&self, is_restoring: bool) -> bool {
        self.is_restoring.swap(is_restoring, Ordering::AcqRel)
    }

    /// Commits a proposal here.
    pub(crate) async fn submit(&self, proposal: Proposal) -> Result<Index, StorageError> {
        self.call(|result| Event::Commit(Request { proposal, result })).await
    }

    /// See [`Backend::commit`](crate::Backend::commit).
    pub(crate) async fn commit(&self, batch: Batch) -> Result<Index, StorageError> {
        self.admits(&batch)?;
        if self.published.is_lone() {
            return self.submit(Proposal::Batch(batch)).await;
        }
        if batch.writes.is_empty() {
            return self.check(&batch).await;
        }
        for _ in 0..TRIES {
            let (target, leader) = {
                let view = self.published.view.borrow();
                let leader = if view.accepts { None } else { Some(view.leader.clone().ok_or(StorageError::NoLeader)?) };
                (view.target(), leader)
            };
            let result = match &leader {
                None => self.propose(&batch).await,
                Some(leader) => self.forward(&batch, leader).await,
            };
            match result {
                // Nothing was written, and the leader is another one.
                Err(StorageError::NotLeader | StorageError::NoLeader) => {
                    let mut views = self.published.view.subscribe();
                    drop(timeout(RETRY, views.wait_for(|view| view.target() != target)).await);
                }
                other => return other,
            }
        }
        Err(StorageError::NoLeader)
    }

    /// See [`Consensus::propose`](crate::Consensus::propose).
    pub(super) async fn commit_here(&self, batch: Batch) -> Result<Index, StorageError> {
        self.admits(&batch)?;
        if self.published.is_lone() {
            return self.submit(Proposal::Batch(batch)).await;
        }
        if !self.published.view.borrow().accepts {
            return Err(StorageError::NotLeader);
        }
        if batch.writes.is_empty() { self.check(&batch).await } else { self.propose(&batch).await }
    }

    /// Whether a batch may be committed now, by any leader.
    fn admits(&self, batch: &Batch) -> Result<(), StorageError> {
        let (size, limit) = (batch.encoded_len(), self.options.max_batch_bytes);
        if size > limit {
            return Err(StorageError::TooLarge { size, limit });
        }
        if self.is_restoring() {
            return Err(StorageError::NoLeader);
        }
        // The writer of a lone node checks this itself, in order.
        self.applier.stopped().filter(|_| !self.published.is_lone()).map_or(Ok(()), Err)
    }

    /// A batch without writes needs no entry.
    async fn check(&self, batch: &Batch) -> Result<Index, StorageError> {
        self.settle(READ_TIMEOUT).await?;
        match self.applier.state().reads_hold(&batch.reads)? {
            (true, position) => Ok(Index(position.index)),
            (false, _) => Err(StorageError::Conflict),
        }
    }

    /// Commits at this node, which leads. A conflict that is sure needs no entry.
    async fn propose(&self, batch: &Batch) -> Result<Index, StorageError> {
        let committed = self.published.committed();
        let (holds, position) = self.applier.state().reads_hold(&batch.reads)?;
        // A follower may have read what is committed and not applied here.
        if !holds && position.index >= committed {
            return Err(StorageError::Conflict);
        }
        self.submit(Proposal::Payload(encode(batch), has_put(batch))).await
    }

    /// Commits at the leader. Returns when the entry is applied here, too.
    async fn forward(&self, batch: &Batch, leader: &Member) -> Result<Index, StorageError> {
        let Some(network) = self.published.network() else { return Err(StorageError::NoLeader) };
        let mut bytes = Vec::with_capacity(batch.encoded_len());
        batch.encode(&mut bytes);
        let proposed = timeout(COMMIT_TIMEOUT, network.transport.propose(leader, bytes.into())).await;
        match proposed.unwrap_or(Err(StorageError::Unknown)) {
            // Reads here must see it; if they do not, its caller must not take it for done.
            Ok(index) => self.reaches(index, COMMIT_TIMEOUT).await.map(|()| index).map_err(|_| StorageError::Unknown),
            Err(StorageError::Conflict) => {
                // The next try has to read what this one conflicts with.
                let _ = self.settle(READ_TIMEOUT).await;
                Err(StorageError::Conflict)
            }
            Err(error) => Err(error),
        }
    }

    /// A member waits until it has applied `index`: the driver sends the committed index, unless messages have had it.
    pub(super) fn send_commit(&self, Index(index): Index) {
        if index > self.published.sent_commit() && !self.published.is_lone() {
            let _ = self.send(Event::SendCommit);
        }
    }

    /// As [`reaches`](Self::reaches), for an index that the leader may not have sent yet.
    pub(super) async fn catches_up(&self, index: Index, within: Duration) -> Result<(), StorageError> {
        let is_follower = !self.published.is_lone() && !self.published.view.borrow().accepts;
        if !is_follower || *self.applier.applied.borrow() >= index {
            return self.reaches(index, within).await;
        }
        let mut reaches = std::pin::pin!(self.reaches(index, within));
        tokio::select! {
            biased;
            reached = &mut reaches => reached,
            // A leader that confirms an index sends it to those that lack it.
            _ = self.reads.index(&self.published) => reaches.await,
        }
    }

    /// Waits until `index` is applied.
    pub(super) async fn reaches(&self, index: Index, within: Duration) -> Result<(), StorageError> {
        let mut applied = self.applier.applied.subscribe();
        let reached = timeout(within, applied.wait_for(|applied| *applied >= index)).await;
        match reached {
            Ok(Ok(_)) => Ok(()),
            _ => Err(StorageError::Behind(index.0)),
        }
    }

    /// See [`Consensus::settled`](crate::Consensus::settled).
    pub(super) async fn settle(&self, within: Duration) -> Result<Index, StorageError> {
        if let Some(index) = self.leased() {
            // What is committed may be applied, and seen, at a follower first.
            if *self.applier.applied.borrow() < index {
                self.reaches(index, within).await?;
            }
            return Ok(index);
        }
        let end = clock::now() + u64::try_from(within.as_micros()).unwrap_or(u64::MAX);
        let index = timeout(within, self.confirmed()).await.unwrap_or(Err(StorageError::NoLeader))?;
        if !planted!(SettledBeforeApplied) {
            self.reaches(index, super::published::since(end, clock::now())).await?;
        }
        Ok(index)
    }

    /// The committed index, if this node knows it without asking others.
    pub(super) fn leased(&self) -> Option<Index> {
        match self.published.lease() {
            Lease::None => return None,
            Lease::EndsSoon => drop(self.send(Event::Renew)),
            Lease::Holds => {}
        }
        let applied = *self.applier.applied.borrow();
        Some(applied.max(Index(self.published.committed())))
    }

    /// An index that the leader, which may be this node, has confirmed after this call.
    async fn confirmed(&self) -> Result<Index, StorageError> {
        let mut views = self.published.view.subscribe();
        loop {
            if !self.published.has_network() {
                return Err(StorageError::NoLeader);
            }
            let (accepts, has_leader) = {
                let view = views.borrow_and_update();
                (view.accepts, view.leader.is_some())
            };
            let index = match (accepts, has_leader) {
                (true, _) => self.call(Event::Read).await,
                (false, true) => self.reads.index(&self.published).await,
                (false, false) => Err(StorageError::NoLeader),
            };
            match index {
                Ok(index) => return Ok(index),
                Err(error @ (StorageError::Stopped(_) | StorageError::Closed | StorageError::Removed)) => {
                    return Err(error);
                }
                Err(_) => drop(timeout(RETRY, views.changed()).await),
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use keepfast_consensus::{Entry, RaftId};

    use super::*;

    #[test]
    fn messages_beyond_the_bound_of_the_inbox_are_lost() {
        let message = |bytes| {
            let previous = LogId { term: 1, index: 1 };
            let entry = Entry { id: LogId { term: 1, index: 2 }, payload: vec![0; bytes].into() };
            let body = Body::Append { previous, commit: 1, entries: vec![entry] };
            Message { from: RaftId(1), to: RaftId(2), term: 1, body }
        };
        let (inbox, large) = (Inbox::default(), message(MAX_ENTRY));
        let taken = (0..100).filter(|_| inbox.take(&large)).count();
        assert!(taken * MAX_ENTRY <= MAX_INBOX && (taken + 1) * MAX_ENTRY > MAX_INBOX, "{taken}");
        assert!(!inbox.take(&message(1)));
        inbox.done(&large);
        assert!(inbox.take(&message(1)));
    }
}
