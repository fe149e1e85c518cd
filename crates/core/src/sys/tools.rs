//! `sys/tools/`: random bytes and hashes.

use base64::Engine as _;
use base64::alphabet;
use base64::engine::general_purpose::{GeneralPurpose, GeneralPurposeConfig, STANDARD};
use keepfast_crypto::keys::digest::Hash;
use keepfast_crypto::random;
use keepfast_framework::fields::{Int, Quoted, Text};
use keepfast_framework::routes::Help;
use keepfast_framework::{Cx, Data, Error, Result, Routes};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::System;

const RANDOM: Help = Help { synopsis: "Generates random bytes.", description: "" };
const HASH: Help = Help { synopsis: "Hashes an input.", description: "" };

/// Reads base64 as OpenBao does: the unused bits of the last character may have any value.
const LENIENT: GeneralPurpose =
    GeneralPurpose::new(&alphabet::STANDARD, GeneralPurposeConfig::new().with_decode_allow_trailing_bits(true));

/// The most random bytes per request.
const MOST: i64 = 128 * 1024;

pub(super) fn routes(r: &mut Routes<System>) {
    r.paths(
        [
            "tools/random",
            "tools/random/{urlbytes}",
            "tools/random/{source|platform|seal|all}",
            "tools/random/{source|platform|seal|all}/{urlbytes}",
        ],
        RANDOM,
    )
    .final_slash()
    .update(random_bytes)
    .here();
    r.paths(["tools/hash", "tools/hash/{urlalgorithm}"], HASH).final_slash().update(hash_input).here();
}

#[derive(Deserialize, JsonSchema)]
struct RandomRequest {
    /// Number of bytes. Default: 32.
    bytes: Option<Int>,
    /// Number of bytes, in the path.
    urlbytes: Option<Text>,
    /// Encoding of the bytes: `base64` or `hex`. Default: `base64`.
    format: Option<Text>,
    /// Source of the bytes. All sources are the same generator; `seal` returns a warning.
    source: Option<Text>,
}

#[derive(Serialize)]
struct RandomResponse {
    random_bytes: String,
}

async fn random_bytes(_: &System, cx: &mut Cx, req: RandomRequest) -> Result<Data<RandomResponse>> {
    let count = match req.urlbytes.filter(|b| !b.is_empty()) {
        Some(text) => text.parse().map_err(|_| {
            Error::invalid(format!(
                "error parsing url-set byte count: strconv.Atoi: parsing {}: invalid syntax",
                Quoted(&text)
            ))
        })?,
        None => req.bytes.map_or(32, |b| b.0),
    };
    if count < 1 {
        return Err(Error::invalid("'bytes' cannot be less than 1"));
    }
    if count > MOST {
        return Err(Error::invalid(format!("'bytes' should be less than {MOST}")));
    }
    let encode = encoding(req.format.as_deref(), "base64").map_err(|named| unsupported(&Quoted(&named).to_string()))?;
    if req.source.as_deref() == Some("seal") {
        cx.warn("no seal/entropy augmentation available, using platform entropy source");
    }
    let mut bytes = vec![0u8; count as usize];
    random::fill(&mut bytes);
    Ok(Data(RandomResponse { random_bytes: encode(&bytes) }))
}

/// OpenBao quotes the name in one of its two paths.
fn unsupported(named: &str) -> Error {
    Error::invalid(format!("unsupported encoding format {named}; must be \"hex\" or \"base64\""))
}

fn encoding(format: Option<&str>, default: &str) -> Result<fn(&[u8]) -> String, String> {
    match format.unwrap_or(default) {
        "hex" => Ok(|b| hex::encode(b)),
        "base64" => Ok(|b| STANDARD.encode(b)),
        other => Err(other.to_owned()),
    }
}

#[derive(Deserialize, JsonSchema)]
struct HashRequest {
    /// The input in base64.
    input: Option<Text>,
    /// Hash algorithm: `sha2-224` to `sha2-512` or `sha3-224` to `sha3-512`. Default: `sha2-256`.
    algorithm: Option<Text>,
    /// Hash algorithm, in the path.
    urlalgorithm: Option<Text>,
    /// Encoding of the hash: `hex` or `base64`. Default: `hex`.
    format: Option<Text>,
}

#[derive(Serialize)]
struct HashResponse {
    sum: String,
}

async fn hash_input(_: &System, _: &mut Cx, req: HashRequest) -> Result<Data<HashResponse>> {
    let input = LENIENT
        .decode(req.input.as_deref().unwrap_or_default())
        .map_err(|e| Error::invalid(format!("unable to decode input as base64: {}", base64_fault(&e))))?;
    let encode = encoding(req.format.as_deref(), "hex").map_err(|named| unsupported(&named))?;
    // An empty name is an unknown algorithm; only a missing one means the default.
    let named = req.urlalgorithm.filter(|a| !a.is_empty()).or(req.algorithm);
    let named = named.as_deref().unwrap_or("sha2-256");
    // SHA-1 is only for transit's HMACs and not for plain hashes.
    let hash = Hash::from_name(named).filter(|hash| *hash != Hash::Sha1);
    let hash = hash.ok_or_else(|| Error::invalid(format!("unsupported algorithm {named}")))?;
    Ok(Data(HashResponse { sum: encode(&hash.digest(&input)) }))
}

/// OpenBao's error text, which has the position and not the byte.
pub(super) fn base64_fault(error: &base64::DecodeError) -> String {
    let at = match error {
        base64::DecodeError::InvalidByte(at, _) | base64::DecodeError::InvalidLastSymbol(at, _) => *at,
        base64::DecodeError::InvalidLength(length) => length / 4 * 4,
        base64::DecodeError::InvalidPadding => 0,
    };
    format!("illegal base64 data at input byte {at}")
}
