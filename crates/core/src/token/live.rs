//! Whether a token may be used, without a use of it.

use std::net::IpAddr;

use keepfast_crypto::secret::SecretString;
use keepfast_framework::Timestamp;

use super::Tokens;

/// Whether the state of this node has a token that is valid at `now` and may be used from this address.
pub(crate) async fn finds_live_token(
    tokens: &Tokens,
    token: &SecretString,
    remote: Option<IpAddr>,
    now: Timestamp,
) -> bool {
    let found = tokens.find_anywhere(token.expose(), now).await;
    found.is_ok_and(|found| found.is_some_and(|token| token.record.allows_from(remote)))
}
