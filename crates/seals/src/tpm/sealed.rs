//! A wrapped key: a sealed data object of the TPM, which only that TPM loads, below the same storage key, and unseals where
//! its policy holds.

use keepfast_crypto::hash::sha256;
use keepfast_crypto::locked::Key256;
use keepfast_crypto::secret::SecretBytes;
use keepfast_framework::seal::SealError;

use super::device::{Device, malformed};
use super::failure::{Failure, Meaning};
use super::parent::Parent;
use super::session::{Protect, Session, SessionKind, Target};
use super::wire::{ALG_NULL, ALG_SHA256, Command, NO_SESSIONS, Pcrs, Reader, Writer};
use crate::call::{denied, misconfigured, wrong_key};

/// The first byte of a blob: its version.
const VERSION: u8 = 1;
/// The longest blob: public area and encrypted private area of a sealed key have about 300 bytes.
const MAX_BLOB: usize = 2048;
/// The persistent handles; 0 is the primary key of the owner hierarchy.
pub(super) const PERSISTENT: std::ops::RangeInclusive<u32> = 0x8100_0000..=0x81ff_ffff;
/// `TPM_ALG_KEYEDHASH`: the type of sealed data.
const ALG_KEYEDHASH: u16 = 0x0008;
/// `fixedTPM | fixedParent`.
const FIXED: u32 = 0x12;
/// `userWithAuth`: the authorization value suffices; without it only the policy does.
const USER_WITH_AUTH: u32 = 0x40;
/// `adminWithPolicy`: the authorization value is not changed without the policy.
const ADMIN_WITH_POLICY: u32 = 0x80;
/// `noDA`: refused authorizations are not counted.
const NO_DA: u32 = 0x400;

/// What unsealing needs.
#[derive(Clone, Copy)]
pub(super) struct Policy {
    /// The PCRs, if any, with the digest of their values.
    pub(super) pcrs: Option<(Pcrs, [u8; 32])>,
    /// Whether it needs an authorization value; the TPM then counts refused ones.
    pub(super) needs_auth: bool,
}

/// A stored wrapped key.
pub(super) struct Sealed<'a> {
    /// The handle of the parent; 0 is the primary key.
    pub(super) parent: u32,
    policy: Policy,
    public: &'a [u8],
    private: &'a [u8],
}

impl Policy {
    fn attributes(self) -> u32 {
        let by = if self.pcrs.is_some() { ADMIN_WITH_POLICY } else { USER_WITH_AUTH };
        FIXED | by | if self.needs_auth { 0 } else { NO_DA }
    }

    /// The digest of `TPM2_PolicyPCR`, then of `TPM2_PolicyAuthValue` where there is an authorization value; empty without
    /// PCRs.
    fn digest(self) -> Vec<u8> {
        let Some((pcrs, values)) = self.pcrs else { return Vec::new() };
        let code = |command: Command| command.code().to_be_bytes();
        let digest = sha256(&[&[0; 32][..], &code(Command::PolicyPcr), &pcrs.list(), &values].concat());
        if !self.needs_auth {
            return digest.to_vec();
        }
        sha256(&[&digest[..], &code(Command::PolicyAuthValue)].concat()).to_vec()
    }

    /// The public area of a key with this policy, up to its last field.
    fn public_start(self) -> SecretBytes {
        let start = Writer::new().u16(ALG_KEYEDHASH).u16(ALG_SHA256).u32(self.attributes());
        start.sized(&self.digest()).u16(ALG_NULL).finish()
    }
}

/// Wraps a key below this parent. Returns the blob.
pub(super) fn seal(
    device: &mut Device,
    session: &mut Session,
    (parent, stored_handle, parent_auth): (&Parent, u32, &[u8]),
    (policy, auth): (Policy, &[u8]),
    key: &Key256,
) -> Result<Vec<u8>, Failure> {
    let sensitive = Writer::new().sized(auth).sized(key.expose()).finish();
    let public = Writer::new().raw(policy.public_start().expose()).sized(&[]).finish();
    // No outside data, no PCRs of the creation.
    let parameters = Writer::new().sized(sensitive.expose()).sized(public.expose()).sized(&[]).u32(0).finish();
    let target = Target { handle: Some((parent.handle, &parent.name)), auth: parent_auth };
    let (_, created) = session.run(device, Command::Create, &target, parameters, Protect::Command)?;
    let mut reader = Reader::new(created.expose());
    let (Some(private), Some(public)) = (reader.sized(), reader.sized()) else {
        return Err(malformed(Command::Create).into());
    };
    let (pcrs, values) = policy.pcrs.map_or((Pcrs::default(), None), |(pcrs, values)| (pcrs, Some(values)));
    let blob = Writer::new().u8(VERSION).u32(stored_handle).raw(&pcrs.0);
    let blob = blob.raw(values.as_ref().map_or(&[][..], |values| &values[..])).sized(public).sized(private).finish();
    let blob = blob.expose().clone();
    // What is stored can be read again.
    Sealed::parse(&blob)?;
    Ok(blob)
}

impl<'a> Sealed<'a> {
    /// Reads a blob. Every field is checked against the public area, which the TPM checks.
    pub(super) fn parse(blob: &'a [u8]) -> Result<Self, SealError> {
        let found = if blob.len() <= MAX_BLOB { Self::fields(blob) } else { None };
        found.ok_or_else(|| wrong_key("the wrapped key is damaged, or of another version"))
    }

    fn fields(blob: &'a [u8]) -> Option<Self> {
        let mut reader = Reader::new(blob);
        let (version, parent) = (reader.u8()?, reader.u32()?);
        let pcrs = Pcrs(*reader.take(3)?.first_chunk::<3>()?);
        let pcrs = if pcrs.is_empty() { None } else { Some((pcrs, *reader.take(32)?.first_chunk::<32>()?)) };
        let (public, private) = (reader.sized()?, reader.sized()?);
        let is_handle = parent == 0 || PERSISTENT.contains(&parent);
        if version != VERSION || !is_handle || !reader.is_empty() {
            return None;
        }
        [true, false].into_iter().find_map(|needs_auth| {
            let policy = Policy { pcrs, needs_auth };
            let unique = public.strip_prefix(policy.public_start().expose().as_slice())?;
            let mut unique = Reader::new(unique);
            let is_whole = unique.sized().is_some_and(|unique| unique.len() == 32) && unique.is_empty();
            is_whole.then_some(Sealed { parent, policy, public, private })
        })
    }

    /// Loads the key below its parent and unseals it.
    pub(super) fn unseal(
        &self,
        device: &mut Device,
        parent: &Parent,
        parent_auth: &[u8],
        auth: &[u8],
    ) -> Result<Key256, Failure> {
        if self.policy.needs_auth && auth.is_empty() {
            return Err(misconfigured("the key was wrapped with an authorization value, and auth is not set").into());
        }
        let auth = if self.policy.needs_auth { auth } else { &[] };
        let mut session = Session::start(device, Some(parent), SessionKind::Hmac)?;
        let parameters = Writer::new().sized(self.private).sized(self.public).finish();
        let target = Target { handle: Some((parent.handle, &parent.name)), auth: parent_auth };
        let loaded = session.run(device, Command::Load, &target, parameters, Protect::Hmac);
        let handle = match loaded {
            Ok((Some(handle), _)) => handle,
            Ok((None, _)) => return Err(malformed(Command::Load).into()),
            Err(failure) if failure.meaning() == Some(Meaning::Parameter) => {
                return Err(wrong_key("the TPM did not wrap this key").into());
            }
            Err(failure) => return Err(failure),
        };
        if let Some((pcrs, values)) = &self.policy.pcrs {
            session = Session::start(device, Some(parent), SessionKind::Policy)?;
            self.prove(device, &session, *pcrs, values)?;
        }
        let name = [&ALG_SHA256.to_be_bytes()[..], &sha256(self.public)].concat();
        let target = Target { handle: Some((handle, &name)), auth };
        let unsealed = session.run(device, Command::Unseal, &target, SecretBytes::default(), Protect::Response);
        let (_, unsealed) = unsealed?;
        let key = Reader::new(unsealed.expose()).sized().and_then(Key256::from_slice);
        key.ok_or_else(|| wrong_key("the unwrapped key does not have 32 bytes").into())
    }

    /// Proves the policy to the TPM. An interposer that changes these commands makes the policy fail.
    fn prove(&self, device: &mut Device, session: &Session, pcrs: Pcrs, values: &[u8; 32]) -> Result<(), Failure> {
        let command = Writer::new().u32(session.handle).sized(values).raw(&pcrs.list()).finish();
        match device.call(NO_SESSIONS, Command::PolicyPcr, command.expose()) {
            Err(failure) if failure.meaning() == Some(Meaning::Parameter) => {
                let cause = "have other values than when the key was wrapped: the boot of the machine has changed";
                return Err(denied(format!("the PCRs {} {cause}", pcrs.numbers())).into());
            }
            other => other?,
        };
        if self.policy.needs_auth {
            let command = session.handle.to_be_bytes();
            device.call(NO_SESSIONS, Command::PolicyAuthValue, &command)?;
        }
        Ok(())
    }
}

/// The digest of the current values of PCRs, which the session authenticates.
pub(super) fn read_pcrs(device: &mut Device, session: &mut Session, pcrs: Pcrs) -> Result<[u8; 32], Failure> {
    let parameters = Writer::new().raw(&pcrs.list()).finish();
    let target = Target { handle: None, auth: &[] };
    let (_, read) = session.run(device, Command::PcrRead, &target, parameters, Protect::Audit)?;
    let mut reader = Reader::new(read.expose());
    let invalid = || malformed(Command::PcrRead);
    reader.u32().ok_or_else(invalid)?;
    if reader.take(10) != Some(&pcrs.list()[..]) {
        let cause = format!("the TPM has no SHA-256 bank with the PCRs {}", pcrs.numbers());
        return Err(misconfigured(cause).into());
    }
    let count = reader.u32().filter(|count| *count == pcrs.count()).ok_or_else(invalid)?;
    let mut values = Vec::new();
    for _ in 0..count {
        let value = reader.sized().filter(|value| value.len() == 32).ok_or_else(invalid)?;
        values.extend_from_slice(value);
    }
    if !reader.is_empty() {
        return Err(invalid().into());
    }
    Ok(sha256(&values))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn blob(policy: Policy, parent: u32) -> Vec<u8> {
        let public = Writer::new().raw(policy.public_start().expose()).sized(&[9; 32]).finish();
        let (pcrs, values) = policy.pcrs.map_or(([0; 3], vec![]), |(pcrs, values)| (pcrs.0, values.to_vec()));
        let blob = Writer::new().u8(VERSION).u32(parent).raw(&pcrs).raw(&values);
        blob.sized(public.expose()).sized(&[8; 100]).finish().expose().clone()
    }

    #[test]
    fn a_blob_is_read_only_with_the_policy_of_its_public_area() {
        let pcrs = Some((Pcrs([0x80, 0, 0]), [3; 32]));
        for policy in [(None, false), (None, true), (pcrs, false), (pcrs, true)] {
            let policy = Policy { pcrs: policy.0, needs_auth: policy.1 };
            let whole = blob(policy, 0x8100_0001);
            let read = Sealed::parse(&whole).unwrap_or_else(|error| panic!("{error}"));
            assert_eq!((read.policy.needs_auth, read.parent), (policy.needs_auth, 0x8100_0001));
            assert_eq!(read.policy.pcrs, policy.pcrs);
            for length in 0..whole.len() {
                assert!(Sealed::parse(&whole[..length]).is_err(), "{length}");
            }
            assert!(Sealed::parse(&[&whole[..], &[0]].concat()).is_err());
            let start = whole.len() - 102 - 34;
            // Version, selection, digest and the public area up to its last field; the handle is compared by its name.
            for at in std::iter::once(0).chain(5..start) {
                let mut damaged = whole.clone();
                damaged[at] ^= 1;
                assert!(Sealed::parse(&damaged).is_err(), "{at}");
            }
        }
        assert!(Sealed::parse(&blob(Policy { pcrs: None, needs_auth: false }, 0x4000_0001)).is_err());
        assert!(Sealed::parse(&vec![VERSION; 100_000]).is_err());
    }

    /// The values that tpm2-tools 5.4 computes on a TPM whose PCRs have only zeros.
    #[test]
    fn the_digest_of_a_policy_is_that_of_other_programs() {
        let one = Policy { pcrs: Some((Pcrs([0x80, 0, 0]), sha256(&[0; 32]))), needs_auth: false };
        assert_eq!(hex::encode(one.digest()), "8b5682d81b29435d08d79278150611dc7e5923b2fefcce684a09577b40130a8b");
        let two = Policy { pcrs: Some((Pcrs([1, 0, 0x80]), sha256(&[0; 64]))), needs_auth: true };
        assert_eq!(hex::encode(two.digest()), "8b8e4ded0c26be49c253154288f49ec3f0c922db2ad3b36fc2c852b5fdda6000");
    }
}
