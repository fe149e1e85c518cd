//! Signatures of requests to Alibaba Cloud, version 3: ACS3-HMAC-SHA256.
//!
//! Source: <https://www.alibabacloud.com/help/en/sdk/product-overview/v3-request-structure-and-signature>.

use http::header::{AUTHORIZATION, HOST};
use http::{HeaderValue, Request};
use keepfast_crypto::hash::sha256;
use keepfast_crypto::hmac::HmacKey;
use keepfast_crypto::secret::SecretBytes;
use keepfast_framework::Timestamp;
use keepfast_framework::seal::SealError;

use super::AliCredentials;
use crate::call::{host_of, misconfigured, secret_header};

const ALGORITHM: &str = "ACS3-HMAC-SHA256";

/// Signs a request whose query is sorted and encoded: its method, path and query, its host, all headers that it has now,
/// and its body. A header that is added later is not signed.
///
/// # Errors
/// When a credential or a header cannot be part of a request.
pub(super) fn sign(
    request: &mut Request<SecretBytes>,
    credentials: &AliCredentials,
    now: Timestamp,
    nonce: &str,
) -> Result<(), SealError> {
    let body = hex::encode(sha256(request.body().expose()));
    let text = |value: &str| HeaderValue::from_str(value).map_err(|_| misconfigured("a header is not text"));
    let headers = request.headers_mut();
    headers.insert("x-acs-date", text(&now.rfc3339_seconds())?);
    headers.insert("x-acs-signature-nonce", text(nonce)?);
    headers.insert("x-acs-content-sha256", text(&body)?);
    if let Some(token) = &credentials.security_token {
        headers.insert("x-acs-security-token", secret_header(token.expose())?);
    }
    let mut signed = vec![(HOST.as_str(), host_of(request)?)];
    for (name, value) in request.headers() {
        let value = value.to_str().map_err(|_| misconfigured("a header is not text"))?.trim();
        signed.push((name.as_str(), value.to_owned()));
    }
    signed.sort();
    let lines: String = signed.iter().map(|(name, value)| format!("{name}:{value}\n")).collect();
    let names = signed.iter().map(|(name, _)| *name).collect::<Vec<_>>().join(";");
    let (path, query) = (request.uri().path(), request.uri().query().unwrap_or_default());
    let canonical =
        SecretBytes::new(format!("{}\n{path}\n{query}\n{lines}\n{names}\n{body}", request.method()).into_bytes());
    let digest = hex::encode(sha256(canonical.expose()));
    let key = HmacKey::new(credentials.secret_key.expose().as_bytes());
    let signature = hex::encode(key.mac(format!("{ALGORITHM}\n{digest}").as_bytes()));
    let access_key = &credentials.access_key;
    let value = format!("{ALGORITHM} Credential={access_key},SignedHeaders={names},Signature={signature}");
    request.headers_mut().insert(AUTHORIZATION, secret_header(&value)?);
    Ok(())
}

#[cfg(test)]
mod tests {
    use keepfast_crypto::secret::SecretString;

    use super::*;

    // The example of the documentation.
    #[test]
    fn the_request_of_the_documentation_has_its_signature() {
        let query = "ImageId=win2019_1809_x64_dtc_zh-cn_40G_alibase_20230811.vhd&RegionId=cn-shanghai";
        let request = Request::post(format!("https://ecs.cn-shanghai.aliyuncs.com/?{query}"));
        let request = request.header("x-acs-action", "RunInstances").header("x-acs-version", "2014-05-26");
        let mut request = request.body(SecretBytes::default()).unwrap();
        let credentials = AliCredentials {
            access_key: "YourAccessKeyId".to_owned(),
            secret_key: SecretString::new("YourAccessKeySecret".to_owned()),
            security_token: None,
        };
        let now = Timestamp::parse_rfc3339("2023-10-26T10:22:32Z").unwrap();
        sign(&mut request, &credentials, now, "3156853299f313e23d1673dc12e1703d").unwrap();
        let names = "host;x-acs-action;x-acs-content-sha256;x-acs-date;x-acs-signature-nonce;x-acs-version";
        let signature = "06563a9e1b43f5dfe96b81484da74bceab24a1d853912eee15083a6f0f3283c0";
        let expected =
            format!("ACS3-HMAC-SHA256 Credential=YourAccessKeyId,SignedHeaders={names},Signature={signature}");
        assert_eq!(request.headers()[AUTHORIZATION].to_str().unwrap(), expected);
    }
}
