//! Imported transit keys.

use crate::server::{Server, unique};

/// 32 bytes.
const KEY: &str = "AAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh8=";

#[test]
fn an_imported_key_encrypts_and_gets_versions() {
    let server = Server::find();
    let mount = unique("transit");
    server.ok(&["secrets", "enable", &format!("-path={mount}"), "transit"]);
    let file = server.home().join(format!("{mount}.key"));
    std::fs::write(&file, KEY).unwrap();
    let (path, material) = (format!("{mount}/keys/mine"), format!("@{}", file.display()));
    let printed = server.ok(&[
        "transit",
        "import",
        &path,
        &material,
        "type=aes256-gcm96",
        "exportable=true",
        "allow_rotation=true",
    ]);
    assert!(printed.ends_with("Success!") || printed.ends_with("Success!\n"), "{printed}");
    let exported = server.ok(&["read", "-field=keys", &format!("{mount}/export/encryption-key/mine/1")]);
    assert_eq!(exported, format!("map[1:{KEY}]"));
    server.ok(&["transit", "import-version", &path, &material]);
    assert_eq!(server.ok(&["read", "-field=latest_version", &path]), "2");
    server.fails(&["transit", "import", &path, "@no-such-file"], 1, "no such file");
}
