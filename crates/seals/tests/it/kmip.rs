//! kmip with PyKMIP.

use std::path::Path;
use std::process::Command;

use keepfast_crypto::random;
use keepfast_framework::seal::SealErrorClass;

use crate::program::{Running, free_port, program};
use crate::seal;

/// Starts the server, and says when it listens.
const SERVER: &str = "
import logging, sys
from kmip.services.server import KmipServer
logging.getLogger().addHandler(logging.StreamHandler())
server = KmipServer(config_path=sys.argv[1], log_path=sys.argv[2], database_path=sys.argv[3])
with server:
    print('listening', flush=True)
    server.serve()
";
/// Creates two AES keys, the second of them not active, and prints their ids.
const KEYS: &str = "
import sys
from kmip.pie.client import ProxyKmipClient
from kmip import enums
host, port, cert, key, ca = sys.argv[1:]
use = [enums.CryptographicUsageMask.ENCRYPT, enums.CryptographicUsageMask.DECRYPT]
with ProxyKmipClient(hostname=host, port=int(port), cert=cert, key=key, ca=ca, ssl_version='PROTOCOL_TLSv1_2') as client:
    ids = [client.create(enums.CryptographicAlgorithm.AES, 256, cryptographic_usage_mask=use) for _ in range(2)]
    client.activate(ids[0])
    print(*ids)
";

/// Writes a CA, and the certificates `server` and `client`.
fn write_certificates(directory: &Path) {
    let mut parameters = rcgen::CertificateParams::new(Vec::new()).unwrap();
    parameters.is_ca = rcgen::IsCa::Ca(rcgen::BasicConstraints::Unconstrained);
    parameters.distinguished_name.push(rcgen::DnType::CommonName, "ca");
    let ca = rcgen::CertifiedIssuer::self_signed(parameters, rcgen::KeyPair::generate().unwrap()).unwrap();
    std::fs::write(directory.join("ca.pem"), ca.pem()).unwrap();
    let usages = [rcgen::ExtendedKeyUsagePurpose::ServerAuth, rcgen::ExtendedKeyUsagePurpose::ClientAuth];
    for (name, usage) in ["server", "client"].into_iter().zip(usages) {
        let mut parameters = rcgen::CertificateParams::new(vec!["localhost".to_owned()]).unwrap();
        parameters.distinguished_name.push(rcgen::DnType::CommonName, name);
        parameters.extended_key_usages.push(usage);
        let key = rcgen::KeyPair::generate().unwrap();
        let certificate = parameters.signed_by(&key, &ca).unwrap();
        std::fs::write(directory.join(format!("{name}.pem")), certificate.pem()).unwrap();
        std::fs::write(directory.join(format!("{name}.key")), key.serialize_pem()).unwrap();
    }
}

#[tokio::test]
async fn kmip_wraps_with_a_server_of_python() {
    let Some(tool) = program("PYKMIP_SERVER", &[".cache/venv/bin/pykmip-server"]) else { return };
    let python = tool.with_file_name("python");
    let directory = tempfile::tempdir().unwrap();
    let file = |name: &str| directory.path().join(name).display().to_string();
    write_certificates(directory.path());
    let port = free_port().to_string();
    std::fs::create_dir(file("policies")).unwrap();
    let configuration = format!(
        "[server]\nhostname=127.0.0.1\nport={port}\ncertificate_path={}\nkey_path={}\nca_path={}\nauth_suite=TLS1.2\n\
         policy_path={}\nenable_tls_client_auth=True\nlogging_level=DEBUG\n",
        file("server.pem"),
        file("server.key"),
        file("ca.pem"),
        file("policies")
    );
    std::fs::write(file("server.conf"), configuration).unwrap();
    let mut command = Command::new(&python);
    command.args(["-c", SERVER, &file("server.conf"), &file("server.log"), &file("keys.db")]);
    let _running = Running::start(&mut command, false, "listening");
    let arguments = ["127.0.0.1", &port, &file("client.pem"), &file("client.key"), &file("ca.pem")];
    let created = Command::new(&python).args(["-c", KEYS]).args(arguments).output().unwrap();
    assert!(created.status.success(), "{}", String::from_utf8_lossy(&created.stderr));
    let ids = String::from_utf8(created.stdout).unwrap();
    let ids: Vec<&str> = ids.split_whitespace().collect();
    let (endpoint, ca, chain, key) =
        (format!("127.0.0.1:{port}"), file("ca.pem"), file("client.pem"), file("client.key"));
    let of = |key_id| {
        let keys = [
            ("endpoint", endpoint.as_str()),
            ("server_name", "localhost"),
            ("ca_cert", &ca),
            ("client_cert", &chain),
            ("client_key", &key),
            ("kms_key_id", key_id),
        ];
        seal("kmip", &keys, &[])
    };
    let kmip = of(ids[0]);
    let key = random::key();
    let wrapped = kmip.wrap(&key).await.unwrap();
    assert_eq!(kmip.unwrap(&wrapped).await.unwrap().expose(), key.expose());
    let mut damaged = wrapped.clone();
    damaged.tag = Some(vec![0; 16].into());
    let error = kmip.unwrap(&damaged).await.err().unwrap();
    assert_ne!(error.class, SealErrorClass::Denied, "{error}");
    assert_eq!(of("999").wrap(&key).await.err().unwrap().class, SealErrorClass::WrongKey);
    let inactive = of(ids[1]).wrap(&key).await.err().unwrap();
    assert!(matches!(inactive.class, SealErrorClass::Denied | SealErrorClass::WrongKey), "{inactive}");
}
