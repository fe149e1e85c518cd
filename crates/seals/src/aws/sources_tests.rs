//! Each source of credentials against a stand-in in the form of its service; the seal then signs with what it got.

use std::sync::Arc;

use keepfast_crypto::random;
use keepfast_framework::seal::{Seal, SealErrorClass};
use serde_json::json;

use super::AwsCredentials;
use super::kms_tests::{Kms, accepted, is_signed};
use crate::stand_in::{Received, StandIn};
use crate::suite::{build, build_beside};
use keepfast_crypto::secret::SecretString;

/// STS, the metadata of a container and of an instance, and KMS, at one address.
fn respond(kms: &Kms, received: &Received) -> (u16, String) {
    let good = accepted();
    let session = good.session_token.as_ref().map(|token| token.expose().clone()).unwrap_or_default();
    let (access_key, secret) = (good.access_key.clone(), good.secret_key.expose().clone());
    let document = json!({
        "Code": "Success", "AccessKeyId": access_key, "SecretAccessKey": secret, "Token": session,
        "Expiration": "2026-01-01T06:00:00Z",
    });
    let sts = |action: &str| {
        let fields = format!(
            "<AccessKeyId>{access_key}</AccessKeyId><SecretAccessKey>{secret}</SecretAccessKey>\
             <SessionToken>{session}</SessionToken><Expiration>2026-01-01T06:00:00Z</Expiration>"
        );
        (
            200,
            format!(
                "<{action}Response><{action}Result><Credentials>{fields}</Credentials></{action}Result></{action}Response>"
            ),
        )
    };
    let refused = (403, "<ErrorResponse><Error><Code>AccessDenied</Code></Error></ErrorResponse>".to_owned());
    match (received.uri.path(), received.form("Action").as_str()) {
        ("/sts/", "AssumeRoleWithWebIdentity") if received.form("WebIdentityToken") == "to+ken/=" => {
            sts("AssumeRoleWithWebIdentity")
        }
        ("/sts/", "AssumeRole") => {
            let by = AwsCredentials {
                access_key: "BASE".to_owned(),
                secret_key: SecretString::new("base-secret".to_owned()),
                session_token: None,
            };
            if is_signed(received, &by, "eu-west-1", "sts") && received.form("ExternalId") == "e 1" {
                sts("AssumeRole")
            } else {
                refused
            }
        }
        ("/sts/", _) => refused,
        ("/container", _) if received.header("authorization") == "container-token" => (200, document.to_string()),
        ("/latest/api/token", _) if received.method == "PUT" => (200, "metadata-token".to_owned()),
        (path, _)
            if path.starts_with("/latest/") && received.header("x-aws-ec2-metadata-token") != "metadata-token" =>
        {
            (401, String::new())
        }
        ("/latest/meta-data/iam/security-credentials/", _) => (200, "the-role".to_owned()),
        ("/latest/meta-data/iam/security-credentials/the-role", _) => (200, document.to_string()),
        ("/", _) => kms.respond(received),
        _ => (404, String::new()),
    }
}

async fn services() -> StandIn {
    let kms = Kms::new();
    StandIn::start(move |received| respond(&kms, received)).await
}

fn seal(url: &str, variables: &[(&str, &str)]) -> Arc<dyn Seal> {
    let keys = [("region", "eu-west-1"), ("kms_key_id", "1"), ("endpoint", url)];
    let home = tempfile::tempdir().unwrap().keep().display().to_string();
    let sts = format!("{url}/sts");
    let mut all =
        vec![("AWS_ENDPOINT_URL_STS", sts.as_str()), ("AWS_EC2_METADATA_SERVICE_ENDPOINT", url), ("HOME", &home)];
    all.extend(variables);
    build("awskms", &keys, &all).unwrap()
}

async fn wraps(seal: &dyn Seal) {
    let key = random::key();
    let wrapped = seal.wrap(&key).await.unwrap();
    assert_eq!(seal.unwrap(&wrapped).await.unwrap().expose(), key.expose());
}

fn written(text: &str) -> (tempfile::NamedTempFile, String) {
    let file = tempfile::NamedTempFile::new().unwrap();
    std::fs::write(file.path(), text).unwrap();
    let path = file.path().display().to_string();
    (file, path)
}

#[tokio::test]
async fn credentials_of_variables_sign() {
    let service = services().await;
    let variables = [
        ("AWS_ACCESS_KEY_ID", "AKID"),
        ("AWS_SECRET_ACCESS_KEY", "hidden-secret"),
        ("AWS_SESSION_TOKEN", "hidden-session"),
    ];
    wraps(&*seal(&service.url, &variables)).await;
}

#[tokio::test]
async fn a_web_identity_is_exchanged_for_credentials() {
    let service = services().await;
    let (_file, path) = written("to+ken/=\n");
    let variables = [("AWS_WEB_IDENTITY_TOKEN_FILE", path.as_str()), ("AWS_ROLE_ARN", "arn:aws:iam::1:role/r")];
    wraps(&*seal(&service.url, &variables)).await;
    assert_eq!(service.calls().iter().filter(|call| call.ends_with("/sts/")).count(), 1);
    let (_file, path) = written("another");
    let variables = [("AWS_WEB_IDENTITY_TOKEN_FILE", path.as_str()), ("AWS_ROLE_ARN", "arn:aws:iam::1:role/r")];
    let error = seal(&service.url, &variables).wrap(&random::key()).await.err().unwrap();
    assert_eq!((error.class, error.cause.as_str()), (SealErrorClass::Denied, "AccessDenied"));
}

#[tokio::test]
async fn a_profile_assumes_the_role_of_its_source_profile() {
    let service = services().await;
    let (_credentials, credentials) = written("[base]\naws_access_key_id=BASE\naws_secret_access_key=base-secret\n");
    let (_config, config) = written(
        "[profile app]\nrole_arn=arn:aws:iam::1:role/r\nsource_profile=base\nexternal_id=e 1\n\
         [profile loop]\nrole_arn=r\nsource_profile=loop2\n[profile loop2]\nrole_arn=r\nsource_profile=loop\n",
    );
    let variables = |profile| {
        [("AWS_PROFILE", profile), ("AWS_SHARED_CREDENTIALS_FILE", credentials.as_str()), ("AWS_CONFIG_FILE", &config)]
    };
    wraps(&*seal(&service.url, &variables("app"))).await;
    let error = seal(&service.url, &variables("loop")).wrap(&random::key()).await.err().unwrap();
    assert!(error.class == SealErrorClass::Misconfigured && error.cause.contains("too long"), "{error}");
}

#[tokio::test]
async fn a_container_gives_credentials_for_its_token() {
    let service = services().await;
    let url = format!("{}/container", service.url);
    let (_file, path) = written("container-token\n");
    for token in
        [("AWS_CONTAINER_AUTHORIZATION_TOKEN", "container-token"), ("AWS_CONTAINER_AUTHORIZATION_TOKEN_FILE", &path)]
    {
        wraps(&*seal(&service.url, &[("AWS_CONTAINER_CREDENTIALS_FULL_URI", &url), token])).await;
    }
    let keys = [("kms_key_id", "1")];
    for url in ["http://metadata.example/", "http://10.0.0.1/", "not a url"] {
        let refused = build("awskms", &keys, &[("AWS_CONTAINER_CREDENTIALS_FULL_URI", url)]);
        assert!(refused.err().unwrap().to_string().contains("AWS_CONTAINER_CREDENTIALS_FULL_URI"), "{url}");
    }
}

#[tokio::test]
async fn an_instance_gives_credentials_of_its_role() {
    let service = services().await;
    wraps(&*seal(&service.url, &[])).await;
    let error = seal(&service.url, &[("AWS_EC2_METADATA_DISABLED", "true")]).wrap(&random::key()).await.err().unwrap();
    assert_eq!(error.class, SealErrorClass::Denied);
}

#[tokio::test]
async fn beside_another_seal_the_platform_names_the_identity() {
    let service = services().await;
    let (_file, path) = written("to+ken/=\n");
    let sts = format!("{}/sts", service.url);
    let variables = [
        ("AWS_WEB_IDENTITY_TOKEN_FILE", path.as_str()),
        ("AWS_ROLE_ARN", "arn:aws:iam::1:role/r"),
        ("AWS_ENDPOINT_URL_STS", &sts),
        // Without a suffix they may belong to the other seal.
        ("AWS_ACCESS_KEY_ID", "OTHER"),
        ("AWS_SECRET_ACCESS_KEY", "hidden-other"),
        ("AWS_REGION", "eu-central-1"),
    ];
    let keys = [("kms_key_id", "1"), ("endpoint", service.url.as_str()), ("region", "eu-west-1")];
    let created = build_beside("awskms", &keys, &variables).unwrap();
    wraps(&*created.seal).await;
    assert_eq!(created.warnings, [""; 0]);
    let warnings = build_beside("awskms", &keys[..2], &variables).unwrap().warnings;
    assert!(warnings.len() == 1 && warnings[0].contains("region is not set and is us-east-1"), "{warnings:?}");
}
