//! The leader's side: challenges, without any state, and the check of answers.

use std::sync::Arc;

use bytes::Bytes;
use keepfast_framework::{Error, Result};
use keepfast_storage::{Barrier, Change, Consensus, Index, Member, Origin, PeerKind, SealRecord, StorageError};

use super::admission::{Circumstances, Step, admit};
use super::exchange::{Applicant, CHALLENGES, Challenge, JOINING, Proof, Welcome, WelcomeDetails};
use crate::cluster::announced::{NAMESPACES, WRAPPED_VALUES};
use crate::cluster::members;
use crate::cluster::port::AUTHORITY;
use crate::lifecycle::Lifecycle;
use crate::seal::SealConfig;
use crate::unsealed::Unsealed;

/// A challenge with the record of the seal.
pub(crate) struct Challenged {
    pub(crate) challenge: Vec<u8>,
    pub(crate) seal: SealConfig,
    pub(crate) seal_record: Bytes,
}

/// Creates a challenge for a request. Costs a read and an encryption, and keeps nothing.
///
/// Fails with 400 for a request that is no [`Applicant`].
pub(crate) async fn challenge(server: &Lifecycle, unsealed: &Unsealed, request: &[u8]) -> Result<Challenged> {
    if Applicant::decode(request).is_none() {
        return Err(Error::invalid("the request is not one of a node of Keepfast"));
    }
    let seal_record = seal_record(server).await?;
    let term = unsealed.barrier.key_status()?.term;
    let challenge =
        Challenge::seal(&unsealed.barrier.derive(term, CHALLENGES)?, term, request, server.parts.clock.now().unix());
    Ok(Challenged { challenge, seal: SealConfig::from_bytes(&seal_record)?, seal_record })
}

/// Makes the node a member that has answered a challenge. Returns the sealed response; to a member that was removed, that
/// it was.
///
/// Fails with 400 for a wrong answer; see [`admit`] for the others.
pub(crate) async fn answer(
    server: &Lifecycle,
    unsealed: &Unsealed,
    consensus: &dyn Consensus,
    challenge: &[u8],
    answer: &[u8],
) -> Result<Vec<u8>> {
    let barrier = &unsealed.barrier;
    let wrong = || Error::invalid("invalid answer given");
    let term = Challenge::term(challenge).ok_or_else(wrong)?;
    let key = barrier.derive(term, CHALLENGES).map_err(|_| wrong())?;
    let request = Challenge::open(&key, challenge, server.parts.clock.now().unix()).ok_or_else(wrong)?;
    let applicant = Applicant::decode(&request).ok_or_else(wrong)?;
    let seal_record = seal_record(server).await?;
    let proof = Proof::new(barrier.derive_from_root(JOINING)?, &seal_record, &request, challenge);
    if !proof.accepts(answer) {
        return Err(wrong());
    }
    let is_leading = consensus.status().is_leading;
    if is_leading && applicant.is_member && members::removed_directories(barrier).await?.contain(applicant.incarnation)
    {
        let Index(index) = consensus.departed(applicant.incarnation).await?;
        tracing::info!(node = applicant.node, "a removed node has returned, and gets the proof of its removal");
        return Ok(proof.seal_removal(index));
    }
    let members = match is_leading {
        true => add(server, barrier, consensus, &applicant).await?,
        false => known(server, barrier, consensus, &applicant).await?,
    };
    let term = barrier.key_status()?.term;
    let cluster_id = SealConfig::from_bytes(&seal_record)?.cluster_id;
    let details = WelcomeDetails::new(cluster_id, term, members);
    Ok(proof.seal(&Welcome { authority: barrier.derive(term, AUTHORITY)?, details })?)
}

/// Commits what makes the applicant a member. Returns the members.
async fn add(
    server: &Lifecycle,
    barrier: &Arc<Barrier>,
    consensus: &dyn Consensus,
    applicant: &Applicant,
) -> Result<Vec<Member>> {
    let removed = members::removed_directories(barrier).await?;
    let status = consensus.status();
    let settings = &server.parts.settings;
    let leading_for = server.administration.autopilot.memory().leading_for();
    let has_namespaces = server.unsealed().is_some_and(|unsealed| unsealed.observability.directory.has_any());
    let format = match (has_namespaces, barrier.wrap_keys().is_empty()) {
        (true, _) => NAMESPACES,
        (false, true) => 0,
        (false, false) => WRAPPED_VALUES,
    };
    let of = Circumstances { status: &status, removed: &removed, version: &settings.version, format, leading_for };
    match admit(applicant, &of)? {
        Step::Nothing => return Ok(status.members),
        Step::Update(member) => {
            // A member needs the keys in any case, and updates its addresses when it leads.
            if let Err(error) = members::change(consensus, Change::Update(member)).await {
                tracing::warn!(node = applicant.node, %error, "the addresses of a member are not changed");
            }
            return Ok(consensus.status().members);
        }
        Step::Add => members::change(consensus, Change::AddLearner(applicant.member())).await?,
        Step::Replace(silent) => {
            members::check_quorum_without(&status, &silent)?;
            members::remove(consensus, barrier, &*server.parts.clock, &silent).await?;
            members::change(consensus, Change::AddLearner(applicant.member())).await?;
        }
    }
    tracing::info!(node = applicant.node, "a node has joined the cluster");
    Ok(consensus.status().members)
}

/// The members, if the applicant is one of them: without a leader a member that has missed a rotation of the keyring gets
/// its keys from any other, so that both can elect one. A member that no list here has may be newer than this node, which
/// then asks it in turn.
async fn known(
    server: &Lifecycle,
    barrier: &Arc<Barrier>,
    consensus: &dyn Consensus,
    applicant: &Applicant,
) -> Result<Vec<Member>> {
    let members = consensus.status().members;
    let origin = Origin { node: applicant.node.clone(), incarnation: applicant.incarnation };
    let is_removed = members::removed_directories(barrier).await?.contain(applicant.incarnation);
    let is_own = consensus.identity().incarnation == applicant.incarnation;
    match consensus.peer_kind(&origin) {
        PeerKind::Member if !is_removed && !is_own => return Ok(members),
        PeerKind::Unknown if !is_removed && !is_own && applicant.is_member => {
            server.administration.proven.add(applicant.member(), server.parts.clock.now());
        }
        _ => {}
    }
    Err(StorageError::NoLeader.into())
}

async fn seal_record(server: &Lifecycle) -> Result<Bytes> {
    SealRecord::load(&*server.parts.backend).await?.ok_or_else(Error::sealed)
}
