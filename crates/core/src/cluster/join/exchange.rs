//! The exchange by which a node proves to the leader that it has the root key, and the leader to the node. Pure: no
//! storage, no connection.
//!
//! 1. The node sends its [`Applicant`]. The leader returns the seal record and a [`Challenge`]: the request and the time,
//!    sealed under a key of the current term. It keeps nothing.
//! 2. The node unseals the root key of that record by its shares, and sends [`Proof::answer`]: an HMAC, under a key
//!    derived from the root key, of the transcript.
//! 3. The leader returns a [`Welcome`], sealed under another key derived from the root key and the transcript. The
//!    transcript has a fresh nonce of each side: a response is of one exchange. An answer can be repeated for a minute;
//!    it then changes nothing. A member that was removed gets that, sealed under a third key: nothing else ends a node.
//!
//! A false leader gets an HMAC of what it has sent, and no share. A false node gets bytes that it cannot open.

use keepfast_crypto::aead::AeadKey;
use keepfast_crypto::compare;
use keepfast_crypto::hash::sha256;
use keepfast_crypto::hmac::HmacKey;
use keepfast_crypto::locked::Key256;
use keepfast_crypto::secret::SecretBytes;
use keepfast_storage::{Incarnation, Member, NodeId, RaftId, derive_key};
use serde::{Deserialize, Serialize};

use crate::cluster::members::WrittenMember;

/// The purpose of the key of challenges, derived from the key of a term.
pub(crate) const CHALLENGES: &str = "keepfast join challenge 1";
/// The purpose of the key of answers and responses, derived from the root key.
pub(crate) const JOINING: &str = "keepfast join 1";
/// The longest request in bytes.
pub(crate) const MAX_REQUEST: usize = 3 << 10;
/// The longest challenge in bytes: a request with a head, a time, a nonce and a tag.
pub(crate) const MAX_CHALLENGE: usize = MAX_REQUEST + 64;
/// How long a challenge can be answered, in seconds.
const MAX_AGE: i64 = 60;
/// The longest name, address or version in bytes.
const MAX_TEXT: usize = 512;

/// A node that wants to become a member.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Applicant {
    pub(crate) node: NodeId,
    #[serde(with = "hex::serde")]
    pub(crate) incarnation: Incarnation,
    pub(crate) cluster_addr: String,
    pub(crate) api_addr: String,
    pub(crate) wants_vote: bool,
    pub(crate) election_ms: u32,
    pub(crate) version: String,
    /// Fresh random bytes, so that no earlier response is accepted.
    #[serde(with = "hex::serde")]
    pub(crate) nonce: [u8; 16],
    /// Whether it has the records of the cluster and needs only its keys: it is never added.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub(crate) is_member: bool,
}

impl Applicant {
    /// The request as bytes. The leader uses these bytes, never its own encoding of them.
    pub(crate) fn encode(&self) -> serde_json::Result<Vec<u8>> {
        serde_json::to_vec(self)
    }

    /// Reads a request; `None` when a field is missing or too long.
    pub(crate) fn decode(request: &[u8]) -> Option<Self> {
        let applicant: Applicant =
            (request.len() <= MAX_REQUEST).then(|| serde_json::from_slice(request).ok()).flatten()?;
        let texts = [&applicant.node, &applicant.cluster_addr, &applicant.api_addr, &applicant.version];
        let is_bounded = texts.iter().all(|text| text.len() <= MAX_TEXT);
        let is_usable = !applicant.node.is_empty() && !applicant.cluster_addr.is_empty() && applicant.election_ms > 0;
        (is_bounded && is_usable).then_some(applicant)
    }

    /// The member that it becomes; the entry of the log gives it a number.
    pub(crate) fn member(&self) -> Member {
        Member {
            id: RaftId(0),
            node: self.node.clone(),
            incarnation: self.incarnation,
            cluster_addr: self.cluster_addr.clone(),
            api_addr: self.api_addr.clone(),
            voter: false,
            wants_vote: self.wants_vote,
            election_ms: self.election_ms,
            version: self.version.clone(),
        }
    }
}

/// A challenge of the leader: `term:u32le`, then `time:i64le request` sealed under the key of that term.
pub(crate) struct Challenge;

impl Challenge {
    /// Creates the challenge for a request. `key` is derived for [`CHALLENGES`] from the key of `term`.
    pub(crate) fn seal(key: &Key256, term: u32, request: &[u8], now: i64) -> Vec<u8> {
        let head = term.to_le_bytes();
        AeadKey::new(key).seal_after(&head, &head, &[&now.to_le_bytes()[..], request].concat())
    }

    /// The term whose key sealed a challenge; `None` for one that no leader has made.
    pub(crate) fn term(challenge: &[u8]) -> Option<u32> {
        let head = challenge.first_chunk::<4>().filter(|_| challenge.len() <= MAX_CHALLENGE)?;
        Some(u32::from_le_bytes(*head))
    }

    /// The request for which this key sealed the challenge, at most a minute before `now`; otherwise `None`.
    pub(crate) fn open(key: &Key256, challenge: &[u8], now: i64) -> Option<Vec<u8>> {
        let (head, sealed) = challenge.split_first_chunk::<4>()?;
        let plain = AeadKey::new(key).open(head, sealed).ok()?;
        let (time, request) = plain.split_first_chunk::<8>()?;
        let age = now.checked_sub(i64::from_le_bytes(*time))?;
        (0..=MAX_AGE).contains(&age).then(|| request.to_vec())
    }
}

/// The keys of one exchange, which only a holder of the root key has.
pub(crate) struct Proof {
    key: Key256,
    transcript: [u8; 32],
}

impl Proof {
    /// `key` is derived from the root key for [`JOINING`]. The rest is what both sides have seen.
    pub(crate) fn new(key: Key256, seal_record: &[u8], request: &[u8], challenge: &[u8]) -> Self {
        let mut text = b"keepfast join transcript 1".to_vec();
        for part in [seal_record, request, challenge] {
            text.extend_from_slice(&(part.len() as u64).to_le_bytes());
            text.extend_from_slice(part);
        }
        Proof { key, transcript: sha256(&text) }
    }

    /// The proof of the node.
    pub(crate) fn answer(&self) -> [u8; 32] {
        HmacKey::new(derive_key(&self.key, b"answer").expose()).mac(&self.transcript)
    }

    /// Whether the answer proves that the sender has the root key.
    pub(crate) fn accepts(&self, answer: &[u8]) -> bool {
        compare::equal(&self.answer(), answer)
    }

    /// Seals the response of the leader.
    pub(crate) fn seal(&self, welcome: &Welcome) -> serde_json::Result<Vec<u8>> {
        let details = serde_json::to_vec(&welcome.details)?;
        let mut plain = SecretBytes::new(Vec::with_capacity(32 + details.len()));
        plain.expose_mut().extend_from_slice(welcome.authority.expose());
        plain.expose_mut().extend_from_slice(&details);
        Ok(self.response_key().seal(&self.transcript, plain.expose()))
    }

    /// Opens the response; `None` when the sender does not have the root key, or it is the response of another exchange.
    pub(crate) fn open(&self, sealed: &[u8]) -> Option<Welcome> {
        let plain = SecretBytes::new(self.response_key().open(&self.transcript, sealed).ok()?);
        let (authority, details) = plain.expose().split_first_chunk::<32>()?;
        let details = serde_json::from_slice(details).ok()?;
        Some(Welcome { authority: Key256::from_slice(authority)?, details })
    }

    /// Seals the response of the leader to a node that was removed before the entry with this index.
    pub(crate) fn seal_removal(&self, index: u64) -> Vec<u8> {
        self.removal_key().seal(&self.transcript, &index.to_le_bytes())
    }

    /// Opens that response; `None` for any other one, and when the sender does not have the root key.
    pub(crate) fn open_removal(&self, sealed: &[u8]) -> Option<u64> {
        let plain = self.removal_key().open(&self.transcript, sealed).ok()?;
        Some(u64::from_le_bytes(plain.as_slice().try_into().ok()?))
    }

    fn removal_key(&self) -> AeadKey {
        AeadKey::new(&derive_key(&self.key, &[&b"removal"[..], &self.transcript].concat()))
    }

    fn response_key(&self) -> AeadKey {
        AeadKey::new(&derive_key(&self.key, &[&b"response"[..], &self.transcript].concat()))
    }
}

/// What a node gets that has proved to have the root key.
pub(crate) struct Welcome {
    /// The seed of the newest certificate authority of the cluster port.
    pub(crate) authority: Key256,
    pub(crate) details: WelcomeDetails,
}

/// The part of a [`Welcome`] that is no secret.
#[derive(Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct WelcomeDetails {
    pub(crate) cluster_id: String,
    /// The term of the keyring from which the authority is derived.
    pub(crate) term: u32,
    /// The members, the new one among them.
    members: Vec<WrittenMember>,
}

impl WelcomeDetails {
    pub(crate) fn new(cluster_id: String, term: u32, members: Vec<Member>) -> Self {
        WelcomeDetails { cluster_id, term, members: members.into_iter().map(WrittenMember::from).collect() }
    }

    /// The members.
    pub(crate) fn into_members(self) -> Vec<Member> {
        self.members.into_iter().map(Member::from).collect()
    }
}

#[cfg(test)]
mod tests {
    use keepfast_crypto::random;

    use super::*;

    fn applicant() -> Applicant {
        Applicant {
            node: "b".to_owned(),
            incarnation: [2; 16],
            cluster_addr: "https://b:8201".to_owned(),
            api_addr: "https://b:8200".to_owned(),
            wants_vote: true,
            election_ms: 600,
            version: "1.2.3".to_owned(),
            nonce: random::bytes(),
            is_member: false,
        }
    }

    fn welcome() -> Welcome {
        let member = Member { id: RaftId(9), ..applicant().member() };
        Welcome { authority: random::key(), details: WelcomeDetails::new("id".to_owned(), 1, vec![member]) }
    }

    /// Both sides with these root keys, over one exchange.
    fn sides(leader: &Key256, node: &Key256) -> (Proof, Proof) {
        let request = applicant().encode().unwrap();
        let challenge = Challenge::seal(&random::key(), 1, &request, 100);
        let proof = |root: &Key256| Proof::new(derive_key(root, JOINING.as_bytes()), b"seal", &request, &challenge);
        (proof(leader), proof(node))
    }

    #[test]
    fn both_sides_with_one_root_key_accept_each_other() {
        let root = random::key();
        let (leader, node) = sides(&root, &root);
        assert!(leader.accepts(&node.answer()));
        let sent = welcome();
        let opened = node.open(&leader.seal(&sent).unwrap()).unwrap();
        assert_eq!(opened.authority.expose(), sent.authority.expose());
        let members = opened.details.into_members();
        assert_eq!((members.len(), members[0].id, members[0].incarnation), (1, RaftId(9), [2; 16]));
    }

    #[test]
    fn a_node_or_a_leader_with_another_root_key_is_refused() {
        let (leader, node) = sides(&random::key(), &random::key());
        assert!(!leader.accepts(&node.answer()));
        assert!(node.open(&leader.seal(&welcome()).unwrap()).is_none());
        for answer in [&node.answer()[..31], &[], &[0; 32], &[0; 33]] {
            assert!(!leader.accepts(answer));
        }
    }

    #[test]
    fn every_part_of_the_transcript_counts() {
        let (key, request) = (random::key(), applicant().encode().unwrap());
        let of = |seal: &[u8], request: &[u8], challenge: &[u8]| Proof::new(key.clone(), seal, request, challenge);
        let proof = of(b"seal", &request, b"challenge");
        let sealed = proof.seal(&welcome()).unwrap();
        let others = [
            of(b"other", &request, b"challenge"),
            of(b"seal", &applicant().encode().unwrap(), b"challenge"),
            of(b"seal", &request, b"another one"),
            // The same bytes with other boundaries.
            of(&[b"seal", &request[..1]].concat(), &request[1..], b"challenge"),
        ];
        for other in others {
            assert!(!other.accepts(&proof.answer()) && other.open(&sealed).is_none());
        }
        assert!(proof.open(&sealed).is_some());
        assert!((0..sealed.len()).all(|at| {
            let mut damaged = sealed.clone();
            damaged[at] ^= 1;
            proof.open(&damaged).is_none() && proof.open(&sealed[..at]).is_none()
        }));
    }

    /// Nodes of different versions join each other.
    #[test]
    fn the_form_of_the_exchange_stays() {
        let request = Applicant { nonce: [5; 16], ..applicant() }.encode().unwrap();
        let root = Key256::new([1; 32]);
        let proof = Proof::new(derive_key(&root, JOINING.as_bytes()), b"seal", &request, b"challenge");
        assert_eq!(hex::encode(proof.answer()), "cc90303e5724e3ccc324abc6db0969676b3ddc905d284d5d65314386983badf7");
        let response_key = derive_key(&proof.key, &[&b"response"[..], &proof.transcript].concat());
        assert_eq!(
            hex::encode(sha256(response_key.expose())),
            "908846701274a2e6cc2a5af39bb3faae73e977adbaf38bd04533be998bf0e8b7"
        );
    }

    #[test]
    fn sec_only_a_holder_of_the_root_key_ends_a_removed_node() {
        let root = random::key();
        let (leader, node) = sides(&root, &root);
        let sealed = leader.seal_removal(77);
        assert_eq!(node.open_removal(&sealed), Some(77));
        assert!(node.open(&sealed).is_none() && node.open_removal(&leader.seal(&welcome()).unwrap()).is_none());
        // Another exchange, another root key.
        assert!(sides(&root, &root).1.open_removal(&sealed).is_none());
        assert!(node.open_removal(&sides(&random::key(), &root).0.seal_removal(77)).is_none());
    }

    #[test]
    fn an_answer_is_no_response_and_a_response_no_answer() {
        let root = random::key();
        let (leader, node) = sides(&root, &root);
        let sealed = leader.seal(&welcome()).unwrap();
        assert!(node.open(&node.answer()).is_none());
        assert!(!leader.accepts(&sealed) && !leader.accepts(&sealed[..32]));
    }

    #[test]
    fn a_challenge_is_valid_for_a_minute_under_its_own_key() {
        let (key, request) = (random::key(), b"request");
        let challenge = Challenge::seal(&key, 7, request, 1000);
        assert_eq!(Challenge::term(&challenge), Some(7));
        let opened = |now| Challenge::open(&key, &challenge, now).is_some_and(|opened| opened == request);
        assert!(opened(1000) && opened(1060) && !opened(1061) && !opened(999));
        assert!(Challenge::open(&random::key(), &challenge, 1000).is_none());
        for at in 0..challenge.len() {
            let mut changed = challenge.clone();
            changed[at] ^= 1;
            assert!(Challenge::open(&key, &changed, 1000).is_none(), "byte {at}");
        }
        let far = Challenge::seal(&key, 7, request, i64::MIN);
        assert!(Challenge::open(&key, &far, i64::MAX).is_none(), "an age beyond all numbers");
        assert_eq!((Challenge::term(&[1; 3]), Challenge::term(&[1; MAX_CHALLENGE + 1])), (None, None));
        assert_ne!(challenge, Challenge::seal(&key, 7, request, 1000), "each has a fresh nonce");
    }

    #[test]
    fn a_request_has_bounds_and_all_fields() {
        let whole = applicant();
        assert_eq!(Applicant::decode(&whole.encode().unwrap()), Some(whole.clone()));
        let read = |change: fn(&mut Applicant)| {
            let mut changed = applicant();
            change(&mut changed);
            Applicant::decode(&changed.encode().unwrap()).is_some()
        };
        assert!(read(|a| a.api_addr = "x".repeat(MAX_TEXT)));
        assert!(!read(|a| a.api_addr = "x".repeat(MAX_TEXT + 1)));
        assert!(!read(|a| a.node.clear()) && !read(|a| a.cluster_addr.clear()) && !read(|a| a.election_ms = 0));
        for text in ["", "{}", "null", "[1]", "{\"node\":\"a\"}"] {
            assert!(Applicant::decode(text.as_bytes()).is_none(), "{text}");
        }
        let mut padded = whole.encode().unwrap();
        padded.resize(MAX_REQUEST + 1, b' ');
        assert!(Applicant::decode(&padded).is_none());
        padded.truncate(MAX_REQUEST);
        assert!(Applicant::decode(&padded).is_some());
    }
}
