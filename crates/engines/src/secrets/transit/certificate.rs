//! `keys/NAME/csr` and `keys/NAME/set-certificate`: certificate requests and chains of a key (RFC 2986, RFC 5280).

use keepfast_crypto::keys::der::{self, Element};
use keepfast_crypto::keys::digest::Hash;
use keepfast_crypto::keys::ecdsa::{Curve, Marshaling};
use keepfast_crypto::keys::rsa::RsaScheme;
use keepfast_crypto::keys::{Key, KeyError, KeyKind, pem};
use keepfast_framework::fields::{Int, Text, given};
use keepfast_framework::{Cx, Data, Error, Result};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::Transit;
use super::key_response::certificate_chain;
use super::keys::check_name;
use super::named_key::{KEYS, KeyRecord, load};
use super::stored::Material;

#[derive(Deserialize, JsonSchema)]
pub(super) struct Request {
    /// Name of the key.
    name: Text,
    /// Version of the key; the latest when absent.
    #[serde(default, deserialize_with = "given")]
    version: Option<Int>,
    /// PEM of a request whose subject and attributes are copied.
    csr: Option<Text>,
}

#[derive(Deserialize, JsonSchema)]
pub(super) struct Set {
    /// Name of the key.
    name: Text,
    /// Version of the key; the latest when absent.
    #[serde(default, deserialize_with = "given")]
    version: Option<Int>,
    /// PEM of the certificates, that of the key first.
    certificate_chain: Option<Text>,
}

#[derive(Serialize)]
pub(super) struct CsrResponse {
    csr: String,
    name: String,
    #[serde(rename = "type")]
    kind: &'static str,
}

#[derive(Serialize)]
pub(super) struct ChainResponse {
    certificate_chain: String,
    name: String,
    #[serde(rename = "type")]
    kind: &'static str,
}

/// An empty subject and empty attributes, for a request without a template.
const BLANK: (&[u8], &[u8]) = (&[0x30, 0x00], &[0xa0, 0x00]);

pub(super) async fn request(transit: &Transit, cx: &mut Cx, req: Request) -> Result<Data<CsrResponse>> {
    let name = check_name(&req.name)?;
    let named_key = transit.key_cache.get(cx, name).await?;
    let named_key = named_key.ok_or_else(|| Error::invalid(format!("key with provided name '{name}' not found")))?;
    signing_only(&named_key.record)?;
    // OpenBao signs a request with a soft-deleted key; here such a key is never used.
    named_key.record.usable()?;
    let template = match req.csr.as_deref().filter(|text| !text.is_empty()) {
        Some(text) => Some(pem::decode(text).ok_or_else(|| Error::invalid("could not decode PEM CSR"))?.1),
        None => None,
    };
    let (subject, attributes) = match &template {
        Some(der) => template_parts(der).ok_or_else(|| Error::invalid("could not parse the provided template CSR"))?,
        None => BLANK,
    };
    let none = || Error::invalid("could not create the csr: no such key version");
    let version = select_version(&named_key.record, req.version).ok_or_else(none)?;
    let key = named_key.key(version).map_err(Error::internal)?.ok_or_else(none)?;
    let signed = signed_request(key, subject, attributes).map_err(|why| match why {
        KeyError::PublicOnly => {
            Error::invalid("could not create the csr: the key version does not have a private part")
        }
        KeyError::Unsupported => Error::invalid("certificate requests are not supported for this type of key"),
        other => Error::internal(other),
    })?;
    let csr = pem::encode("CERTIFICATE REQUEST", &signed);
    Ok(Data(CsrResponse { csr, name: name.to_owned(), kind: named_key.record.kind.name() }))
}

fn signing_only(key: &KeyRecord) -> Result<()> {
    if !key.kind.signs() || key.kind == KeyKind::External {
        return Err(Error::invalid(format!("key type '{}' does not support signing", key.kind.name())));
    }
    if key.derived {
        return Err(Error::invalid("operation not supported for keys with derivation enabled"));
    }
    Ok(())
}

/// The requested version, if it exists.
fn select_version(key: &KeyRecord, requested: Option<Int>) -> Option<u32> {
    let version = match requested {
        None => key.latest,
        Some(Int(version)) => u32::try_from(version).ok()?,
    };
    key.live_version(version).map(|_| version)
}

/// The subject and the attributes of a request in DER.
fn template_parts(csr: &[u8]) -> Option<(&[u8], &[u8])> {
    let outer = der::whole(csr, der::SEQUENCE)?;
    let info = der::read(outer.content)?.0;
    let [_version, subject, _key, attributes] = der::children(info.content)?[..] else { return None };
    (subject.tag == der::SEQUENCE && attributes.tag == 0xa0).then_some((subject.whole, attributes.whole))
}

/// A certification request by `key`, in DER.
fn signed_request(key: &Key, subject: &[u8], attributes: &[u8]) -> Result<Vec<u8>, KeyError> {
    let spki = key.spki()?;
    let version = [0x02, 0x01, 0x00];
    let info = der::write(der::SEQUENCE, &[&version, subject, &spki, attributes].concat());
    let (algorithm, signature): (&[u8], Vec<u8>) = match key {
        // sha256WithRSAEncryption, ecdsa-with-SHA2, Ed25519
        Key::Rsa(key) => (
            &[0x30, 0x0d, 6, 9, 0x2a, 0x86, 0x48, 0x86, 0xf7, 0x0d, 1, 1, 0x0b, 5, 0],
            key.sign(RsaScheme::Pkcs1(Some(Hash::Sha256)), &Hash::Sha256.digest(&info))?,
        ),
        Key::Ecdsa(key) => {
            let (hash, algorithm): (Hash, &[u8]) = match key.curve() {
                Curve::P224 | Curve::P256 => (Hash::Sha256, &[0x30, 0x0a, 6, 8, 0x2a, 0x86, 0x48, 0xce, 0x3d, 4, 3, 2]),
                Curve::P384 => (Hash::Sha384, &[0x30, 0x0a, 6, 8, 0x2a, 0x86, 0x48, 0xce, 0x3d, 4, 3, 3]),
                Curve::P521 => (Hash::Sha512, &[0x30, 0x0a, 6, 8, 0x2a, 0x86, 0x48, 0xce, 0x3d, 4, 3, 4]),
            };
            (algorithm, key.sign(&hash.digest(&info), Marshaling::Asn1)?)
        }
        Key::Ed25519(key) => (&[0x30, 5, 6, 3, 0x2b, 0x65, 0x70], key.sign(&info)?),
        _ => return Err(KeyError::Unsupported),
    };
    let signature = der::write(0x03, &[&[0], signature.as_slice()].concat());
    Ok(der::write(der::SEQUENCE, &[info.as_slice(), algorithm, &signature].concat()))
}

pub(super) async fn set(_: &Transit, cx: &mut Cx, req: Set) -> Result<Data<ChainResponse>> {
    let name = check_name(&req.name)?;
    let Some(mut key) = KEYS.get(cx, name).await? else {
        return Err(Error::invalid(format!("key with provided name '{name}' not found")));
    };
    signing_only(&key)?;
    let chain = certificates(req.certificate_chain.as_deref().unwrap_or_default())?;
    let refused = |why: &str| Error::invalid(format!("failed to persist certificate chain: {why}"));
    let parsed: Option<Vec<Certificate<'_>>> = chain.iter().map(|der| Certificate::read(der)).collect();
    let parsed = parsed.ok_or_else(|| Error::invalid("provided certificate chain has a malformed certificate"))?;
    let (Some(leaf), Some(last)) = (parsed.first(), parsed.last()) else {
        return Err(Error::invalid("provided certificate chain did not contain any valid PEM encoded certificate"));
    };
    if leaf.is_ca {
        return Err(refused("certificate in the first element is not a valid leaf certificate"));
    }
    if parsed.len() > 1 && !last.is_ca {
        return Err(refused("certificate in the last element is not a valid CA certificate"));
    }
    let version = select_version(&key, req.version).ok_or_else(|| refused("no such key version"))?;
    let kind = key.kind;
    let stored = key.versions.get_mut(&version).ok_or_else(|| refused("no such key version"))?;
    let spki = load(kind, stored).map_err(Error::internal)?.spki().map_err(|why| match why {
        KeyError::Unsupported => refused("certificates are not supported for this type of key"),
        other => Error::internal(other),
    })?;
    if leaf.spki != spki {
        return Err(refused("leaf certificate public key does not match the selected key version"));
    }
    stored.certificates = chain.iter().map(|der| Material::new(der)).collect();
    let certificate_chain = certificate_chain(stored);
    KEYS.put(cx, name, &key)?;
    Ok(Data(ChainResponse { certificate_chain, name: name.to_owned(), kind: kind.name() }))
}

/// The certificates of a PEM text; other blocks are refused.
fn certificates(text: &str) -> Result<Vec<Vec<u8>>> {
    let blocks: Vec<(&str, Vec<u8>)> = pem::decode_all(text).collect();
    let read: usize = text.matches("-----BEGIN ").count();
    let ends_well = text.trim_end().is_empty() || text.trim_end().ends_with("-----");
    if blocks.len() != read || !ends_well {
        return Err(Error::invalid("could not decode a PEM block in the certificate chain"));
    }
    let certificates: Vec<Vec<u8>> =
        blocks.into_iter().filter(|(label, _)| *label == "CERTIFICATE").map(|(_, der)| der).collect();
    if certificates.is_empty() {
        return Err(Error::invalid("provided certificate chain did not contain any valid PEM encoded certificate"));
    }
    Ok(certificates)
}

/// The checked parts of a certificate.
struct Certificate<'a> {
    /// SubjectPublicKeyInfo.
    spki: &'a [u8],
    /// Whether the basic constraints mark it as a CA.
    is_ca: bool,
}

impl<'a> Certificate<'a> {
    fn read(certificate: &'a [u8]) -> Option<Self> {
        let outer = der::whole(certificate, der::SEQUENCE)?;
        let fields = der::children(der::read(outer.content)?.0.content)?;
        // Version 1 certificates have no [0], so their fields start one position earlier.
        let from = usize::from(fields.first()?.tag == 0xa0);
        let spki = fields.get(from + 5).filter(|spki| spki.tag == der::SEQUENCE)?;
        let extensions = fields.iter().find(|field| field.tag == 0xa3);
        let is_ca = extensions.map_or(Some(false), |extensions| is_ca(extensions.content))?;
        Some(Certificate { spki: spki.whole, is_ca })
    }
}

/// Whether the extensions mark the certificate as a CA.
fn is_ca(extensions: &[u8]) -> Option<bool> {
    const BASIC_CONSTRAINTS: &[u8] = &[0x55, 0x1d, 0x13];
    for extension in der::children(der::read(extensions)?.0.content)? {
        let parts: Vec<Element<'_>> = der::children(extension.content)?;
        if parts.first()?.content == BASIC_CONSTRAINTS {
            let constraints = der::read(parts.last()?.content)?.0;
            return Some(
                der::children(constraints.content)?.iter().any(|part| part.tag == 1 && part.content == [0xff]),
            );
        }
    }
    Some(false)
}

/// Whether the bytes parse as a certificate or as a request, for tests with arbitrary bytes.
#[cfg(test)]
pub(super) fn parses(bytes: &[u8]) -> bool {
    Certificate::read(bytes).is_some() || template_parts(bytes).is_some()
}
