//! A cluster in memory for tests: its state is set by the test, and changes apply at once.

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use keepfast_crypto::hash::sha256;
use keepfast_storage::{
    Addresses, Change, ChangeError, ClusterStatus, Consensus, Index, Joined, Key, Member, Origin, RaftId, SnapshotHead,
    SnapshotParts, StorageError, Transport,
};
use parking_lot::Mutex;

/// The member with this number.
pub(crate) fn member(number: u64) -> Member {
    Member {
        id: RaftId(number),
        node: format!("n{number}"),
        incarnation: [number as u8; 16],
        cluster_addr: format!("https://n{number}:8201"),
        api_addr: format!("https://n{number}:8200"),
        voter: false,
        wants_vote: true,
        election_ms: 600,
        version: "1.2.3".to_owned(),
    }
}

/// The status of the first of these voters, which leads.
pub(crate) fn status(voters: &[u64]) -> ClusterStatus {
    let members: Vec<Member> = voters.iter().map(|n| Member { voter: true, ..member(*n) }).collect();
    ClusterStatus {
        id: Some(members[0].id),
        is_leading: true,
        term: 3,
        leader: Some(members[0].clone()),
        members,
        last: 100,
        committed: 100,
        applied: 100,
        peers: Vec::new(),
        last_contact: Some(Duration::ZERO),
        is_running: true,
        is_joining: false,
        is_removed: false,
    }
}

/// Called with the mark of a restore.
type OnRestore = Box<dyn FnOnce(Bytes) + Send>;

/// A node of a cluster whose state the test sets.
pub(crate) struct FakeConsensus {
    pub(crate) status: Mutex<ClusterStatus>,
    origin: Origin,
    /// What the node got when it joined.
    pub(crate) joined: Mutex<Option<Joined>>,
    pub(crate) restored: Mutex<Vec<Bytes>>,
    /// Called with the mark of a restore: the records of the snapshot replace those of before.
    pub(crate) on_restore: Mutex<Option<OnRestore>>,
    /// The parts of its snapshots.
    pub(crate) parts: Mutex<Vec<Bytes>>,
    /// Called when the node has started: a snapshot of the leader arrives.
    pub(crate) on_start: Mutex<Option<Box<dyn FnOnce() + Send>>>,
    pub(crate) refuses: Mutex<Option<StorageError>>,
}

impl FakeConsensus {
    /// A node with this state.
    pub(crate) fn new(status: ClusterStatus) -> Arc<Self> {
        let own = status.members.iter().find(|m| Some(m.id) == status.id).unwrap_or(&status.members[0]);
        let origin = Origin { node: own.node.clone(), incarnation: own.incarnation };
        Arc::new(FakeConsensus {
            status: Mutex::new(status),
            origin,
            joined: Mutex::default(),
            restored: Mutex::default(),
            on_restore: Mutex::default(),
            parts: Mutex::default(),
            on_start: Mutex::default(),
            refuses: Mutex::default(),
        })
    }

    fn apply(&self, change: Change) -> Result<(), ChangeError> {
        let members = &mut self.status.lock().members;
        let at =
            |members: &[Member], node: &str| members.iter().position(|m| m.node == node).ok_or(ChangeError::Unknown);
        match change {
            Change::AddLearner(member) => {
                let next = members.iter().map(|m| m.id.0).max().unwrap_or(0) + 1;
                members.push(Member { id: RaftId(next), voter: false, ..member });
            }
            Change::Promote(node) => {
                let at = at(members, &node)?;
                members[at].voter = true;
            }
            Change::Demote(node) | Change::Remove(node) if members.len() == 1 && members[0].node == node => {
                return Err(ChangeError::LastVoter);
            }
            Change::Demote(node) => {
                let at = at(members, &node)?;
                members[at].voter = false;
            }
            Change::Remove(node) => drop(members.remove(at(members, &node)?)),
            Change::Update(member) => {
                let at = at(members, &member.node)?;
                members[at] = Member { id: members[at].id, voter: members[at].voter, ..member };
            }
        }
        Ok(())
    }
}

/// The parts of a snapshot of these records, in the form of the storage.
pub(crate) fn parts_of(records: &[(Key, Bytes)]) -> Vec<Bytes> {
    let (mut out, mut digest) = (Vec::new(), [0; 32]);
    for (key, value) in records {
        let mut row = vec![1];
        for text in [key.as_str().as_bytes(), value] {
            row.extend((text.len() as u32).to_le_bytes());
            row.extend_from_slice(text);
        }
        digest = sha256(&[&digest[..], &row].concat());
        out.extend(row);
    }
    let mut end = vec![0];
    end.extend(1_u32.to_le_bytes());
    end.extend(0_u64.to_le_bytes());
    end.extend((records.len() as u64).to_le_bytes());
    digest = sha256(&[&digest[..], &end].concat());
    out.extend(end);
    out.extend(digest);
    out.chunks(1000).map(Bytes::copy_from_slice).collect()
}

/// Parts in memory.
pub(crate) struct Parts(pub(crate) std::vec::IntoIter<Bytes>);

#[async_trait]
impl SnapshotParts for Parts {
    async fn next(&mut self) -> Result<Option<Bytes>, StorageError> {
        Ok(self.0.next())
    }
}

#[async_trait]
impl Consensus for FakeConsensus {
    fn identity(&self) -> Origin {
        self.origin.clone()
    }

    fn status(&self) -> ClusterStatus {
        self.status.lock().clone()
    }

    fn leader(&self) -> Option<Member> {
        self.status().leader
    }

    async fn settled(&self, _: Duration) -> Result<Index, StorageError> {
        Ok(Index(self.status.lock().applied))
    }

    async fn applied(&self, _: Index, _: Duration) -> Result<(), StorageError> {
        Ok(())
    }

    async fn read_index(&self) -> Result<Index, StorageError> {
        Ok(Index(self.status.lock().committed))
    }

    async fn start(&self, _: Arc<dyn Transport>, _: Addresses) -> Result<(), StorageError> {
        self.status.lock().is_running = true;
        if let Some(arrives) = self.on_start.lock().take() {
            arrives();
        }
        Ok(())
    }

    async fn stop(&self) {
        self.status.lock().is_running = false;
    }

    async fn join(&self, cluster: Joined) -> Result<(), StorageError> {
        let mut status = self.status.lock();
        if self.joined.lock().as_ref().is_some_and(|before| before.cluster_id != cluster.cluster_id) {
            return Err(StorageError::Layout("it has begun to join another cluster".into()));
        }
        status.is_joining = true;
        status.members.clone_from(&cluster.members);
        *self.joined.lock() = Some(cluster);
        Ok(())
    }

    async fn change(&self, change: Change) -> Result<Index, StorageError> {
        if let Some(error) = self.refuses.lock().clone() {
            return Err(error);
        }
        if !self.status.lock().is_leading {
            return Err(StorageError::NotLeader);
        }
        self.apply(change)?;
        Ok(Index(1))
    }

    async fn transfer(&self, _: Option<String>) -> Result<(), StorageError> {
        Err(StorageError::NoTarget)
    }

    fn deliver(&self, _: Origin, _: Bytes) -> bool {
        true
    }

    async fn receive_snapshot(&self, _: Origin, _: Bytes, _: &mut dyn SnapshotParts) -> Result<(), StorageError> {
        Ok(())
    }

    fn snapshot(&self) -> Result<(SnapshotHead, Box<dyn SnapshotParts>), StorageError> {
        let status = self.status.lock();
        let head = SnapshotHead { term: status.term, index: Index(status.applied), members: status.members.clone() };
        Ok((head, Box::new(Parts(self.parts.lock().clone().into_iter()))))
    }

    async fn restore(
        &self,
        _: SnapshotHead,
        parts: &mut dyn SnapshotParts,
        mark: Bytes,
    ) -> Result<Index, StorageError> {
        let mut restored = Vec::new();
        while let Some(part) = parts.next().await? {
            restored.push(part);
        }
        *self.restored.lock() = restored;
        if let Some(arrives) = self.on_restore.lock().take() {
            arrives(mark);
        }
        Ok(Index(2))
    }
}
