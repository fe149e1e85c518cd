//! Signatures of requests to AWS, version 4.
//!
//! Source: <https://docs.aws.amazon.com/IAM/latest/UserGuide/reference_sigv-create-signed-request.html>.

use http::header::{AUTHORIZATION, HOST};
use http::{HeaderValue, Request};
use keepfast_crypto::hash::sha256;
use keepfast_crypto::hmac::HmacKey;
use keepfast_crypto::secret::SecretBytes;
use keepfast_framework::Timestamp;
use keepfast_framework::seal::SealError;

use super::AwsCredentials;
use crate::call::{host_of, misconfigured, secret_header};

const ALGORITHM: &str = "AWS4-HMAC-SHA256";

/// Signs a request: all of its headers, its host and its body. Its path is `/` or needs no encoding, and it has no query.
///
/// # Errors
/// When a credential or a header cannot be part of a request.
pub(super) fn sign(
    request: &mut Request<SecretBytes>,
    credentials: &AwsCredentials,
    (region, service): (&str, &str),
    now: Timestamp,
) -> Result<(), SealError> {
    let time: String = now.rfc3339_seconds().chars().filter(|c| !"-:".contains(*c)).collect();
    let date = &time[..time.len().min(8)];
    let headers = request.headers_mut();
    headers.insert("x-amz-date", HeaderValue::from_str(&time).map_err(|_| misconfigured("the time is invalid"))?);
    if let Some(token) = &credentials.session_token {
        headers.insert("x-amz-security-token", secret_header(token.expose())?);
    }
    let (canonical, signed) = canonical_request(request)?;
    let scope = format!("{date}/{region}/{service}/aws4_request");
    let text = format!("{ALGORITHM}\n{time}\n{scope}\n{}", hex::encode(sha256(canonical.as_bytes())));
    let mut key = SecretBytes::new([b"AWS4", credentials.secret_key.expose().as_bytes()].concat());
    for part in [date, region, service, "aws4_request"] {
        key = SecretBytes::new(HmacKey::new(key.expose()).mac(part.as_bytes()).to_vec());
    }
    let signature = hex::encode(HmacKey::new(key.expose()).mac(text.as_bytes()));
    let access_key = &credentials.access_key;
    let value = format!("{ALGORITHM} Credential={access_key}/{scope}, SignedHeaders={signed}, Signature={signature}");
    request.headers_mut().insert(AUTHORIZATION, secret_header(&value)?);
    Ok(())
}

/// The canonical request, and the names of the signed headers.
fn canonical_request(request: &Request<SecretBytes>) -> Result<(String, String), SealError> {
    let mut headers = vec![(HOST.as_str(), host_of(request)?)];
    for (name, value) in request.headers() {
        let value = value.to_str().map_err(|_| misconfigured("a header is not text"))?;
        headers.push((name.as_str(), value.split_whitespace().collect::<Vec<_>>().join(" ")));
    }
    headers.sort();
    let lines: String = headers.iter().map(|(name, value)| format!("{name}:{value}\n")).collect();
    let names = headers.iter().map(|(name, _)| *name).collect::<Vec<_>>().join(";");
    let body = hex::encode(sha256(request.body().expose()));
    let canonical = format!("{}\n{}\n\n{lines}\n{names}\n{body}", request.method(), request.uri().path());
    Ok((canonical, names))
}

#[cfg(test)]
mod tests {
    use keepfast_crypto::secret::SecretString;

    use super::*;

    fn example(session_token: Option<&str>) -> AwsCredentials {
        AwsCredentials {
            access_key: "AKIDEXAMPLE".to_owned(),
            secret_key: SecretString::new("wJalrXUtnFEMI/K7MDENG+bPxRfiCYEXAMPLEKEY".to_owned()),
            session_token: session_token.map(|token| SecretString::new(token.to_owned())),
        }
    }

    fn signature(method: &str, headers: &[(&str, &str)], body: &str) -> String {
        let mut request = Request::builder().method(method).uri("https://example.amazonaws.com/");
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        let mut request = request.body(SecretBytes::new(body.as_bytes().to_vec())).unwrap();
        let now = Timestamp::parse_rfc3339("2015-08-30T12:36:00Z").unwrap();
        sign(&mut request, &example(None), ("us-east-1", "service"), now).unwrap();
        request.headers()[AUTHORIZATION].to_str().unwrap().to_owned()
    }

    // The cases get-vanilla, post-vanilla, post-header-key-sort and post-x-www-form-urlencoded of AWS's test suite.
    #[test]
    fn requests_of_the_test_suite_of_aws_have_their_signatures() {
        let form = ("content-type", "application/x-www-form-urlencoded");
        for (method, headers, body, names, expected) in [
            ("GET", &[][..], "", "host;x-amz-date", "5fa00fa31553b73ebf1942676e86291e8372ff2a2260956d9b8aae1d763fbf31"),
            ("POST", &[], "", "host;x-amz-date", "5da7c1a2acd57cee7505fc6676e4e544621c30862966e37dddb68e92efbe5d6b"),
            (
                "POST",
                &[("my-header1", "value1")],
                "",
                "host;my-header1;x-amz-date",
                "c5410059b04c1ee005303aed430f6e6645f61f4dc9e1461ec8f8916fdf18852c",
            ),
            (
                "POST",
                &[form],
                "Param1=value1",
                "content-type;host;x-amz-date",
                "ff11897932ad3f4e8b18135d722051e5ac45fc38421b1da7b9d196a0fe09473a",
            ),
        ] {
            let scope = "Credential=AKIDEXAMPLE/20150830/us-east-1/service/aws4_request";
            let whole = format!("AWS4-HMAC-SHA256 {scope}, SignedHeaders={names}, Signature={expected}");
            assert_eq!(signature(method, headers, body), whole);
        }
    }

    #[test]
    fn a_session_token_is_signed() {
        let mut request = Request::post("https://h/").body(SecretBytes::default()).unwrap();
        sign(&mut request, &example(Some("hidden")), ("r", "s"), Timestamp::EPOCH).unwrap();
        let authorization = request.headers()[AUTHORIZATION].to_str().unwrap();
        assert!(authorization.contains("SignedHeaders=host;x-amz-date;x-amz-security-token,"), "{authorization}");
        assert!(!format!("{:?}", request.headers()).contains("hidden"));
    }

    #[test]
    fn the_signed_host_has_a_port_that_is_not_the_default() {
        for (url, host) in [
            ("https://h/", "h"),
            ("https://h:443/", "h"),
            ("http://h:80/", "h"),
            ("http://h:443/", "h:443"),
            ("http://127.0.0.1:5000/", "127.0.0.1:5000"),
        ] {
            assert_eq!(host_of(&Request::get(url).body(()).unwrap()).unwrap(), host);
        }
    }
}
