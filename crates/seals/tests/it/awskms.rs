//! awskms against moto, which checks signatures.

use std::process::Command;

use keepfast_crypto::random;
use keepfast_framework::seal::SealErrorClass;

use crate::program::{Running, program};
use crate::{call, seal};

/// The requests before moto checks signatures: two of IAM for the user, one for its key, two of KMS.
const FREE_ACTIONS: usize = 5;

pub(crate) struct Moto {
    _running: Running,
    pub(crate) url: String,
    pub(crate) access_key: String,
    pub(crate) secret_key: String,
    pub(crate) key_id: String,
    /// The further keys.
    pub(crate) keys: Vec<String>,
}

fn element(xml: &str, name: &str) -> String {
    let (_, rest) = xml.split_once(&format!("<{name}>")).unwrap_or_else(|| panic!("{xml}"));
    rest.split_once('<').unwrap().0.to_owned()
}

/// An emulator with a user that may use one key, whose alias is `alias/seal`; `None` where moto is not installed.
async fn moto() -> Option<Moto> {
    moto_with(&[]).await
}

/// The same with further keys of these specs, which sign.
pub(crate) async fn moto_with(specs: &[&str]) -> Option<Moto> {
    let binary = program("MOTO_SERVER", &[".cache/venv/bin/moto_server"])?;
    let mut command = Command::new(binary);
    command
        .args(["-H", "127.0.0.1", "-p", "0"])
        .env("INITIAL_NO_AUTH_ACTION_COUNT", (FREE_ACTIONS + specs.len()).to_string());
    let running = Running::start(command.env("PYTHONUNBUFFERED", "1"), true, "Running on http://");
    let url = running.line.rsplit(' ').next().unwrap().trim().to_owned();
    let scope = |service: &str| {
        format!(
            "AWS4-HMAC-SHA256 Credential=x/20260101/us-east-1/{service}/aws4_request, SignedHeaders=host, Signature=0"
        )
    };
    let iam = async |body: &str| {
        let form = ("content-type", "application/x-www-form-urlencoded");
        let (status, xml) = call("POST", &url, &[form, ("authorization", &scope("iam"))], body).await;
        assert_eq!(status, 200, "{xml}");
        xml
    };
    iam("Action=CreateUser&Version=2010-05-08&UserName=u").await;
    let policy = "%7B%22Version%22%3A%222012-10-17%22%2C%22Statement%22%3A%7B%22Effect%22%3A%22Allow%22%2C%22Action%22%3A%22kms%3A*%22%2C%22Resource%22%3A%22*%22%7D%7D";
    iam(&format!("Action=PutUserPolicy&Version=2010-05-08&UserName=u&PolicyName=p&PolicyDocument={policy}")).await;
    let key = iam("Action=CreateAccessKey&Version=2010-05-08&UserName=u").await;
    let kms = async |action: &str, body: &str| {
        let target = format!("TrentService.{action}");
        let headers = [("content-type", "application/x-amz-json-1.1"), ("x-amz-target", target.as_str())];
        let (status, json) =
            call("POST", &url, &[headers[0], headers[1], ("authorization", &scope("kms"))], body).await;
        assert_eq!(status, 200, "{json}");
        json
    };
    let created: serde_json::Value = serde_json::from_str(&kms("CreateKey", "{}").await).unwrap();
    let key_id = created["KeyMetadata"]["KeyId"].as_str().unwrap().to_owned();
    kms("CreateAlias", &format!(r#"{{"AliasName":"alias/seal","TargetKeyId":"{key_id}"}}"#)).await;
    let mut keys = Vec::new();
    for spec in specs {
        let created = kms("CreateKey", &format!(r#"{{"KeySpec":"{spec}","KeyUsage":"SIGN_VERIFY"}}"#)).await;
        let created: serde_json::Value = serde_json::from_str(&created).unwrap();
        keys.push(created["KeyMetadata"]["KeyId"].as_str().unwrap().to_owned());
    }
    let (access_key, secret_key) = (element(&key, "AccessKeyId"), element(&key, "SecretAccessKey"));
    Some(Moto { _running: running, url, access_key, secret_key, key_id, keys })
}

#[tokio::test]
async fn awskms_wraps_with_an_emulator_that_checks_signatures() {
    let Some(moto) = moto().await else { return };
    let keys = |key_id, secret| {
        [
            ("endpoint", moto.url.as_str()),
            ("access_key", &moto.access_key),
            ("secret_key", secret),
            ("kms_key_id", key_id),
        ]
    };
    for key_id in [moto.key_id.as_str(), "alias/seal"] {
        let seal = seal("awskms", &keys(key_id, &moto.secret_key), &[]);
        let key = random::key();
        let wrapped = seal.wrap(&key).await.unwrap();
        assert!(wrapped.key_id.starts_with("arn:aws:kms:us-east-1:") && wrapped.key_id.ends_with(&moto.key_id));
        assert_eq!(seal.current_key().await.unwrap().as_deref(), Some(wrapped.key_id.as_str()));
        assert_eq!(seal.unwrap(&wrapped).await.unwrap().expose(), key.expose());
        let mut damaged = wrapped.clone();
        damaged.blob = wrapped.blob.slice(..wrapped.blob.len() - 1);
        assert_eq!(seal.unwrap(&damaged).await.err().unwrap().class, SealErrorClass::WrongKey);
    }
    let error = seal("awskms", &keys("alias/seal", "wrong"), &[]).wrap(&random::key()).await.err().unwrap();
    assert_eq!(error.class, SealErrorClass::Denied, "{error}");
    let error = seal("awskms", &keys("alias/none", &moto.secret_key), &[]).wrap(&random::key()).await.err().unwrap();
    assert_eq!(error.class, SealErrorClass::WrongKey, "{error}");
}
