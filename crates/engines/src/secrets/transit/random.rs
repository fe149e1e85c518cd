//! `random` and `hash`: random bytes and digests, without a key.

use keepfast_crypto::keys::digest::Hash;
use keepfast_crypto::random;
use keepfast_framework::fields::{Int, Quoted, Text, given};
use keepfast_framework::{Cx, Data, Error, Result};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::{Transit, codec};

/// The maximum number of bytes per request.
const MAX_BYTES: i64 = 131_072;

#[derive(Deserialize, JsonSchema)]
pub(super) struct Random {
    /// Source of the bytes, `platform`, `seal` or `all`, which are the same generator; or the number of bytes.
    source: Option<Text>,
    /// Number of bytes, in the path.
    urlbytes: Option<Text>,
    /// Number of bytes. Default: 32.
    #[serde(default, deserialize_with = "given")]
    bytes: Option<Int>,
    /// Encoding of the bytes: `base64` or `hex`. Default: `base64`.
    #[serde(default, deserialize_with = "given")]
    format: Option<Text>,
}

#[derive(Serialize)]
pub(super) struct RandomBytes {
    random_bytes: String,
}

#[derive(Deserialize, JsonSchema)]
pub(super) struct HashRequest {
    /// Hash function, in the path.
    urlalgorithm: Option<Text>,
    /// Hash function; sha2-256 when absent.
    #[serde(default, deserialize_with = "given")]
    algorithm: Option<Text>,
    /// Base64 of the input.
    #[serde(default, deserialize_with = "given")]
    input: Option<Text>,
    /// Encoding of the hash: `hex` or `base64`. Default: `hex`.
    #[serde(default, deserialize_with = "given")]
    format: Option<Text>,
}

#[derive(Serialize)]
pub(super) struct Sum {
    sum: String,
}

pub(super) async fn random(_: &Transit, cx: &mut Cx, req: Random) -> Result<Data<RandomBytes>> {
    // Only the path can give the source.
    let in_body = cx.request().path.ends_with("random");
    let urlbytes = req.urlbytes.as_deref().filter(|number| !number.is_empty());
    let (source, requested) = match (req.source.as_deref().filter(|_| !in_body), urlbytes) {
        (None, _) => ("platform", None),
        (Some(known @ ("platform" | "seal" | "all")), requested) => (known, requested),
        // A single segment is the source or the number.
        (Some(number), None) => ("platform", Some(number)),
        (Some(other), requested) => (other, requested),
    };
    let count = match requested {
        Some(number) => number.parse().map_err(|_| {
            Error::invalid(format!(
                "error parsing url-set byte count: strconv.Atoi: parsing {}: invalid syntax",
                Quoted(number)
            ))
        })?,
        None => req.bytes.map_or(32, |bytes| bytes.0),
    };
    if count < 1 {
        return Err(Error::invalid("'bytes' cannot be less than 1"));
    }
    if count > MAX_BYTES {
        return Err(Error::invalid(format!("'bytes' should be less than {MAX_BYTES}")));
    }
    if !matches!(source, "platform" | "seal" | "all") {
        let why =
            format!("unsupported entropy source {}; must be \"platform\" or \"seal\", or \"all\"", Quoted(source));
        return Err(Error::invalid(why));
    }
    let hex = is_hex(req.format.as_deref().unwrap_or("base64"), |format| {
        format!("unsupported encoding format {}; must be \"hex\" or \"base64\"", Quoted(format))
    })?;
    if source == "seal" {
        cx.warn("no seal/entropy augmentation available, using platform entropy source");
    }
    let mut bytes = vec![0; usize::try_from(count).unwrap_or_default()];
    random::fill(&mut bytes);
    Ok(Data(RandomBytes { random_bytes: text(&bytes, hex) }))
}

pub(super) async fn hash(_: &Transit, _: &mut Cx, req: HashRequest) -> Result<Data<Sum>> {
    let input = req.input.ok_or_else(|| Error::invalid("input missing"))?;
    let input =
        codec::decode(&input).map_err(|why| Error::invalid(format!("unable to decode input as base64: {why}")))?;
    let hex = is_hex(req.format.as_deref().unwrap_or("hex"), |format| {
        format!("unsupported encoding format {format}; must be \"hex\" or \"base64\"")
    })?;
    let name = req
        .urlalgorithm
        .filter(|name| !name.is_empty())
        .or(req.algorithm)
        .map_or_else(|| "sha2-256".to_owned(), String::from);
    // No SHA-1, as in OpenBao: old signatures need it, new digests do not.
    let hash = Hash::from_name(&name).filter(|hash| *hash != Hash::Sha1);
    let hash = hash.ok_or_else(|| Error::invalid(format!("unsupported algorithm {name}")))?;
    Ok(Data(Sum { sum: text(&hash.digest(&input), hex) }))
}

/// Whether the format is hexadecimal.
fn is_hex(format: &str, message: impl Fn(&str) -> String) -> Result<bool> {
    match format {
        "hex" => Ok(true),
        "base64" => Ok(false),
        other => Err(Error::invalid(message(other))),
    }
}

fn text(bytes: &[u8], hex: bool) -> String {
    if hex { hex::encode(bytes) } else { codec::encode(bytes) }
}
