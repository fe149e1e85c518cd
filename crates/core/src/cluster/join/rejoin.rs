//! A member that has missed a rotation of the keyring: no other member accepts its certificate, and it accepts none of
//! theirs, so that the rotation does not reach it. While it hears no leader it repeats the exchange of a node that joins
//! with the members that it knows, and gets the authority that they have. Both sides prove the root key, so the
//! certificate of the API need not be trusted. A member that was removed in the meantime gets the proof of that.

use std::sync::{Arc, Weak};
use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use futures_util::stream::{FuturesUnordered, StreamExt as _};
use keepfast_crypto::locked::Key256;
use keepfast_crypto::random;
use keepfast_framework::Clock;
use keepfast_storage::{Addresses, Barrier, Consensus, Index, Member, Origin, RaftId};
use serde_json::json;

use super::client::{JoinClient, JoinError, JoinStep, JoinTarget};
use super::exchange::{Applicant, JOINING, Proof};
use super::pause::pause;
use super::proven::ProvenNodes;
use super::responses::{challenge_of, sealed_of};

/// The interval in which the contact with the leader is checked.
const POLL: Duration = Duration::from_secs(1);
/// The time without a leader after which the other members are called.
const SILENT: Duration = Duration::from_secs(3);
/// The most time for the exchange with one member.
const WITHIN: Duration = Duration::from_secs(10);

/// An authority of the cluster port that another member has given.
#[derive(Clone)]
pub(crate) struct GivenAuthority {
    /// Its term of the keyring.
    pub(crate) term: u32,
    /// Its seed.
    pub(crate) seed: Key256,
}

/// What another member has responded.
enum RejoinResponse {
    Authority(GivenAuthority),
    /// This node is no member at this index.
    Removal(Index),
}

/// Gets the newest authority of the other members.
#[derive(Clone)]
pub(crate) struct Rejoin {
    pub(crate) consensus: Arc<dyn Consensus>,
    /// Members that the list of this node may lack.
    pub(crate) proven: Arc<ProvenNodes>,
    pub(crate) client: Arc<dyn JoinClient>,
    /// The leaders of the configuration, whose client certificates are used.
    pub(crate) configured: Vec<JoinTarget>,
    pub(crate) addresses: Addresses,
    pub(crate) cluster_id: String,
}

impl Rejoin {
    /// Calls them while no leader is heard, until the barrier is dropped or closed. `found` gets the newest authority of a
    /// term that the keyring does not have.
    pub(crate) async fn run(self, barrier: Weak<Barrier>, clock: Arc<dyn Clock>, found: impl Fn(GivenAuthority)) {
        let (mut next, mut attempt) = (None, 0);
        loop {
            clock.sleep_until(clock.now().after(POLL)).await;
            let Some(barrier) = barrier.upgrade().filter(|barrier| !barrier.is_closed()) else { return };
            if self.hears_leader() {
                (next, attempt) = (None, 0);
                continue;
            }
            let now = clock.now();
            if now < *next.get_or_insert(now.after(SILENT)) {
                continue;
            }
            if let Some(newest) = self.newest(&barrier, &*clock).await {
                found(newest);
            }
            let pause = pause(attempt, u32::from_le_bytes(random::bytes()));
            next = Some(clock.now().after(pause.max(SILENT)));
            attempt = attempt.saturating_add(1);
        }
    }

    /// Whether the leader is heard, or there is none to be heard. A node that has applied its removal hears none.
    fn hears_leader(&self) -> bool {
        let status = self.consensus.status();
        let hears = status.leader.is_some() && status.last_contact.is_some_and(|contact| contact < SILENT);
        hears || status.is_leading || !status.is_running || status.members.len() < 2
    }

    async fn newest(&self, barrier: &Barrier, clock: &dyn Clock) -> Option<GivenAuthority> {
        let status = self.consensus.status();
        let origin = self.consensus.identity();
        let own = status.members.iter().find(|member| member.incarnation == origin.incarnation);
        let own = own.cloned().unwrap_or_else(|| self.unlisted(&origin));
        let mut others: Vec<Member> = status.members.clone();
        others.retain(|member| member.incarnation != origin.incarnation);
        let mut unlisted = self.proven.list(clock.now());
        unlisted.retain(|node| !status.members.iter().any(|member| member.incarnation == node.incarnation));
        others.append(&mut unlisted);
        let mut calls: FuturesUnordered<_> =
            others.iter().map(|member| self.of_member(member, &own, barrier, clock)).collect();
        let mut newest = None;
        while let Some(given) = calls.next().await {
            match given {
                Some(RejoinResponse::Authority(given)) => {
                    newest = newest.into_iter().chain([given]).max_by_key(|given| given.term);
                }
                Some(RejoinResponse::Removal(index)) => {
                    self.leave(index).await;
                    return None;
                }
                None => {}
            }
        }
        let term = barrier.key_status().ok()?.term;
        let newest = newest.filter(|given| given.term > term);
        if let Some(given) = &newest {
            tracing::warn!(
                term,
                newer = given.term,
                "this member has missed a rotation of the keyring, and reconnects"
            );
        }
        newest
    }

    /// This node when its own list lacks it.
    fn unlisted(&self, origin: &Origin) -> Member {
        Member {
            id: RaftId(0),
            node: origin.node.clone(),
            incarnation: origin.incarnation,
            cluster_addr: self.addresses.cluster_addr.clone(),
            api_addr: self.addresses.api_addr.clone(),
            voter: false,
            wants_vote: false,
            election_ms: 1000,
            version: self.addresses.version.clone(),
        }
    }

    /// Those who follow the role of this node seal it.
    async fn leave(&self, removed_at: Index) {
        if let Err(error) = self.consensus.leave(removed_at).await {
            tracing::error!(%error, "this node was removed from its cluster, and cannot store that");
        }
    }

    async fn of_member(
        &self,
        member: &Member,
        own: &Member,
        barrier: &Barrier,
        clock: &dyn Clock,
    ) -> Option<RejoinResponse> {
        let outcome = tokio::select! {
            biased;
            outcome = self.exchange(member, own, barrier) => outcome,
            () = clock.sleep_until(clock.now().after(WITHIN)) => return None,
        };
        match outcome {
            Ok(given) => Some(given),
            // Another attempt may have led to an election before.
            Err(JoinError::Refused { status: status @ (400 | 409), text }) if !self.hears_leader() => {
                tracing::warn!(node = member.node, status, text, "a member does not give its keys to this one");
                None
            }
            Err(JoinError::Response(why)) => {
                // For example when a snapshot from before a change of the root key was restored meanwhile.
                tracing::warn!(
                    node = member.node,
                    why,
                    "a member does not give its keys to this one, which may have another root key: if a snapshot from before a \
                     change of the root key was restored meanwhile, empty the data directory of this node, and let it join"
                );
                None
            }
            Err(error) => {
                tracing::debug!(node = member.node, %error, "a member has not given its keys");
                None
            }
        }
    }

    async fn exchange(&self, member: &Member, own: &Member, barrier: &Barrier) -> Result<RejoinResponse, JoinError> {
        let target = self.target(member);
        let applicant = self.applicant(own);
        let request = applicant.encode().map_err(|_| JoinError::Response("the request cannot be encoded"))?;
        let body = json!({ "server_id": applicant.node, "request": STANDARD.encode(&request) }).to_string();
        let response = self.client.send(&target, JoinStep::Challenge, body.into_bytes()).await?;
        let challenge = challenge_of(&response, request)?;
        let key = barrier.derive_from_root(JOINING).map_err(|_| JoinError::Response("this node is sealed"))?;
        let proof = Proof::new(key, &challenge.seal_record, &challenge.request, &challenge.challenge);
        let body = json!({
            "server_id": applicant.node,
            "cluster_addr": applicant.cluster_addr,
            "challenge": STANDARD.encode(&challenge.challenge),
            "answer": STANDARD.encode(proof.answer()),
        });
        let response = self.client.send(&target, JoinStep::Answer, body.to_string().into_bytes()).await?;
        let sealed = sealed_of(&response)?;
        if let Some(index) = proof.open_removal(&sealed) {
            return Ok(RejoinResponse::Removal(Index(index)));
        }
        let welcome = proof.open(&sealed);
        let welcome = welcome.ok_or(JoinError::Response("the member did not prove that it has the root key"))?;
        if welcome.details.cluster_id != self.cluster_id {
            return Err(JoinError::Response("the member belongs to another cluster"));
        }
        Ok(RejoinResponse::Authority(GivenAuthority { term: welcome.details.term, seed: welcome.authority }))
    }

    fn target(&self, member: &Member) -> JoinTarget {
        let known = self.configured.iter().find(|target| target.api_addr == member.api_addr);
        let like = known.or(self.configured.first()).cloned().unwrap_or_default();
        let tls_servername = known.and_then(|known| known.tls_servername.clone());
        JoinTarget { api_addr: member.api_addr.clone(), ca: None, any_certificate: true, tls_servername, ..like }
    }

    /// This node, as the cluster knows it: only its addresses and its version may have changed.
    fn applicant(&self, own: &Member) -> Applicant {
        Applicant {
            node: own.node.clone(),
            incarnation: own.incarnation,
            cluster_addr: self.addresses.cluster_addr.clone(),
            api_addr: self.addresses.api_addr.clone(),
            wants_vote: own.wants_vote,
            election_ms: own.election_ms,
            version: self.addresses.version.clone(),
            nonce: random::bytes(),
            is_member: true,
        }
    }
}
