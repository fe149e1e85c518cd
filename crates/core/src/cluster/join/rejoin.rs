//! A member that has missed a rotation of the keyring: no other member accepts its certificate, and it accepts none of
//! theirs, so that the rotation does not reach it. While it hears no leader it repeats the exchange of a node that joins
//! with the members that it knows, and gets the authority that they have. Both sides prove the root key, so the
//! certificate of the API need not be trusted.

use std::sync::{Arc, Weak};
use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use futures_util::stream::{FuturesUnordered, StreamExt as _};
use keepfast_crypto::locked::Key256;
use keepfast_crypto::random;
use keepfast_framework::Clock;
use keepfast_storage::{Addresses, Barrier, Consensus, Member};
use serde_json::json;

use super::client::{JoinClient, JoinError, JoinStep, JoinTarget};
use super::exchange::{Applicant, JOINING, Proof};
use super::pause::pause;
use super::responses::{challenge_of, sealed_of};

/// The interval in which the contact with the leader is checked.
const POLL: Duration = Duration::from_secs(1);
/// How long no leader may be heard before the other members are asked.
const PATIENCE: Duration = Duration::from_secs(3);
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

/// Asks the other members for their newest authority.
#[derive(Clone)]
pub(crate) struct Rejoin {
    pub(crate) consensus: Arc<dyn Consensus>,
    pub(crate) client: Arc<dyn JoinClient>,
    /// The leaders of the configuration, whose client certificates are used.
    pub(crate) configured: Vec<JoinTarget>,
    pub(crate) addresses: Addresses,
    pub(crate) cluster_id: String,
}

impl Rejoin {
    /// Asks while no leader is heard, until the barrier is dropped or closed. `found` gets the newest authority of a term
    /// that the keyring does not have; `None` when there is none.
    pub(crate) async fn run(
        self,
        barrier: Weak<Barrier>,
        clock: Arc<dyn Clock>,
        found: impl Fn(Option<GivenAuthority>),
    ) {
        let (mut next, mut attempt) = (None, 0);
        loop {
            clock.sleep_until(clock.now().after(POLL)).await;
            let Some(barrier) = barrier.upgrade().filter(|barrier| !barrier.is_closed()) else { return };
            if self.hears_leader() {
                (next, attempt) = (None, 0);
                continue;
            }
            let now = clock.now();
            if now < *next.get_or_insert(now.after(PATIENCE)) {
                continue;
            }
            found(self.newest(&barrier).await);
            let pause = pause(attempt, u32::from_le_bytes(random::bytes()));
            next = Some(clock.now().after(pause.max(PATIENCE)));
            attempt = attempt.saturating_add(1);
        }
    }

    /// Whether the leader is heard, or there is none to be heard.
    fn hears_leader(&self) -> bool {
        let status = self.consensus.status();
        let hears = status.leader.is_some() && status.last_contact.is_some_and(|contact| contact < PATIENCE);
        hears || status.is_leading || status.is_removed || status.members.len() < 2
    }

    async fn newest(&self, barrier: &Barrier) -> Option<GivenAuthority> {
        let status = self.consensus.status();
        let origin = self.consensus.identity();
        let own = status.members.iter().find(|member| member.incarnation == origin.incarnation)?;
        let others = status.members.iter().filter(|member| member.incarnation != origin.incarnation);
        let mut calls: FuturesUnordered<_> = others.map(|member| self.ask(member, own, barrier)).collect();
        let mut newest = None;
        while let Some(given) = calls.next().await {
            newest = newest.into_iter().chain(given).max_by_key(|given| given.term);
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

    async fn ask(&self, member: &Member, own: &Member, barrier: &Barrier) -> Option<GivenAuthority> {
        let outcome = tokio::time::timeout(WITHIN, self.exchange(member, own, barrier)).await;
        match outcome {
            Ok(Ok(given)) => Some(given),
            Ok(Err(JoinError::Refused { status: status @ (400 | 409), text })) => {
                tracing::warn!(node = member.node, status, text, "a member does not give its keys to this one");
                None
            }
            Ok(Err(JoinError::Response(why))) => {
                // For example when a snapshot from before a change of the root key was restored meanwhile.
                tracing::warn!(
                    node = member.node,
                    why,
                    "a member does not give its keys to this one, which may have another root key"
                );
                None
            }
            Ok(Err(error)) => {
                tracing::debug!(node = member.node, %error, "a member has not given its keys");
                None
            }
            Err(_) => None,
        }
    }

    async fn exchange(&self, member: &Member, own: &Member, barrier: &Barrier) -> Result<GivenAuthority, JoinError> {
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
        let welcome = proof.open(&sealed_of(&response)?);
        let welcome = welcome.ok_or(JoinError::Response("the member did not prove that it has the root key"))?;
        if welcome.details.cluster_id != self.cluster_id {
            return Err(JoinError::Response("the member belongs to another cluster"));
        }
        Ok(GivenAuthority { term: welcome.details.term, seed: welcome.authority })
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
        }
    }
}
