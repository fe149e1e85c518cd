//! The responses of a leader to a node that joins, which anything may have sent.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use keepfast_framework::Result;
use serde::Deserialize;

use super::client::JoinError;
use super::exchange::MAX_CHALLENGE;
use crate::seal::SealConfig;

/// The longest record of a seal in bytes.
const MAX_SEAL: usize = 64 << 10;

/// The response to a request for a challenge.
pub(super) struct ReceivedChallenge {
    /// The request that it answers.
    pub(super) request: Vec<u8>,
    pub(super) challenge: Vec<u8>,
    pub(super) seal_record: Vec<u8>,
}

impl ReceivedChallenge {
    pub(super) fn seal(&self) -> Result<SealConfig> {
        SealConfig::from_bytes(&self.seal_record)
    }
}

#[derive(Deserialize)]
struct Envelope<T> {
    data: T,
}

#[derive(Deserialize)]
struct ChallengeData {
    challenge: String,
    seal_record: String,
}

#[derive(Deserialize)]
struct AnswerData {
    welcome: String,
}

/// Reads the response of a leader to a request.
pub(super) fn challenge_of(response: &[u8], request: Vec<u8>) -> Result<ReceivedChallenge, JoinError> {
    let foreign = || JoinError::Response("the response is not one of a leader of Keepfast");
    let Envelope { data }: Envelope<ChallengeData> = serde_json::from_slice(response).map_err(|_| foreign())?;
    let decode = |text: &str, most: usize| STANDARD.decode(text).ok().filter(|bytes| bytes.len() <= most);
    let challenge = decode(&data.challenge, MAX_CHALLENGE).ok_or_else(foreign)?;
    let seal_record = decode(&data.seal_record, MAX_SEAL).ok_or_else(foreign)?;
    SealConfig::from_bytes(&seal_record).map_err(|_| foreign())?;
    Ok(ReceivedChallenge { request, challenge, seal_record })
}

/// Reads the response of a leader to a proof: sealed bytes.
pub(super) fn sealed_of(response: &[u8]) -> Result<Vec<u8>, JoinError> {
    let data: Envelope<AnswerData> =
        serde_json::from_slice(response).map_err(|_| JoinError::Response("the response is not one of a leader"))?;
    STANDARD.decode(data.data.welcome).map_err(|_| JoinError::Response("the response is not base64"))
}
