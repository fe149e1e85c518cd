//! The side of a node that joins: it gets the record of the seal from a leader, takes the shares of that seal, and proves
//! the root key.

use std::sync::Arc;
use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use futures_util::stream::{FuturesUnordered, StreamExt as _};
use keepfast_crypto::locked::Key256;
use keepfast_crypto::random;
use keepfast_framework::{Error, Result, Status};
use keepfast_storage::{Consensus, Joined, Member, StorageError, derive_key};
use serde_json::json;

use super::client::{JoinClient, JoinError, JoinStep, JoinTarget};
use super::exchange::{Applicant, JOINING, Proof, Welcome};
use super::pending::{Intent, Pending};
use super::responses::{ReceivedChallenge, challenge_of, sealed_of};
use super::service::JoiningService;
use crate::cluster::port::PortIdentity;
use crate::lifecycle::{Lifecycle, unseal_by_seal};
use crate::seal::{SealConfig, WayIn};

/// How often the state of the node is read while a snapshot arrives.
const POLL: Duration = Duration::from_millis(50);
/// How long the log of the node may stand still before the attempt ends.
const STALLED: Duration = Duration::from_secs(120);

/// The stored seal configuration; that of the cluster which this node joins, if nothing is stored.
pub(crate) async fn known_seal(server: &Lifecycle) -> Result<Option<SealConfig>> {
    Ok(server.parts.seal_config().await?.or_else(|| server.administration.joining.seal_config()))
}

/// Gets the seal of a cluster from the first leader that responds. Does nothing on an initialized node.
///
/// Fails with OpenBao's text when no leader responds.
pub(crate) async fn request(server: &Lifecycle, intent: Intent) -> Result<()> {
    let consensus = consensus(server)?;
    if consensus.status().is_removed {
        return Err(removed());
    }
    if server.parts.seal_config().await?.is_some() {
        return Ok(());
    }
    let applicant = applicant(server, &*consensus, intent.non_voter)?;
    let (_, challenge) = first_challenge(server, &intent.targets, &applicant, None).await.map_err(|error| {
        Error::new(Status::INTERNAL, "failed to join raft cluster: failed to get raft challenge").caused_by(error)
    })?;
    let pending = Pending { intent, seal: challenge.seal()?, seal_record: challenge.seal_record.into() };
    let name = pending.seal.cluster_name.clone();
    let is_same = {
        let mut current = server.administration.joining.pending.lock();
        let is_same = current.as_ref().is_some_and(|current| current.seal_record == pending.seal_record);
        if !is_same {
            check_shares(server)?;
        }
        *current = Some(pending);
        is_same
    };
    tracing::info!(cluster = name, "a leader was found: this node joins it when it gets the shares of its unseal key");
    // Anybody may send the request: a record that was tried is not tried again at once.
    if !is_same {
        server.seals.begin_round();
    }
    Ok(())
}

/// Checks that no shares were submitted for a cluster: anybody could replace it by another one.
fn check_shares(server: &Lifecycle) -> Result<()> {
    let joining = &server.administration.joining;
    if server.unsealing.lock().progress() == 0 && !joining.is_completing() {
        return Ok(());
    }
    let text =
        "shares were submitted for the cluster that this node joins; discard them first (sys/unseal with reset=true)";
    Err(Error::invalid(text))
}

/// Joins the cluster with what opens its root key, and unseals. Returns whether it opens it. The records of the cluster
/// may arrive after the call: it waits for them at most this long.
///
/// Fails when no leader responds, or refuses this node.
pub(crate) async fn complete(server: &Arc<Lifecycle>, way: WayIn, within: Duration) -> Result<bool> {
    let joining = &server.administration.joining;
    let ended = joining.attempt.lock().ended;
    let completing = joining.completing.clone().lock_owned().await;
    let Some(pending) = joining.pending.lock().clone() else { return Err(Error::invalid("Vault is not initialized")) };
    let Some(root) = pending.seal.open(&way)? else { return Ok(false) };
    let accepted = accept(server, &pending, &root).await?;
    let work = {
        let server = server.clone();
        async move {
            let _completing = completing;
            let entered = enter(&server, accepted, way).await;
            if let Err(error) = &entered {
                let cause = error.cause().map(ToString::to_string).unwrap_or_default();
                tracing::error!(%error, cause, "this node has not joined the cluster; submit the shares again");
            }
            entered
        }
    };
    // In its own task: the records arrive also when the caller does not wait.
    let (done, mut result) = tokio::sync::oneshot::channel();
    let seals = server.seals.clone();
    {
        let mut attempt = joining.attempt.lock();
        if attempt.ended != ended {
            return Err(was_ended());
        }
        attempt.task = Some(tokio::spawn(async move {
            // A caller that does not wait any more does not try again.
            if let Err(Err(_)) = done.send(work.await) {
                seals.begin_round();
            }
        }));
    }
    let clock = &server.parts.clock;
    tokio::select! {
        biased;
        result = &mut result => return result.map_err(|_| was_ended())?.map(|()| true),
        () = clock.sleep_until(clock.now().after(within)) => {}
    }
    result.close();
    // The result may have arrived at the same moment.
    result.try_recv().map_or(Ok(true), |entered| entered.map(|()| true))
}

fn was_ended() -> Error {
    Error::new(Status::UNAVAILABLE, "the attempt to join the cluster was ended")
}

/// Answers a fresh challenge. Returns what the leader has sent.
async fn accept(server: &Lifecycle, pending: &Pending, root: &Key256) -> Result<Welcome> {
    let consensus = consensus(server)?;
    let applicant = applicant(server, &*consensus, pending.intent.non_voter)?;
    let failed = |error: JoinError| match error {
        JoinError::Refused { status: status @ (400 | 409), text } => {
            Error::new(Status(status), format!("the leader refuses this node: {text}"))
        }
        other => Error::new(Status::INTERNAL, "failed to join raft cluster: no leader accepts").caused_by(other),
    };
    let known = Some(&pending.seal_record[..]);
    let (target, challenge) =
        first_challenge(server, &pending.intent.targets, &applicant, known).await.map_err(failed)?;
    if challenge.seal_record != pending.seal_record {
        let (seal, seal_record) = (challenge.seal()?, challenge.seal_record.into());
        *server.administration.joining.pending.lock() = Some(Pending { seal, seal_record, ..pending.clone() });
        return Err(Error::new(Status(409), "the seal of the cluster has changed; submit the shares again"));
    }
    let key = derive_key(root, JOINING.as_bytes());
    let proof = Proof::new(key, &challenge.seal_record, &challenge.request, &challenge.challenge);
    let body = json!({
        "server_id": applicant.node,
        "cluster_addr": applicant.cluster_addr,
        "challenge": STANDARD.encode(&challenge.challenge),
        "answer": STANDARD.encode(proof.answer()),
    });
    let response = client(server)?.send(&target, JoinStep::Answer, body.to_string().into_bytes()).await;
    let sealed = sealed_of(&response.map_err(failed)?).map_err(failed)?;
    let welcome = proof.open(&sealed).ok_or_else(|| {
        Error::new(Status::INTERNAL, "the leader did not prove that it has the root key; this node has not joined")
    })?;
    if welcome.details.cluster_id != pending.seal.cluster_id {
        return Err(Error::internal("the leader belongs to another cluster than its seal"));
    }
    Ok(welcome)
}

/// Becomes a member: prepares the data directory, connects, waits for the records and unseals.
async fn enter(server: &Arc<Lifecycle>, welcome: Welcome, way: WayIn) -> Result<()> {
    let consensus = consensus(server)?;
    let Welcome { authority, details } = welcome;
    let cluster_id = details.cluster_id.clone();
    let members = details.into_members();
    prepare(server, &*consensus, &cluster_id, &members).await?;
    let connected = connect(server, &consensus, cluster_id, members, authority).await;
    let received = match connected {
        Ok(()) => receive(server, &*consensus).await,
        failed => failed,
    };
    if let Err(error) = received {
        leave(server, &*consensus).await?;
        return Err(error);
    }
    *server.administration.joining.pending.lock() = None;
    tracing::info!("this node has joined the cluster");
    let unsealed = match way {
        // A seal on request lasts until a quorum.
        WayIn::Slot(..) => unseal_by_seal(server, &way).await.and_then(|unsealed| unsealed.ok_or_else(was_ended)),
        way => server.unseal_by(way).await,
    };
    if !matches!(unsealed, Ok(true)) {
        // No other unseal in between.
        let _changing = server.changing.lock().await;
        if server.is_sealed() {
            leave(server, &*consensus).await?;
        }
    }
    match unsealed? {
        true => Ok(()),
        false => Err(Error::new(Status(409), "the seal of the cluster has changed; submit its shares")),
    }
}

/// Leaves the network and closes the port, which has keys that only unsealed nodes have.
async fn leave(server: &Lifecycle, consensus: &dyn Consensus) -> Result<()> {
    consensus.stop().await;
    port(server)?.close().await;
    Ok(())
}

/// Makes the data directory that of a member, durably. An attempt that was cut off has done it already.
async fn prepare(server: &Lifecycle, consensus: &dyn Consensus, cluster_id: &str, members: &[Member]) -> Result<()> {
    // No initialization in between.
    let _changing = server.changing.lock().await;
    if server.parts.seal_config().await?.is_some() {
        return Err(Error::invalid("Vault is already initialized"));
    }
    let joined = Joined { cluster_id: cluster_id.to_owned(), members: members.to_vec() };
    consensus.join(joined).await.map_err(|error| match error {
        StorageError::Layout(why) => Error::invalid(format!("the data directory cannot join a cluster: {why}")),
        other => other.into(),
    })
}

async fn connect(
    server: &Lifecycle,
    consensus: &Arc<dyn Consensus>,
    cluster_id: String,
    members: Vec<Member>,
    authority: Key256,
) -> Result<()> {
    let settings = &server.parts.settings;
    let identity = PortIdentity {
        cluster_id,
        node: consensus.identity(),
        cluster_addr: settings.cluster_addr.clone(),
        authorities: vec![authority],
    };
    let service = JoiningService { backend: server.parts.backend.clone(), members };
    let transport = port(server)?.open(identity, Arc::new(service)).await?;
    Ok(consensus.start(transport, settings.addresses()).await?)
}

/// Waits until the snapshot of the leader is applied.
async fn receive(server: &Lifecycle, consensus: &dyn Consensus) -> Result<()> {
    let clock = &server.parts.clock;
    let mut progress = (consensus.status().applied, clock.now());
    loop {
        let status = consensus.status();
        if status.is_removed {
            return Err(removed());
        }
        if !status.is_joining && server.parts.seal_config().await?.is_some() {
            return Ok(());
        }
        let now = clock.now();
        let is_heard = status.last_contact.is_some_and(|contact| contact < STALLED);
        if status.applied != progress.0 || is_heard {
            progress = (status.applied, now);
        } else if now.since(progress.1) > STALLED {
            return Err(Error::new(Status::UNAVAILABLE, "no leader has sent the records of the cluster"));
        }
        clock.sleep_until(now.after(POLL)).await;
    }
}

/// Requests a challenge from all leaders at once. Returns the first one with this seal record, if there is one, and the
/// leader that sent it; else the first one; without any, the last error.
async fn first_challenge(
    server: &Lifecycle,
    targets: &[JoinTarget],
    applicant: &Applicant,
    seal_record: Option<&[u8]>,
) -> Result<(JoinTarget, ReceivedChallenge), JoinError> {
    let client = client(server).map_err(|_| JoinError::Response("this server has no client to join by"))?;
    let request = applicant.encode().map_err(|_| JoinError::Response("the request cannot be encoded"))?;
    let body = json!({ "server_id": applicant.node, "request": STANDARD.encode(&request) }).to_string();
    let call = async |target: &JoinTarget| {
        let response = client.send(target, JoinStep::Challenge, body.clone().into_bytes()).await?;
        Ok((target.clone(), challenge_of(&response, request.clone())?))
    };
    let mut calls: FuturesUnordered<_> = targets.iter().map(call).collect();
    let mut best = Err(JoinError::Response("no leader is configured"));
    while let Some(outcome) = calls.next().await {
        match outcome {
            Ok(found) if seal_record.is_none_or(|record| found.1.seal_record == record) => return Ok(found),
            outcome if best.is_err() => best = outcome,
            _ => {}
        }
    }
    best
}

/// This node, as it applies.
fn applicant(server: &Lifecycle, consensus: &dyn Consensus, non_voter: bool) -> Result<Applicant> {
    let origin = consensus.identity();
    let status = consensus.status();
    let own = status.members.iter().find(|member| member.incarnation == origin.incarnation);
    let own = own.ok_or_else(|| Error::internal("this node does not know itself"))?;
    let settings = &server.parts.settings;
    if settings.cluster_addr.is_empty() {
        return Err(Error::invalid("this node has no cluster_addr, by which the other members reach it"));
    }
    Ok(Applicant {
        node: origin.node,
        incarnation: origin.incarnation,
        cluster_addr: settings.cluster_addr.clone(),
        api_addr: settings.api_addr.clone(),
        wants_vote: !non_voter,
        election_ms: own.election_ms,
        version: settings.addresses().version,
        nonce: random::bytes(),
        is_member: false,
    })
}

fn removed() -> Error {
    let text = "this node was removed from its cluster; empty its data directory before it joins again";
    Error::new(Status(409), text).caused_by(StorageError::Removed)
}

fn consensus(server: &Lifecycle) -> Result<Arc<dyn Consensus>> {
    server.parts.backend.consensus().ok_or_else(|| Error::new(Status::INTERNAL, "raft backend not in use"))
}

fn client(server: &Lifecycle) -> Result<Arc<dyn JoinClient>> {
    let client = server.parts.settings.join.client.clone();
    client.ok_or_else(|| Error::internal("this server has no client to join by"))
}

fn port(server: &Lifecycle) -> Result<Arc<dyn crate::cluster::port::ClusterPort>> {
    let port = server.parts.settings.cluster_port.clone();
    port.ok_or_else(|| Error::internal("this server has no cluster port"))
}
