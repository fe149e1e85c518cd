//! The depth of external keys of external keys: a key of the transit engine of another server may be an external key there.
//! A ring of such keys would call itself until all its timeouts, so each call has its depth in a header, and a deep one is
//! refused.

use std::future::Future;

use keepfast_framework::AuditedHeader;
use keepfast_framework::external_key::{DEPTH_HEADER, ExternalKeyError};

/// The most external keys above one.
const MAX_DEPTH: u8 = 4;

tokio::task_local! {
    /// The number of external keys above the request that this task handles.
    static DEPTH: u8;
}

/// The depth of a request with these headers. With an invalid or a repeated one, no further call is allowed.
pub fn external_key_depth(headers: &[AuditedHeader]) -> u8 {
    let found = headers.iter().find(|header| header.name == DEPTH_HEADER);
    let depth = |values: &[String]| match values {
        [one] => one.parse().unwrap_or(u8::MAX),
        _ => u8::MAX,
    };
    found.map_or(0, |header| depth(&header.values))
}

/// Handles a request of this depth.
pub async fn at_external_key_depth<T>(depth: u8, handle: impl Future<Output = T>) -> T {
    DEPTH.scope(depth, handle).await
}

/// The depth of a call that this task sends.
pub(crate) fn next() -> u8 {
    DEPTH.try_with(|depth| *depth).unwrap_or(0).saturating_add(1)
}

/// Refuses a call that is too deep. The refusal is of the class that no caller repeats.
pub(super) fn check() -> Result<(), ExternalKeyError> {
    match next() > MAX_DEPTH {
        true => Err(ExternalKeyError::refused(
            "the external key is that of another external key, and so on: at most 4 of them, and no ring",
        )),
        false => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn header(values: &[&str]) -> AuditedHeader {
        let values = values.iter().map(|value| (*value).to_owned()).collect();
        AuditedHeader { name: DEPTH_HEADER.to_owned(), values, hmac: false }
    }

    #[tokio::test]
    async fn sec_the_depth_of_external_keys_is_bound() {
        assert!(next() == 1 && check().is_ok(), "a request without the header, and a seal");
        for (values, next_depth, is_allowed) in [
            (&["1"][..], 2, true),
            (&["3"], 4, true),
            (&["4"], 5, false),
            (&["255"], 255, false),
            (&["256"], 255, false),
            (&["-1"], 255, false),
            (&["1", "0"], 255, false),
            (&[], 255, false),
        ] {
            let depth = external_key_depth(&[header(values)]);
            let seen = at_external_key_depth(depth, async { (next(), check().is_ok()) }).await;
            assert_eq!(seen, (next_depth, is_allowed), "{values:?}");
        }
        assert_eq!(external_key_depth(&[]), 0);
    }
}
