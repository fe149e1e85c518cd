//! Signatures of requests to Oracle Cloud: RSA-SHA256 over headers.
//!
//! Source: <https://docs.oracle.com/iaas/Content/API/Concepts/signingrequests.htm>.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use http::header::{AUTHORIZATION, CONTENT_LENGTH, CONTENT_TYPE, DATE, HOST};
use http::{HeaderValue, Method, Request};
use jiff::fmt::rfc2822::DateTimePrinter;
use keepfast_crypto::hash::sha256;
use keepfast_crypto::keys::digest::Hash;
use keepfast_crypto::keys::rsa::RsaScheme;
use keepfast_crypto::secret::SecretBytes;
use keepfast_framework::Timestamp;
use keepfast_framework::seal::SealError;

use super::OciSigner;
use crate::call::{host_of, misconfigured, secret_header};

/// Signs a request: date, method, path and query; the host unless it is a request of a token; with a body also its
/// length, type and SHA-256.
///
/// # Errors
/// When the key cannot sign, or a header is not text.
pub(super) fn sign(
    request: &mut Request<SecretBytes>,
    signer: &OciSigner,
    now: Timestamp,
    is_token_request: bool,
) -> Result<(), SealError> {
    let text = |value: String| HeaderValue::from_str(&value).map_err(|_| misconfigured("a header is not text"));
    let time = jiff::Timestamp::from_second(now.unix()).map_err(|_| misconfigured("the time is invalid"))?;
    let date = DateTimePrinter::new().timestamp_to_rfc9110_string(&time);
    let date = date.map_err(|_| misconfigured("the time is invalid"))?;
    let target = request.uri().path_and_query().map_or("/", http::uri::PathAndQuery::as_str);
    let target = format!("{} {target}", request.method().as_str().to_ascii_lowercase());
    let mut signed = vec![("date", date.clone()), ("(request-target)", target)];
    if !is_token_request {
        signed.push((HOST.as_str(), host_of(request)?));
    }
    let has_body = request.method() == Method::POST;
    let (length, digest) = (request.body().expose().len(), STANDARD.encode(sha256(request.body().expose())));
    let headers = request.headers_mut();
    headers.insert(DATE, text(date)?);
    if has_body {
        headers.insert(CONTENT_LENGTH, text(length.to_string())?);
        headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
        headers.insert("x-content-sha256", text(digest.clone())?);
        signed.push((CONTENT_LENGTH.as_str(), length.to_string()));
        signed.push((CONTENT_TYPE.as_str(), "application/json".to_owned()));
        signed.push(("x-content-sha256", digest));
    }
    let lines: Vec<String> = signed.iter().map(|(name, value)| format!("{name}: {value}")).collect();
    let digest = Hash::Sha256.digest(lines.join("\n").as_bytes());
    let signature = signer.key.sign(RsaScheme::Pkcs1(Some(Hash::Sha256)), &digest);
    let signature = STANDARD.encode(signature.map_err(|_| misconfigured("the API key cannot sign"))?);
    let names = signed.iter().map(|(name, _)| *name).collect::<Vec<_>>().join(" ");
    let key_id = &signer.key_id;
    let value = format!(
        "Signature version=\"1\",keyId=\"{key_id}\",algorithm=\"rsa-sha256\",headers=\"{names}\",signature=\"{signature}\""
    );
    request.headers_mut().insert(AUTHORIZATION, secret_header(&value)?);
    Ok(())
}
