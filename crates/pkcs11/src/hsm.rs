//! One session with an HSM: finds keys, wraps and unwraps, and uses external keys (`external.rs`).
//!
//! Source: PKCS #11 Cryptographic Token Interface Base Specification, version 2.40, and Current Mechanisms.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use cryptoki::context::{CInitializeArgs, CInitializeFlags, Pkcs11};
use cryptoki::error::{Error, RvError};
use cryptoki::mechanism;
use cryptoki::mechanism::aead::GcmParams;
use cryptoki::mechanism::rsa::{PkcsOaepParams, PkcsOaepSource};
use cryptoki::object::{Attribute, AttributeType, ObjectClass, ObjectHandle};
use cryptoki::session::{Session, UserType};
use cryptoki::slot::Slot;
use cryptoki::types::AuthPin;
use zeroize::Zeroizing;

use crate::external::hash_of;
use crate::protocol::{Class, FoundToken, HsmHash, Mechanism, Open, Response, Stored};

/// Bytes of a nonce of AES-GCM.
pub(crate) const NONCE: u32 = 12;
/// Bits of a tag of AES-GCM.
pub(crate) const TAG_BITS: u64 = 128;
/// The longest wrapped key.
const MAX_BLOB: usize = 2048;

/// A session of a user who is logged in.
pub(crate) struct Hsm {
    pub(crate) session: Session,
    label: Option<String>,
    /// Hex.
    id: Option<String>,
    mechanism: Mechanism,
}

/// Why the HSM did not do it.
pub(crate) struct Failure {
    class: Class,
    cause: String,
}

impl Failure {
    pub(crate) fn new(class: Class, cause: impl Into<String>) -> Self {
        Failure { class, cause: cause.into() }
    }

    /// The failure as a response.
    pub(crate) fn response(self) -> Response<String> {
        Response::Failed { class: self.class, cause: self.cause }
    }
}

impl From<Error> for Failure {
    fn from(error: Error) -> Self {
        match error {
            Error::Pkcs11(rv, function) => Failure::new(class_of(&rv), format!("{rv:?} in {function:?}")),
            Error::LibraryLoading(_) => Failure::new(Class::Misconfigured, "the library cannot be loaded"),
            other => Failure::new(Class::Misconfigured, format!("{other}")),
        }
    }
}

fn class_of(rv: &RvError) -> Class {
    match rv {
        RvError::PinIncorrect
        | RvError::PinInvalid
        | RvError::PinLenRange
        | RvError::PinExpired
        | RvError::PinLocked => Class::PinRefused,
        RvError::UserNotLoggedIn | RvError::UserPinNotInitialized | RvError::UserTypeInvalid => Class::Denied,
        RvError::KeyHandleInvalid
        | RvError::ObjectHandleInvalid
        | RvError::EncryptedDataInvalid
        | RvError::EncryptedDataLenRange
        | RvError::KeyFunctionNotPermitted
        | RvError::KeyTypeInconsistent => Class::WrongKey,
        RvError::SlotIdInvalid
        | RvError::MechanismInvalid
        | RvError::MechanismParamInvalid
        | RvError::ArgumentsBad
        | RvError::FunctionNotSupported
        | RvError::KeySizeRange
        | RvError::DataInvalid
        | RvError::DataLenRange => Class::Misconfigured,
        _ => Class::Unreachable,
    }
}

impl Hsm {
    /// Loads the library, finds the token and opens a session, which is not logged in.
    pub(crate) fn open(open: Open) -> Result<(Self, FoundToken), Failure> {
        let Open { lib, slot, token_label, serial, key_label: label, key_id: id, mechanism } = open;
        let library = Pkcs11::new(lib)?;
        library.initialize(CInitializeArgs::new(CInitializeFlags::OS_LOCKING_OK))?;
        let slot = find_slot(&library, slot, token_label.as_deref(), serial.as_deref())?;
        let info = library.get_token_info(slot)?;
        let session = library.open_ro_session(slot)?;
        let found = FoundToken {
            id: token_id(info.manufacturer_id(), info.model(), info.serial_number(), info.label()),
            has_refused: info.user_pin_count_low(),
            is_last_attempt: info.user_pin_final_try(),
        };
        Ok((Hsm { session, label, id, mechanism }, found))
    }

    /// Logs in.
    pub(crate) fn log_in(&self, pin: String) -> Result<(), Failure> {
        Ok(self.session.login(UserType::User, Some(&AuthPin::from(pin)))?)
    }

    /// The id of the key that wraps.
    pub(crate) fn current_key(&self) -> Result<String, Failure> {
        self.id_of(self.configured(self.wrapping_class())?)
    }

    /// Wraps a key.
    pub(crate) fn wrap(&self, key: &[u8]) -> Result<Stored, Failure> {
        let with = self.configured(self.wrapping_class())?;
        let key_id = self.id_of(with)?;
        let mut iv = match self.mechanism {
            Mechanism::AesGcm => self.session.generate_random_vec(NONCE)?,
            _ => Vec::new(),
        };
        let blob = self.session.encrypt(&parameters(self.mechanism, &mut iv)?, with, key)?;
        let iv = (!iv.is_empty()).then(|| STANDARD.encode(&iv));
        Ok(Stored { key_id, mechanism: self.mechanism, blob: STANDARD.encode(blob), iv })
    }

    /// Unwraps a key with the key of its id.
    pub(crate) fn unwrap(&self, stored: &Stored) -> Result<Zeroizing<Vec<u8>>, Failure> {
        let wrong = |cause| Failure::new(Class::WrongKey, cause);
        let template = match stored.key_id.split_once(':') {
            Some(("id", hex)) => Attribute::Id(hex::decode(hex).map_err(|_| wrong("the stored id is not hex"))?),
            Some(("label", label)) => Attribute::Label(label.as_bytes().to_vec()),
            _ => return Err(wrong("the stored id has an unknown form")),
        };
        let is_aes = stored.mechanism == Mechanism::AesGcm;
        let class = if is_aes { ObjectClass::SECRET_KEY } else { ObjectClass::PRIVATE_KEY };
        let with = self.find(&[Attribute::Class(class), template])?;
        let with = with.ok_or_else(|| wrong("the HSM has no key with the stored id"))?;
        let blob = STANDARD.decode(&stored.blob).map_err(|_| wrong("the wrapped key is not base64"))?;
        let iv = stored.iv.as_deref().unwrap_or_default();
        let mut iv = STANDARD.decode(iv).map_err(|_| wrong("the nonce is not base64"))?;
        if blob.is_empty()
            || blob.len() > MAX_BLOB
            || is_aes != (iv.len() == NONCE as usize)
            || (!is_aes && !iv.is_empty())
        {
            return Err(wrong("the wrapped key has a wrong length"));
        }
        let opened = self.session.decrypt(&parameters(stored.mechanism, &mut iv)?, with, &blob);
        opened.map(Zeroizing::new).map_err(|error| self.decryption_failure(error))
    }

    /// The failure of a signature or an encryption of an external key. Libraries differ in the code for an input that is too
    /// long, so that any one is a refusal of the input while the session lives: a caller must not end it.
    pub(crate) fn input_failure(&self, error: Error) -> Failure {
        let (rv, function) = match error {
            Error::Pkcs11(rv, function) => (rv, function),
            other => return Failure::from(other),
        };
        let is_of_input = match (&rv, class_of(&rv)) {
            (RvError::DataInvalid | RvError::DataLenRange, _) => true,
            (_, Class::Unreachable) => self.session.get_session_info().is_ok(),
            _ => false,
        };
        match is_of_input {
            true => Failure::new(Class::WrongKey, format!("{rv:?} in {function:?}")),
            false => Failure::from(Error::Pkcs11(rv, function)),
        }
    }

    /// The failure of a decryption.
    pub(crate) fn decryption_failure(&self, error: Error) -> Failure {
        match error {
            // These two also mean that the HSM is gone: then the session is, too.
            Error::Pkcs11(rv @ (RvError::GeneralError | RvError::FunctionFailed), _)
                if self.session.get_session_info().is_err() =>
            {
                Failure::new(Class::Unreachable, format!("{rv:?} in Decrypt, and the session ended"))
            }
            // Libraries differ in the code of a wrong tag or padding.
            Error::Pkcs11(
                rv @ (RvError::GeneralError
                | RvError::FunctionFailed
                | RvError::ArgumentsBad
                | RvError::DataInvalid
                | RvError::DataLenRange
                | RvError::BufferTooSmall),
                _,
            ) => wrong_of(&rv),
            other => Failure::from(other),
        }
    }

    fn wrapping_class(&self) -> ObjectClass {
        if self.mechanism == Mechanism::AesGcm { ObjectClass::SECRET_KEY } else { ObjectClass::PUBLIC_KEY }
    }

    /// The key of the configuration.
    fn configured(&self, class: ObjectClass) -> Result<ObjectHandle, Failure> {
        let found = self.find_named(class, self.label.as_deref(), self.id.as_deref(), "key_id is not hex")?;
        found
            .ok_or_else(|| Failure::new(Class::WrongKey, "the HSM has no key with this label and id for the mechanism"))
    }

    /// The only key of a class with this label and this id in hex, as far as they are given. `not_hex` is the cause of the
    /// failure for another id.
    pub(crate) fn find_named(
        &self,
        class: ObjectClass,
        label: Option<&str>,
        id: Option<&str>,
        not_hex: &str,
    ) -> Result<Option<ObjectHandle>, Failure> {
        let mut template = vec![Attribute::Class(class)];
        template.extend(label.map(|label| Attribute::Label(label.as_bytes().to_vec())));
        if let Some(hex) = id {
            let id = hex::decode(hex).map_err(|_| Failure::new(Class::Misconfigured, not_hex))?;
            template.push(Attribute::Id(id));
        }
        self.find(&template)
    }

    /// The only key of a template.
    fn find(&self, template: &[Attribute]) -> Result<Option<ObjectHandle>, Failure> {
        let found = self.session.find_objects(template)?;
        match found[..] {
            [] => Ok(None),
            [only] => Ok(Some(only)),
            _ => Err(Failure::new(Class::Misconfigured, "several keys of the HSM have this label or id; set key_id")),
        }
    }

    fn id_of(&self, key: ObjectHandle) -> Result<String, Failure> {
        let mut label = None;
        for attribute in self.session.get_attributes(key, &[AttributeType::Id, AttributeType::Label])? {
            match attribute {
                Attribute::Id(id) if !id.is_empty() => return Ok(format!("id:{}", hex::encode(id))),
                Attribute::Label(bytes) => label = String::from_utf8(bytes).ok(),
                _ => {}
            }
        }
        label
            .map(|label| format!("label:{label}"))
            .ok_or_else(|| Failure::new(Class::Misconfigured, "the key has no id"))
    }
}

/// What a token is known by, whichever setting has found it.
fn token_id(manufacturer: &str, model: &str, serial: &str, label: &str) -> String {
    let (serial, label) = (serial.trim_end(), label.trim_end());
    let last = if serial.is_empty() { label } else { serial };
    [manufacturer.trim_end(), model.trim_end(), last].join("\n")
}

fn wrong_of(rv: &RvError) -> Failure {
    Failure::new(Class::WrongKey, format!("{rv:?} in Decrypt"))
}

/// The slot of a token: by number, label and serial number, or the only one.
fn find_slot(
    library: &Pkcs11,
    number: Option<u64>,
    label: Option<&str>,
    serial: Option<&str>,
) -> Result<Slot, Failure> {
    let mut slots = library.get_slots_with_token()?;
    slots.retain(|slot| number.is_none_or(|number| slot.id() == number));
    if let Some(label) = label {
        slots.retain(|slot| library.get_token_info(*slot).is_ok_and(|info| info.label().trim_end() == label));
    }
    if let Some(serial) = serial {
        slots.retain(|slot| library.get_token_info(*slot).is_ok_and(|info| info.serial_number().trim_end() == serial));
    }
    match slots[..] {
        [only] => Ok(only),
        [] => Err(Failure::new(Class::Unreachable, "the HSM has no token with this slot, label and serial number")),
        _ => Err(Failure::new(Class::Misconfigured, "the HSM has several tokens; set slot or token_label")),
    }
}

/// The mechanism with its parameters; an HSM may replace the nonce.
fn parameters(mechanism: Mechanism, iv: &mut [u8]) -> Result<mechanism::Mechanism<'_>, Failure> {
    let hash = match mechanism {
        Mechanism::AesGcm => {
            let params = GcmParams::new(iv, &[], TAG_BITS.into())?;
            return Ok(mechanism::Mechanism::AesGcm(params));
        }
        Mechanism::OaepSha1 => HsmHash::Sha1,
        Mechanism::OaepSha224 => HsmHash::Sha224,
        Mechanism::OaepSha256 => HsmHash::Sha256,
        Mechanism::OaepSha384 => HsmHash::Sha384,
        Mechanism::OaepSha512 => HsmHash::Sha512,
    };
    let (hash, mgf) = hash_of(hash);
    let params = PkcsOaepParams::new(hash, mgf, PkcsOaepSource::empty());
    Ok(mechanism::Mechanism::RsaPkcsOaep(params))
}
