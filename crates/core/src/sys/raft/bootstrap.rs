//! `sys/storage/raft/bootstrap/`: what a node calls that joins. See [`crate::cluster::join::exchange`].

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use keepfast_framework::fields::Text;
use keepfast_framework::reply::Described;
use keepfast_framework::routes::Help;
use keepfast_framework::{Cx, Error, Result, Routes};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::cluster::join::exchange::{MAX_CHALLENGE, MAX_REQUEST};
use crate::cluster::join::leader;
use crate::sys::system::{System, consensus, unsealed};

const CHALLENGE: Help = Help {
    synopsis: "Returns a challenge for a node that joins the cluster, with the configuration of the seal.",
    description: "",
};
const ANSWER: Help =
    Help { synopsis: "Adds a node to the cluster that has proved to have the root key.", description: "" };

pub(super) fn routes(r: &mut Routes<System>) {
    r.path("storage/raft/bootstrap/challenge", CHALLENGE)
        .update(challenge)
        .unauthenticated()
        .without_leader()
        .not_in_namespaces();
    r.path("storage/raft/bootstrap/answer", ANSWER)
        .update(answer)
        .unauthenticated()
        .once()
        .without_leader()
        .not_in_namespaces();
}

#[derive(Deserialize, JsonSchema)]
struct ChallengeRequest {
    /// The name of the node.
    #[serde(default)]
    server_id: Text,
    /// The node, in base64: its name, data directory, addresses and version, and a nonce.
    #[serde(default)]
    request: Text,
}

#[derive(Serialize, JsonSchema)]
struct ChallengeResponse {
    challenge: String,
    seal_config: SealResponse,
    /// The stored record of the seal, in base64. It has the root key, wrapped by the seal.
    seal_record: String,
}

/// The configuration of the seal, as in OpenBao.
#[derive(Serialize, JsonSchema)]
struct SealResponse {
    #[serde(rename = "type")]
    kind: String,
    secret_shares: u8,
    secret_threshold: u8,
    pgp_keys: Option<Vec<String>>,
    nonce: &'static str,
    backup: bool,
}

#[derive(Deserialize, JsonSchema)]
struct AnswerRequest {
    /// The name of the node.
    #[serde(default)]
    server_id: Text,
    /// The challenge.
    #[serde(default)]
    challenge: Text,
    /// The proof that the node has the root key, in base64.
    #[serde(default)]
    answer: Text,
}

#[derive(Serialize, JsonSchema)]
struct AnswerResponse {
    /// The members and the keys of the cluster port, or that the node was removed, in base64, encrypted under a key that only
    /// a holder of the root key has.
    welcome: String,
}

/// Decodes base64 of at most `most` bytes.
fn decode(text: &str, most: usize) -> Option<Vec<u8>> {
    let longest = most.div_ceil(3) * 4;
    (text.len() <= longest).then(|| STANDARD.decode(text).ok()).flatten().filter(|bytes| bytes.len() <= most)
}

async fn challenge(sys: &System, cx: &mut Cx, request: ChallengeRequest) -> Result<Described<ChallengeResponse>> {
    consensus(sys).map_err(Error::without_frame)?;
    if request.server_id.is_empty() {
        return Err(Error::invalid("no server id provided"));
    }
    let Some(bytes) = decode(&request.request, MAX_REQUEST).filter(|bytes| !bytes.is_empty()) else {
        return Err(Error::invalid("no request provided: only nodes of Keepfast can join this cluster"));
    };
    let leader::Challenged { challenge, seal, seal_record } =
        leader::challenge(&*sys.lifecycle()?, &*unsealed(cx)?, &bytes).await?;
    let seal_config = SealResponse {
        kind: seal.kind().to_owned(),
        secret_shares: seal.shape().shares,
        secret_threshold: seal.shape().threshold,
        pgp_keys: None,
        nonce: "",
        backup: false,
    };
    let (challenge, seal_record) = (STANDARD.encode(challenge), STANDARD.encode(seal_record));
    Ok(Described(ChallengeResponse { challenge, seal_config, seal_record }))
}

async fn answer(sys: &System, cx: &mut Cx, request: AnswerRequest) -> Result<Described<AnswerResponse>> {
    let consensus = consensus(sys).map_err(Error::without_frame)?;
    if request.server_id.is_empty() {
        return Err(Error::invalid("no server_id provided"));
    }
    if request.answer.is_empty() {
        return Err(Error::invalid("no answer provided"));
    }
    let answer = decode(&request.answer, 32).ok_or_else(|| Error::invalid("could not base64 decode answer"))?;
    let challenge = decode(&request.challenge, MAX_CHALLENGE).ok_or_else(|| Error::invalid("invalid answer given"))?;
    let (server, unsealed) = (sys.lifecycle()?, unsealed(cx)?);
    let welcome = leader::answer(&server, &unsealed, &*consensus, &challenge, &answer).await?;
    Ok(Described(AnswerResponse { welcome: STANDARD.encode(welcome) }))
}
