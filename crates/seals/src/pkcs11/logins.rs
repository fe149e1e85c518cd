//! The logins of the process to tokens of HSMs. A token is locked after a few wrong PINs, whichever connection sends them: so
//! refusals are counted for each token, and not for each connection.

use std::collections::{HashMap, VecDeque};
use std::sync::LazyLock;
use std::time::Duration;

use keepfast_crypto::hmac::HmacKey;
use keepfast_crypto::{compare, random};
use keepfast_framework::Timestamp;
use keepfast_framework::seal::SealError;
use parking_lot::Mutex;

use super::protocol::FoundToken;
use crate::call::denied;

/// The refused logins of a token, and those without a response, from which external keys send no other PIN. The shortest
/// limit of tokens is three.
const MAX_REFUSED: usize = 2;
/// The time in which a refused PIN is not sent again, and in which a login without a response counts as refused.
const PAUSE: Duration = Duration::from_secs(600);
/// The most PINs that are known of a token.
const MAX_PINS: usize = 16;
/// The most tokens that are known. Another one has no logins of external keys.
const MAX_TOKENS: usize = 1024;

/// The logins of this process.
pub(super) static LOGINS: LazyLock<Logins> = LazyLock::new(Logins::new);

/// The logins to each token.
pub(super) struct Logins {
    /// The key of the digests of PINs.
    key: HmacKey,
    tokens: Mutex<HashMap<String, Token>>,
}

#[derive(Default)]
struct Token {
    /// Refused logins since the last accepted one.
    refused: usize,
    /// Logins that wait for a response.
    running: usize,
    /// When logins ended without a response.
    silent: VecDeque<Timestamp>,
    /// Digests of PINs that were refused, and when.
    refused_pins: VecDeque<([u8; 32], Timestamp)>,
    /// Digests of PINs that were accepted.
    accepted_pins: VecDeque<[u8; 32]>,
    /// Whether the token has reported a refused login after the last one that counts here.
    reports_refusals: bool,
}

/// A login that runs. Dropped before its response, it may have counted as a wrong PIN.
pub(super) struct Login<'a> {
    logins: &'a Logins,
    token: String,
    pin: [u8; 32],
    now: Timestamp,
    has_response: bool,
}

impl Logins {
    fn new() -> Self {
        Logins { key: HmacKey::new(random::key().expose()), tokens: Mutex::default() }
    }

    /// Begins a login. One of a seal is only counted: its PIN is that of the configuration of the server.
    ///
    /// # Errors
    /// [`Denied`](keepfast_framework::seal::SealErrorClass::Denied) where another refused PIN could lock the token.
    pub(super) fn begin(
        &self,
        found: &FoundToken,
        pin: &str,
        is_seal: bool,
        now: Timestamp,
    ) -> Result<Login<'_>, SealError> {
        let pin = self.key.mac(pin.as_bytes());
        let mut tokens = self.tokens.lock();
        if !is_seal && tokens.len() >= MAX_TOKENS && !tokens.contains_key(&found.id) {
            return Err(denied("there are too many tokens of HSMs"));
        }
        let token = tokens.entry(found.id.clone()).or_default();
        token.drop_outdated(found, now);
        if !is_seal {
            token.check(found, &pin)?;
        }
        token.running += 1;
        Ok(Login { logins: self, token: found.id.clone(), pin, now, has_response: false })
    }
}

impl Token {
    /// Drops what no longer counts: old entries, and all after a login elsewhere, by which the token has reset its counter.
    fn drop_outdated(&mut self, found: &FoundToken, now: Timestamp) {
        let is_recent = |at: &Timestamp| now.since(*at) < PAUSE;
        self.silent.retain(is_recent);
        self.refused_pins.retain(|(_, at)| is_recent(at));
        if self.reports_refusals && !found.has_refused {
            self.refused = 0;
        }
        self.reports_refusals = found.has_refused && self.refused > 0;
    }

    fn check(&self, found: &FoundToken, pin: &[u8; 32]) -> Result<(), SealError> {
        if found.is_last_attempt {
            return Err(denied("the next refused PIN would lock the token: log in once with a tool of the HSM"));
        }
        if self.accepted_pins.iter().any(|known| compare::equal(known, pin)) {
            return Ok(());
        }
        if self.refused_pins.iter().any(|(known, _)| compare::equal(known, pin)) {
            return Err(denied("the HSM has refused this PIN; it is not sent again within 10 minutes"));
        }
        match self.refused + self.silent.len() + self.running >= MAX_REFUSED {
            true => Err(denied(
                "the token has refused PINs of external keys; no other one is sent before a login with a valid PIN or a \
                 restart of the server, so that the token is not locked",
            )),
            false => Ok(()),
        }
    }
}

impl Login<'_> {
    /// The token has accepted the PIN.
    pub(super) fn accepted(mut self) {
        self.end(|token, pin, _| {
            (token.refused, token.reports_refusals) = (0, false);
            token.silent.clear();
            token.refused_pins.retain(|(known, _)| known != pin);
            token.accepted_pins.retain(|known| known != pin);
            token.accepted_pins.truncate(MAX_PINS - 1);
            token.accepted_pins.push_front(*pin);
        });
    }

    /// The token has refused the PIN.
    pub(super) fn refused(mut self) {
        self.end(|token, pin, now| {
            token.refused += 1;
            token.reports_refusals = false;
            token.accepted_pins.retain(|known| known != pin);
            token.refused_pins.truncate(MAX_PINS - 1);
            token.refused_pins.push_front((*pin, now));
        });
    }

    /// The token has not compared the PIN.
    pub(super) fn not_compared(mut self) {
        self.end(|_, _, _| {});
    }

    fn end(&mut self, change: impl FnOnce(&mut Token, &[u8; 32], Timestamp)) {
        self.has_response = true;
        let mut tokens = self.logins.tokens.lock();
        if let Some(token) = tokens.get_mut(&self.token) {
            token.running = token.running.saturating_sub(1);
            change(token, &self.pin, self.now);
        }
    }
}

impl Drop for Login<'_> {
    fn drop(&mut self) {
        if !self.has_response {
            self.end(|token, _, now| {
                token.silent.truncate(MAX_PINS - 1);
                token.silent.push_front(now);
            });
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn found(id: &str) -> FoundToken {
        FoundToken { id: id.to_owned(), has_refused: false, is_last_attempt: false }
    }

    fn at(seconds: u64) -> Timestamp {
        Timestamp::default().after(Duration::from_secs(seconds))
    }

    #[test]
    fn sec_refused_pins_count_for_a_token_and_not_a_connection() {
        let (logins, token) = (Logins::new(), found("t"));
        let begin = |pin: &str, now| logins.begin(&token, pin, false, at(now));
        begin("1", 0).unwrap().refused();
        assert!(begin("1", 599).is_err(), "the same PIN");
        begin("2", 0).unwrap().refused();
        assert!(begin("3", 100_000).is_err(), "a third one could lock the token");
        assert!(logins.begin(&found("other"), "3", false, at(0)).is_ok());
        // The PIN of a seal is sent, and a valid one ends the count.
        logins.begin(&token, "valid", true, at(0)).unwrap().accepted();
        begin("3", 1).unwrap().refused();
        begin("4", 1).unwrap().refused();
        assert!(begin("5", 1).is_err());
        begin("valid", 1).unwrap().accepted();
        begin("5", 1).unwrap().refused();
        // One that was valid is another one after its change.
        begin("valid", 1).unwrap().refused();
        assert!(begin("valid", 601).is_err());
    }

    #[test]
    fn sec_logins_at_the_same_time_do_not_exceed_the_limit() {
        let (logins, token) = (Logins::new(), found("t"));
        let begin = |pin: &str, now| logins.begin(&token, pin, false, at(now));
        let (one, two) = (begin("1", 0).unwrap(), begin("2", 0).unwrap());
        assert!(begin("3", 0).is_err());
        one.not_compared();
        let three = begin("3", 0).unwrap();
        // Without a response each may have counted.
        drop((two, three));
        assert!(begin("4", 599).is_err());
        assert!(begin("4", 600).is_ok());
    }

    #[test]
    fn sec_the_last_attempt_of_a_token_is_not_that_of_an_external_key() {
        let (logins, token) = (Logins::new(), FoundToken { is_last_attempt: true, ..found("t") });
        logins.begin(&found("t"), "1", false, at(0)).unwrap().accepted();
        assert!(logins.begin(&token, "1", false, at(0)).is_err());
        assert!(logins.begin(&token, "1", true, at(0)).is_ok());
    }

    #[test]
    fn a_login_elsewhere_ends_the_count_where_the_token_reports_it() {
        let (logins, token) = (Logins::new(), found("t"));
        let reports = FoundToken { has_refused: true, ..token.clone() };
        for pin in ["1", "2"] {
            logins.begin(&token, pin, false, at(0)).unwrap().refused();
        }
        assert!(logins.begin(&token, "3", false, at(0)).is_err(), "a token that reports nothing");
        assert!(logins.begin(&reports, "3", false, at(0)).is_err());
        assert!(logins.begin(&token, "3", false, at(0)).is_ok());
    }

    #[test]
    fn what_is_known_of_a_token_is_bound() {
        let (logins, token) = (Logins::new(), found("t"));
        for pin in 0..100 {
            logins.begin(&token, &format!("a{pin}"), true, at(0)).unwrap().accepted();
            logins.begin(&token, &format!("r{pin}"), true, at(0)).unwrap().refused();
            drop(logins.begin(&token, "u", true, at(0)).unwrap());
        }
        let tokens = logins.tokens.lock();
        let token = &tokens["t"];
        let lengths = [token.refused_pins.len(), token.accepted_pins.len()];
        assert!(lengths == [MAX_PINS; 2] && token.silent.len() <= MAX_PINS, "{lengths:?}");
    }
}
