//! Configurations in the forms of Helm charts, Terraform modules and the documentation of Vault and OpenBao, and
//! misspellings of them.

#![allow(clippy::unwrap_used, clippy::expect_used)]

use super::*;

/// Loads one file; the warnings are without their file.
fn load_file(name: &str, text: &str) -> Result<(Config, Vec<String>), String> {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join(name);
    std::fs::write(&file, text).unwrap();
    let loaded = load(std::slice::from_ref(&file), &Environment::of(&[]));
    let plain = |text: String| text.replace(&file.display().to_string(), name);
    loaded
        .map(|(config, warnings)| (config, warnings.into_iter().map(|w| plain(w.to_string())).collect()))
        .map_err(|error| plain(error.to_string()))
}

#[test]
fn the_helm_chart_configuration_starts_with_warnings() {
    let text = r#"
        disable_mlock = true
        ui = true
        listener "tcp" {
          tls_disable = 1
          address = "[::]:8200"
          cluster_address = "[::]:8201"
          telemetry { unauthenticated_metrics_access = "true" }
        }
        storage "raft" { path = "/vault/data" }
        service_registration "kubernetes" {}
    "#;
    let (config, warnings) = load_file("c.hcl", text).unwrap();
    assert_eq!(config.listeners[0].address(), "[::]:8200");
    assert_eq!(config.cluster_bind_addresses(), ["[::]:8201"]);
    assert_eq!(
        warnings,
        [
            "ui has no effect in Keepfast: there is no user interface at c.hcl:3:9",
            "service_registration has no effect in Keepfast at c.hcl:11:9",
        ]
    );
}

#[test]
fn every_known_key_without_effect_warns_and_starts() {
    let base = "storage \"raft\" { path = \"/d\" node_id = \"n\" }\nlistener \"tcp\" { tls_disable = true }\n";
    for key in known_keys::TOP_LEVEL {
        for form in [format!("{key} = \"x\""), format!("{key} {{ a = 1 }}"), format!("{key} \"label\" {{ a = 1 }}")] {
            let (_, warnings) = load_file("c.hcl", &format!("{base}{form}\n")).unwrap();
            assert_eq!(warnings, [format!("{key} has no effect in Keepfast at c.hcl:3:1")], "{form}");
        }
    }
    for key in known_keys::LISTENER.iter().chain(known_keys::UNIX_ONLY).chain(known_keys::ACME) {
        let text = format!("storage \"inmem\" {{}}\nlistener \"tcp\" {{\n tls_disable = 1\n {key} = \"x\"\n}}\n");
        let (_, warnings) = load_file("c.hcl", &text).unwrap();
        assert!(warnings.len() == 1 && warnings[0].contains(&format!("{key} has no effect")), "{key}: {warnings:?}");
    }
    for key in known_keys::TCP_ONLY {
        let text = format!("storage \"inmem\" {{}}\nlistener \"unix\" {{\n address = \"/s\"\n {key} = \"x\"\n}}\n");
        let (_, warnings) = load_file("c.hcl", &text).unwrap();
        assert_eq!(warnings, [format!("{key} has no effect in Keepfast on a unix listener at c.hcl:4:2")]);
    }
    for key in known_keys::RAFT {
        let text =
            format!("listener \"tcp\" {{ tls_disable = 1 }}\nstorage \"raft\" {{\n path = \"/d\"\n {key} = 1\n}}\n");
        let (_, warnings) = load_file("c.hcl", &text).unwrap();
        assert_eq!(warnings.len(), 1, "{key}: {warnings:?}");
    }
}

#[test]
fn keys_that_another_key_overrides_warn() {
    for (listener, expected) in [
        ("tls_disable = 1\n tls_cert_file = \"c\"", "tls_cert_file has no effect in Keepfast with tls_disable = true"),
        (
            "tls_cert_file = \"c\"\n tls_key_file = \"k\"\n tls_client_ca_file = \"a\"",
            "tls_client_ca_file has no effect in Keepfast without",
        ),
        (
            "tls_disable = 1\n x_forwarded_for_hop_skips = 1",
            "x_forwarded_for_hop_skips has no effect in Keepfast without",
        ),
    ] {
        let text = format!("storage \"inmem\" {{}}\nlistener \"tcp\" {{\n {listener}\n}}\n");
        let (_, warnings) = load_file("c.hcl", &text).unwrap();
        assert!(warnings.len() == 1 && warnings[0].contains(expected), "{listener}: {warnings:?}");
    }
    let ldap =
        "storage \"inmem\" {}\nlistener \"tcp\" { tls_disable = 1 }\nuser_lockout \"ldap\" { lockout_threshold = 3 }\n";
    assert!(load_file("c.hcl", ldap).unwrap().1[0].contains("user_lockout \"ldap\" has no effect"));
}

#[test]
fn an_unknown_block_is_an_error_with_a_suggestion() {
    let storage = "storage \"inmem\" {}\n";
    for (text, expected) in [
        (
            "listner \"tcp\" { tls_disable = 1 }",
            "unknown or unsupported block listner found in configuration; did you mean \"listener\"?",
        ),
        ("Listener \"tcp\" { tls_disable = 1 }", "did you mean \"listener\"?"),
        ("listener \"tpc\" { tls_disable = 1 }", "unsupported listener type \"tpc\"; did you mean \"tcp\"?"),
        ("audits \"file\" \"a\" { options { file_path = \"/a\" } }", "did you mean \"audit\"?"),
        ("telemetri { disable_hostname = true }", "did you mean \"telemetry\"?"),
        ("user_lockouts \"all\" {}", "did you mean \"user_lockout\"?"),
        ("seals \"awskms\" {}", "did you mean \"seal\"?"),
        ("lstnr = [{ tcp = { tls_disable = 1 } }]", "unknown or unsupported block lstnr"),
        ("auto_auth { method \"approle\" {} }", "unknown or unsupported block auto_auth"),
        ("hsm \"pkcs11\" {}", "hsm is not supported"),
        ("", "no listener is configured"),
        ("ha_backend \"consul\" {}", "ha_backend is not supported"),
    ] {
        let error = load_file("c.hcl", &format!("{storage}{text}\n")).unwrap_err();
        assert!(error.contains(expected), "{text}: {error}");
    }
    let json = r#"{"storage": {"inmem": {}}, "listner": [{"tcp": {"tls_disable": true}}]}"#;
    let error = load_file("c.json", json).unwrap_err();
    assert!(error.contains("c.json: At 1:28: unknown or unsupported block listner"), "{error}");
    for (text, expected) in [
        ("stroage \"inmem\" {}", "did you mean \"storage\"?"),
        ("storage \"rafft\" { path = \"/d\" }", "unknown storage type rafft; did you mean \"raft\"?"),
        ("storage \"consul\" { path = \"vault/\" }", "storage \"consul\" is not supported"),
    ] {
        let error = load_file("c.hcl", &format!("{text}\nlistener \"tcp\" {{ tls_disable = 1 }}\n")).unwrap_err();
        assert!(error.contains(expected), "{text}: {error}");
    }
}

#[test]
fn unknown_keys_warn_with_a_suggestion() {
    let text = "storage \"inmem\" {}\napi_adr = \"http://x\"\nlistener \"tcp\" {\n tls_disable = 1\n adress = \"127.0.0.1:1\"\n}\n";
    let (_, warnings) = load_file("c.hcl", text).unwrap();
    assert_eq!(
        warnings,
        [
            "unknown or unsupported field adress found in configuration; did you mean \"address\"? at c.hcl:5:2",
            "unknown or unsupported field api_adr found in configuration; did you mean \"api_addr\"? at c.hcl:2:1",
        ]
    );
}

#[test]
fn addresses_are_checked_and_their_templates_expanded() {
    let loopback = "{{ GetAllInterfaces | include \\\"name\\\" \\\"^lo$\\\" | include \\\"type\\\" \\\"IPv4\\\" | attr \\\"address\\\" }}";
    let text = format!(
        "storage \"inmem\" {{}}\nlistener \"tcp\" {{\n tls_disable = 1\n address = \"{loopback}:8210\"\n}}\n\
         api_addr = \"http://{loopback}:8210\"\ncluster_addr = \"https://{loopback}:8211\"\n"
    );
    let (config, warnings) = load_file("c.hcl", &text).unwrap();
    assert_eq!((config.listeners[0].address().as_str(), warnings.len()), ("127.0.0.1:8210", 0));
    assert_eq!(
        (config.api_addr.as_str(), config.cluster_addr.as_str()),
        ("http://127.0.0.1:8210", "https://127.0.0.1:8211")
    );
    let listener = |address: &str| {
        let text = format!("storage \"inmem\" {{}}\nlistener \"tcp\" {{\n tls_disable = 1\n {address}\n}}\n");
        load_file("c.hcl", &text).map(|(config, _)| config.listeners[0].address())
    };
    assert_eq!(listener("address = \"::1\"").as_deref(), Ok("[::1]:8200"));
    assert!(
        listener("address = \"{{ GetPrivteIP }}:8200\"")
            .unwrap_err()
            .contains("At 4:2: address: template {{ GetPrivteIP }}: unknown function \"GetPrivteIP\"")
    );
    assert!(listener("cluster_address = \"{{ x }}:8201\"").unwrap_err().contains("unknown function \"x\""));
    assert!(listener("address = \"127.0.0.1:http\"").unwrap_err().contains("must be host:port"));
    assert!(listener("address = \"127.0.0.1:70000\"").unwrap_err().contains("must be host:port"));
    for url in [
        "vault.example:8200",
        "https://",
        "https://:8200",
        "ftp://x",
        "https://x:99999",
        "https://u:p@x",
        "https://a b",
    ] {
        for key in ["api_addr", "cluster_addr"] {
            let text = format!("storage \"inmem\" {{}}\nlistener \"tcp\" {{ tls_disable = 1 }}\n{key} = \"{url}\"\n");
            let error = load_file("c.hcl", &text).unwrap_err();
            assert!(error.contains(&format!("{key} must be a URL with")) && !error.contains("u:p"), "{url}: {error}");
        }
    }
}
