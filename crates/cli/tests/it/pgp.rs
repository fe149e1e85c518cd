//! `operator init`, `rotate-keys` and `generate-root` with PGP keys, whose holders decrypt with GnuPG.

use std::path::PathBuf;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;

use crate::gnupg::{CURVE, Gpg, RSA};
use crate::server::Server;

/// A new key; its certificate is in a file of this name, as `export` writes it.
fn holder(server: &Server, parameters: &str, name: &str, export: &[&str]) -> Option<(Gpg, PathBuf)> {
    let gpg = Gpg::of_today()?;
    gpg.generate(parameters);
    let file = server.home().join(name);
    std::fs::write(&file, gpg.run(&[export, &["--export", "a@example.com"]].concat(), b"")).unwrap();
    Some((gpg, file))
}

/// The text of a message in base64.
fn decrypt(gpg: &Gpg, message: &str) -> String {
    String::from_utf8(gpg.run(&["--decrypt"], &STANDARD.decode(message).unwrap())).unwrap()
}

/// The rest of the first line that begins so.
fn after(text: &str, start: &str) -> String {
    let line = text.lines().find_map(|line| line.strip_prefix(start));
    line.unwrap_or_else(|| panic!("no {start} in {text}")).to_owned()
}

#[test]
fn gnupg_decrypts_what_the_commands_print() {
    let server = Server::fresh();
    let Some((rsa, rsa_file)) = holder(&server, RSA, "rsa.asc", &["--armor"]) else { return };
    let Some((curve, curve_file)) = holder(&server, CURVE, "curve.gpg", &[]) else { return };
    let (rsa_key, curve_key) = (rsa_file.to_str().unwrap(), curve_file.to_str().unwrap());
    let run = |arguments: &[&str]| server.run_with(arguments, &[], "");

    let bad = run(&["operator", "init", "-n=1", "-t=1", "-pgp-keys=keybase:someone"]);
    assert!(bad.code == 1 && bad.stderr.contains("gpg --export"), "{bad:?}");
    let bad = run(&["operator", "init", "-n=1", "-t=1", &format!("-pgp-keys={rsa_key},{curve_key}")]);
    assert!(bad.code == 2 && bad.stderr.contains("count mismatch"), "{bad:?}");
    assert_eq!(run(&["operator", "init", "-status"]).code, 2);

    let base64 = STANDARD.encode(std::fs::read(curve_key).unwrap());
    let keys = format!("-pgp-keys={rsa_key},@{curve_key},{base64}");
    let made = run(&["operator", "init", "-n=3", "-t=2", &keys, "-root-token-pgp-key", rsa_key]);
    assert_eq!(made.code, 0, "{made:?}");
    let old = [(&rsa, 1), (&curve, 3)];
    let old = old.map(|(gpg, number)| decrypt(gpg, &after(&made.stdout, &format!("Unseal Key {number}: "))));
    let token = decrypt(&rsa, &after(&made.stdout, "Initial Root Token: "));
    let own = [("VAULT_TOKEN", token.as_str())];
    let run = |arguments: &[&str]| {
        let done = server.run_with(&[&["operator"], arguments].concat(), &own, "");
        assert_eq!(done.code, 0, "{arguments:?}: {done:?}");
        done.stdout
    };
    old.iter().for_each(|key| drop(run(&["unseal", key])));

    let missing = server.run_with(&["operator", "rotate-keys", "-backup-retrieve"], &own, "");
    assert!(missing.code == 2 && missing.stderr.contains("no backed-up keys found"), "{missing:?}");
    let keys = format!("-pgp-keys={curve_key},{rsa_key}");
    let started = run(&["rotate-keys", "-init", "-n=2", "-t=2", &keys, "-backup", "-verify"]);
    let fingerprints = [curve.fingerprint(), rsa.fingerprint()];
    assert!(started.contains(&format!("PGP Fingerprints         [{}]\n", fingerprints.join(" "))), "{started}");
    assert!(started.contains("Backup                   true\n"), "{started}");
    run(&["rotate-keys", &old[0]]);
    let shown = run(&["rekey", &old[1]]);
    let [first, second] = [1, 2].map(|number| {
        let start = format!("Key {number} fingerprint: {}; value: ", fingerprints[number - 1]);
        after(&shown, &start)
    });
    let backup = run(&["rekey", "-backup-retrieve"]);
    assert!(backup.contains(&format!("{}:[{first}]", fingerprints[0])), "{backup}");
    let backup = run(&["rotate-keys", "-backup-retrieve", "-format=json"]);
    assert!(backup.contains("\"keys_base64\": {") && backup.contains(&second), "{backup}");
    let new = [decrypt(&curve, &first), decrypt(&rsa, &second)];
    new.iter().for_each(|key| drop(run(&["rotate-keys", "-verify", key])));
    assert_eq!(run(&["rotate-keys", "-backup-delete"]), "Success! Deleted the backup of shares (if it existed)\n");
    assert_eq!(server.run_with(&["operator", "rekey", "-backup-retrieve"], &own, "").code, 2);

    let both = ["operator", "generate-root", "-init", "-otp=x", "-pgp-key", curve_key];
    assert_eq!(server.run_with(&both, &own, "").code, 1);
    let started = run(&["generate-root", "-init", "-pgp-key", curve_key]);
    assert!(
        started.contains(&format!("PGP Fingerprint    {}\n", fingerprints[0])) && !started.contains("OTP  "),
        "{started}"
    );
    run(&["generate-root", &new[0]]);
    let done = run(&["generate-root", &new[1]]);
    let second = decrypt(&curve, after(&done, "Encoded Token      ").trim());
    let lookup = server.run_with(&["token", "lookup", "-field=path"], &[("VAULT_TOKEN", &second)], "");
    assert_eq!((lookup.code, lookup.stdout.as_str()), (0, "auth/token/root"), "{lookup:?}");
}
