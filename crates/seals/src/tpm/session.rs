//! Sessions (part 1, "Session-based authorizations" and "Session-based encryption"): every command and response that has a
//! key, a digest or an authorization is bound by an HMAC, and its first parameter is encrypted where it is secret. The key of
//! a session is derived from a salt that only the storage key of the TPM can read, so that an interposer on the bus reads and
//! changes nothing. Authorization values are keys of the HMAC and are not sent.

use keepfast_crypto::hash::{Sha256Stream, sha256};
use keepfast_crypto::hmac::HmacKey;
use keepfast_crypto::keys::KeyError;
use keepfast_crypto::secret::SecretBytes;
use keepfast_crypto::{compare, random, tpm};

use super::device::{Device, malformed};
use super::failure::Failure;
use super::parent::Parent;
use super::wire::{ALG_SHA256, Command, NO_SESSIONS, Reader, SESSIONS, Writer};
use crate::call::{misconfigured, unreachable_because};

/// `TPM_RH_NULL`.
const NULL: u32 = 0x4000_0007;
/// `continueSession`: the session remains.
const CONTINUE: u8 = 0x01;

/// The type of a session.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum SessionKind {
    /// `TPM_SE_HMAC`.
    Hmac = 0,
    /// `TPM_SE_POLICY`.
    Policy = 1,
}

/// What the session does with a command, beside the HMAC.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Protect {
    /// Nothing.
    Hmac = 0,
    /// `decrypt`: the first parameter of the command is encrypted.
    Command = 0x20,
    /// `encrypt`: the first parameter of the response is encrypted.
    Response = 0x40,
    /// `audit`: a command without authorization.
    Audit = 0x80,
}

/// A cipher with key, initialization vector and text.
type Cipher = fn(&[u8; 16], &[u8; 16], &mut [u8]) -> Result<(), KeyError>;

/// A started session.
pub(super) struct Session {
    pub(super) handle: u32,
    key: SecretBytes,
    nonce_tpm: Vec<u8>,
}

/// A handle with the name of its entity, and the authorization value.
pub(super) struct Target<'a> {
    /// With the names; at most one.
    pub(super) handle: Option<(u32, &'a [u8])>,
    /// The authorization value of the entity.
    pub(super) auth: &'a [u8],
}

impl Session {
    /// Starts a session with a salt for this key; without one it has no key of its own.
    pub(super) fn start(device: &mut Device, salted: Option<&Parent>, kind: SessionKind) -> Result<Self, Failure> {
        let nonce: [u8; 32] = random::bytes();
        let (encrypted, salt) = match salted {
            Some(parent) => parent.encrypted_salt()?,
            None => (Vec::new(), SecretBytes::default()),
        };
        let command = Writer::new().u32(salted.map_or(NULL, |parent| parent.handle)).u32(NULL);
        let command = command.sized(&nonce).sized(&encrypted).u8(kind as u8).aes_128_cfb().u16(ALG_SHA256).finish();
        let response = device.call(NO_SESSIONS, Command::StartAuthSession, command.expose())?;
        let mut reader = Reader::new(response.expose());
        let (Some(handle), Some(nonce_tpm), true) = (reader.u32(), reader.sized(), reader.is_empty()) else {
            return Err(malformed(Command::StartAuthSession).into());
        };
        let key = match salted {
            Some(_) => kdfa(salt.expose(), b"ATH", nonce_tpm, &nonce),
            None => SecretBytes::default(),
        };
        Ok(Session { handle: device.has_loaded(handle), key, nonce_tpm: nonce_tpm.to_vec() })
    }

    /// Runs a command with this session. `parameters` begins with a `TPM2B` where it is encrypted. Returns the handle of the
    /// response, where the command has one, and its parameters.
    pub(super) fn run(
        &mut self,
        device: &mut Device,
        command: Command,
        target: &Target<'_>,
        mut parameters: SecretBytes,
        protect: Protect,
    ) -> Result<(Option<u32>, SecretBytes), Failure> {
        let nonce: [u8; 32] = random::bytes();
        let secret = SecretBytes::new([self.key.expose().as_slice(), target.auth].concat());
        if protect == Protect::Command {
            let first = first_parameter(parameters.expose_mut()).ok_or_else(|| misconfigured("no parameter"))?;
            self.crypt(secret.expose(), (&nonce, &self.nonce_tpm), first, tpm::cfb_encrypt)?;
        }
        let hmac = HmacKey::new(secret.expose());
        let attributes = CONTINUE | protect as u8;
        let mut digest = Sha256Stream::default();
        digest.update(&command.code().to_be_bytes());
        digest.update(target.handle.map_or(&[][..], |(_, name)| name));
        digest.update(parameters.expose());
        let own = hmac.mac_parts(&[&digest.finish(), &nonce, &self.nonce_tpm, &[attributes]]);
        let area = Writer::new().u32(self.handle).sized(&nonce).u8(attributes).sized(&own).finish();
        let message = target.handle.map_or_else(Writer::new, |(handle, _)| Writer::new().u32(handle));
        let area_size = u32::try_from(area.expose().len()).unwrap_or(u32::MAX);
        let message = message.u32(area_size).raw(area.expose()).raw(parameters.expose()).finish();
        let response = device.call(SESSIONS, command, message.expose())?;

        let has_handle = matches!(command, Command::CreatePrimary | Command::Load);
        let parts = split(response.expose(), has_handle).ok_or_else(|| malformed(command))?;
        let handle = parts.handle.map(|handle| device.has_loaded(handle));
        let mut digest = Sha256Stream::default();
        digest.update(&0_u32.to_be_bytes());
        digest.update(&command.code().to_be_bytes());
        digest.update(parts.parameters);
        let expected = hmac.mac_parts(&[&digest.finish(), parts.nonce, &nonce, &[parts.attributes]]);
        if !compare::equal(&expected, parts.hmac) {
            return Err(
                unreachable_because(format!("the response to {command:?} is not of the TPM that has the key")).into()
            );
        }
        let mut returned = SecretBytes::new(parts.parameters.to_vec());
        if protect == Protect::Response {
            let first = first_parameter(returned.expose_mut()).ok_or_else(|| malformed(command))?;
            self.crypt(secret.expose(), (parts.nonce, &nonce), first, tpm::cfb_decrypt)?;
        }
        self.nonce_tpm = parts.nonce.to_vec();
        Ok((handle, returned))
    }

    /// Encrypts or decrypts a parameter with the key of the newer and the older nonce.
    fn crypt(
        &self,
        secret: &[u8],
        (newer, older): (&[u8], &[u8]),
        text: &mut [u8],
        cipher: Cipher,
    ) -> Result<(), Failure> {
        let derived = kdfa(secret, b"CFB", newer, older);
        let parts = derived.expose().split_first_chunk::<16>();
        let parts = parts.and_then(|(key, iv)| Some((key, iv.first_chunk::<16>()?)));
        let (key, iv) = parts.ok_or_else(|| misconfigured("the derived key is too short"))?;
        cipher(key, iv, text).map_err(|_| misconfigured("the cipher library failed").into())
    }
}

/// The parts of a response with a session.
struct Parts<'a> {
    handle: Option<u32>,
    parameters: &'a [u8],
    nonce: &'a [u8],
    attributes: u8,
    hmac: &'a [u8],
}

fn split(response: &[u8], has_handle: bool) -> Option<Parts<'_>> {
    let mut reader = Reader::new(response);
    let handle = if has_handle { Some(reader.u32()?) } else { None };
    let size = usize::try_from(reader.u32()?).ok()?;
    let parameters = reader.take(size)?;
    let (nonce, attributes, hmac) = (reader.sized()?, reader.u8()?, reader.sized()?);
    (reader.is_empty() && nonce.len() <= 64).then_some(Parts { handle, parameters, nonce, attributes, hmac })
}

/// The bytes of the `TPM2B` at the start.
fn first_parameter(parameters: &mut [u8]) -> Option<&mut [u8]> {
    let (length, rest) = parameters.split_first_chunk_mut::<2>()?;
    rest.get_mut(..usize::from(u16::from_be_bytes(*length)))
}

/// `KDFa` with HMAC-SHA-256 for 256 bits: one block (part 1, annex on key derivation; NIST SP 800-108).
fn kdfa(key: &[u8], label: &[u8], newer: &[u8], older: &[u8]) -> SecretBytes {
    let mac = HmacKey::new(key).mac_parts(&[&1_u32.to_be_bytes(), label, &[0], newer, older, &256_u32.to_be_bytes()]);
    SecretBytes::new(mac.to_vec())
}

/// `KDFe` with SHA-256 for 256 bits: one block (NIST SP 800-56A).
pub(super) fn kdfe(shared: &[u8], label: &[u8], own_x: &[u8], their_x: &[u8]) -> SecretBytes {
    let input = SecretBytes::new([&1_u32.to_be_bytes(), shared, label, own_x, their_x].concat());
    SecretBytes::new(sha256(input.expose()).to_vec())
}
