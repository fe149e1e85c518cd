//! Configurations in the forms of operators and test harnesses.

#![allow(clippy::unwrap_used, clippy::expect_used)]

use std::path::PathBuf;
use std::time::Duration;

use super::*;

/// Loads texts as files `0.hcl`, `1.hcl` … of a directory.
pub(super) fn load_texts(texts: &[&str], environment: &[(&str, &str)]) -> Result<(Config, Vec<String>), String> {
    let dir = tempfile::tempdir().unwrap();
    for (at, text) in texts.iter().enumerate() {
        std::fs::write(dir.path().join(format!("{at}.hcl")), text).unwrap();
    }
    std::fs::write(dir.path().join("notes.txt"), "not a configuration").unwrap();
    let prefix = format!("{}/", dir.path().display());
    load(&[dir.path().to_owned()], &Environment::of(environment))
        .map(|(config, warnings)| (config, warnings.iter().map(|w| w.to_string().replace(&prefix, "")).collect()))
        .map_err(|e| e.to_string().replace(&prefix, ""))
}

fn refused(text: &str) -> String {
    load_texts(&[text], &[]).map(|_| ()).unwrap_err()
}

const MINIMAL: &str = "storage \"inmem\" {}\n";
const LISTENER: &str = "listener \"tcp\" { tls_disable = true }\n";

#[test]
fn a_production_configuration_is_read_whole() {
    let text = r#"
        storage "raft" {
          path = "/var/lib/keepfast"
          node_id = "n1"
        }
        listener "tcp" {
          address = "0.0.0.0:8200"
          tls_cert_file = "/etc/tls/cert.pem"
          tls_key_file = "/etc/tls/key.pem"
          tls_min_version = "tls13"
          max_request_size = "1MiB"
          max_request_duration = "5m"
          max_request_json_strings = 50
          http_read_header_timeout = "3s"
          http_idle_timeout = 60
          x_forwarded_for_authorized_addrs = ["10.0.0.0/8", "192.168.1.7"]
          x_forwarded_for_hop_skips = "1"
          x_forwarded_for_reject_not_present = "true"
          custom_response_headers {
            "404" = { "X-Where" = ["nowhere"] }
            "default" = { "X-Team" = ["a", "b"] }
          }
        }
        listener "unix" {
          address = "/run/keepfast.sock"
          socket_mode = "0660"
          socket_group = "keepfast"
        }
        audit "file" "main" {
          description = "all of it"
          options { file_path = "/var/log/audit.log" log_raw = false }
        }
        seal "shamir" {}
        api_addr = "https://vault.example:8200"
        cluster_addr = "https://10.0.0.1:8201"
        default_lease_ttl = "1h"
        max_lease_ttl = "30d"
        disable_mlock = true
        log_level = "warn"
        log_format = "json"
        cluster_name = "prod"
        pid_file = "/run/keepfast.pid"
        log_file = "/var/log/keepfast/"
        log_rotate_bytes = 1048576
        log_rotate_duration = "12h"
        log_rotate_max_files = 7
        ui = 0
    "#;
    let (config, warnings) = load_texts(&[text], &[]).unwrap();
    assert_eq!(warnings, Vec::<String>::new());
    assert_eq!(config.storage, Storage::Raft { path: "/var/lib/keepfast".into(), node_id: "n1".into() });
    assert_eq!(config.max_lease_ttl, Duration::from_secs(30 * 86_400));
    assert_eq!((config.disable_mlock, config.log_format), (true, LogFormat::Json));
    let rotation = LogRotation { bytes: 1 << 20, duration: Duration::from_secs(12 * 3600), max_files: Some(7) };
    assert_eq!(config.log_rotation, rotation);
    let [tcp, unix] = &config.listeners[..] else { panic!("two listeners") };
    let tls = tcp.tls.as_ref().unwrap();
    assert_eq!((tls.tls12, tls.tls13, &tls.clients), (false, true, &ClientCertificates::Requested));
    assert_eq!((tcp.limits.body, tcp.limits.json.strings), (1 << 20, 50));
    assert_eq!(tcp.limits.duration, Duration::from_secs(300));
    assert_eq!(tcp.limits.header_timeout, Duration::from_secs(3));
    assert_eq!(tcp.limits.idle_timeout, Duration::from_secs(60));
    assert_eq!(
        tcp.forwarded.authorized.iter().map(ToString::to_string).collect::<Vec<_>>(),
        ["10.0.0.0/8", "192.168.1.7/32"]
    );
    assert_eq!(
        (tcp.forwarded.hop_skips, tcp.forwarded.reject_not_present, tcp.forwarded.reject_not_authorized),
        (1, true, false)
    );
    assert_eq!(
        tcp.headers.iter().map(|h| (h.when, h.value.to_str().unwrap())).collect::<Vec<_>>(),
        [(Statuses::All, "a; b"), (Statuses::One(404), "nowhere")]
    );
    assert_eq!(
        unix.bind,
        Bind::Unix { path: "/run/keepfast.sock".into(), mode: Some(0o660), user: None, group: Some("keepfast".into()) }
    );
    assert_eq!(config.audit[0].file_path(), Some(PathBuf::from("/var/log/audit.log")));
    assert_eq!(config.audit[0].options["log_raw"], "false");
}

#[test]
fn json_of_test_harnesses_is_equivalent() {
    let text = r#"{
        "backend": {"inmem": {}},
        "listener": {"tcp": {"address": "127.0.0.1:8200", "tls_cert_file": "c.pem", "tls_key_file": "k.pem"}},
        "disable_mlock": true, "default_lease_ttl": "768h", "max_lease_ttl": "768h"
    }"#;
    let (config, warnings) = load_texts(&[text], &[]).unwrap();
    assert_eq!((warnings.len(), config.storage, config.listeners.len()), (0, Storage::InMemory, 1));
    let two = r#"{"storage": [{"inmem": [{}]}], "listener": [{"tcp": {"tls_disable": 1}}, {"tcp": {"address": "[::1]", "tls_disable": "true"}}],
        "audit": {"file": {"a": {"options": {"file_path": "stdout"}}}}}"#;
    let (config, _) = load_texts(&[two], &[]).unwrap();
    assert_eq!(
        config.listeners.iter().map(ListenerConfig::address).collect::<Vec<_>>(),
        ["127.0.0.1:8200", "[::1]:8200"]
    );
    assert_eq!(config.audit[0].name, "a");
}

#[test]
fn files_of_a_directory_are_merged_in_the_order_of_their_names() {
    let first = "storage \"inmem\" {}\nlog_level = \"info\"\nlistener \"tcp\" { tls_disable = 1 }";
    let second = "storage \"file\" { path = \"/d\" }\nlog_level = \"debug\"\nlistener \"unix\" { address = \"/s\" }";
    let (config, _) = load_texts(&[first, second], &[]).unwrap();
    assert_eq!(config.storage, Storage::File { path: "/d".into() });
    assert_eq!((config.log_level.as_str(), config.listeners.len()), ("debug", 2));
}

#[test]
fn the_prefix_of_an_audit_device_may_be_permitted_in_any_file() {
    let device = "audit \"file\" \"a\" {\n  options { file_path = \"stdout\" prefix = \"p\" }\n}\n";
    let (allowed, denied) = ("allow_audit_log_prefixing = true\n", "allow_audit_log_prefixing = false\n");
    let base = format!("{MINIMAL}{LISTENER}");
    for texts in [[device, &base, allowed], [&base, allowed, device], [denied, device, &format!("{base}{allowed}")]] {
        let (config, warnings) = load_texts(&texts, &[]).unwrap();
        assert_eq!((config.audit.len(), warnings.len()), (1, 0), "{texts:?}");
    }
    for texts in [[device, &base, ""], [allowed, device, &format!("{base}{denied}")]] {
        let message = load_texts(&texts, &[]).unwrap_err();
        assert!(message.contains("audit log prefixing is not allowed"), "{message}");
    }
}

#[test]
fn files_of_several_flags_are_merged_before_the_check() {
    let dir = tempfile::tempdir().unwrap();
    let file = |name: &str, text: &str| {
        let path = dir.path().join(name);
        std::fs::write(&path, text).unwrap();
        path
    };
    let first = file(
        "1.hcl",
        "default_lease_ttl = \"1000h\"\naudit \"file\" \"a\" { options { path = \"discard\" prefix = \"p\" } }",
    );
    let text = format!("{MINIMAL}{LISTENER}max_lease_ttl = \"2000h\"\nallow_audit_log_prefixing = true\n");
    let second = file("2.hcl", &text);
    assert!(load(&[first, second], &Environment::of(&[])).is_ok());
}

#[test]
fn the_environment_and_the_keepfast_prefix_take_precedence() {
    let text = "storage \"raft\" { path = \"/a\" }\napi_addr = \"http://file\"\nlog_level = \"info\"";
    let environment = [
        ("VAULT_API_ADDR", "http://vault"),
        ("KEEPFAST_API_ADDR", "http://own"),
        ("BAO_RAFT_PATH", "/b"),
        ("BAO_LOG_LEVEL", "trace"),
    ];
    let (config, _) = load_texts(&[text, LISTENER], &environment).unwrap();
    assert_eq!((config.api_addr.as_str(), config.log_level.as_str()), ("http://own", "trace"));
    assert_eq!(config.storage, Storage::Raft { path: "/b".into(), node_id: String::new() });
}

#[test]
fn unknown_keys_and_keys_without_effect_warn_with_their_position() {
    let text = "storage \"inmem\" {\n  speed = 9\n}\nfrobnicate = 1\nlistener \"tcp\" {\n  tls_disable = true\n  foo = \"x\"\n}\nexperiments = [\"x\"]\n";
    let (_, warnings) = load_texts(&[text], &[]).unwrap();
    assert_eq!(
        warnings,
        [
            "unknown or unsupported field speed found in configuration at 0.hcl:2:3",
            "unknown or unsupported field foo found in configuration at 0.hcl:7:3",
            "experiments has no effect in Keepfast at 0.hcl:9:1",
            "unknown or unsupported field frobnicate found in configuration at 0.hcl:4:1",
        ]
    );
}

#[test]
fn sec_kf27_ignored_client_certificate_settings_warn_or_fail() {
    let listener = |keys: &str| format!("storage \"inmem\" {{}}\nlistener \"tcp\" {{ {keys} }}");
    let demand = "tls_require_and_verify_client_cert = true\n tls_client_ca_file = \"ca\"\n";
    let message = refused(&listener(&format!("tls_disable = true\n {demand}")));
    assert!(message.contains("tls_require_and_verify_client_cert contradicts tls_disable"), "{message}");
    let pair = "tls_cert_file = \"c\"\n tls_key_file = \"k\"\n";
    let (_, warnings) = load_texts(&[&listener(&format!("{pair} tls_client_ca_file = \"ca\""))], &[]).unwrap();
    assert!(warnings[0].contains("tls_client_ca_file has no effect"), "{warnings:?}");
    assert!(load_texts(&[&listener(&format!("{pair}{demand}"))], &[]).unwrap().1.is_empty());
}

#[test]
fn the_connections_of_a_source_are_a_quarter_unless_a_number_is_given() {
    for (given, expected) in
        [("", 0), ("max_connections_per_source = 7", 7), ("max_connections_per_source = -1", usize::MAX)]
    {
        let text = format!("storage \"inmem\" {{}}\nlistener \"tcp\" {{\n tls_disable = true\n {given}\n}}");
        let (config, warnings) = load_texts(&[&text], &[]).unwrap();
        assert_eq!((config.listeners[0].limits.connections_per_source, warnings.len()), (expected, 0), "{given}");
    }
}

#[test]
fn invalid_values_are_refused_with_their_position() {
    for (text, expected) in [
        ("listener \"tcp\" {}", "a tcp listener needs tls_cert_file and tls_key_file, or tls_disable = true"),
        ("listener \"tcp\" { tls_disable = 1 }", "a storage backend must be specified"),
        ("storage \"bogus\" {}", "unknown storage type bogus"),
        ("storage \"raft\" {}", "storage \"raft\" needs a path"),
        ("storage \"inmem\" {}\nbackend \"inmem\" {}", "only one storage block is permitted"),
        ("storage \"inmem\" {", "object expected closing RBRACE got: EOF"),
        (&format!("{MINIMAL}listener \"foo\" {{}}"), "unsupported listener type \"foo\""),
        (&format!("{MINIMAL}max_lease_ttl = \"abc\""), "max_lease_ttl must be a duration"),
        (&format!("{MINIMAL}max_lease_ttl = \"1h\"\nmax_lease_ttl = \"2h\""), "max_lease_ttl is set twice"),
        (
            &format!("{MINIMAL}max_lease_ttl = \"1h\"\ndefault_lease_ttl = \"2h\""),
            "default_lease_ttl is greater than max_lease_ttl",
        ),
        (&format!("{MINIMAL}log_level = \"loud\""), "unknown log level"),
        (&format!("{MINIMAL}api_addr = \"127.0.0.1\""), "api_addr must be a URL"),
        (&format!("{MINIMAL}seal \"awskm\" {{}}"), "seal \"awskm\" is not supported"),
        (&format!("{MINIMAL}audit \"socket\" \"a\" {{}}"), "unknown audit device type"),
        (&format!("{MINIMAL}audit \"file\" \"a\" {{}}"), "needs options { file_path"),
        (
            &format!("{MINIMAL}listener \"tcp\" {{ tls_disable = 1\n proxy_protocol_behavior = \"use_always\" }}"),
            "the PROXY protocol is not supported",
        ),
        (
            &format!("{MINIMAL}listener \"tcp\" {{ tls_disable = 1\n x_forwarded_for_authorized_addrs = \"proxy\" }}"),
            "neither an address nor a network",
        ),
        (
            &format!(
                "{MINIMAL}listener \"tcp\" {{ tls_disable = 1\n custom_response_headers {{ \"default\" = {{ \"X-Vault-A\" = \"x\" }} }} }}"
            ),
            "reserved",
        ),
    ] {
        let message = refused(text);
        assert!(message.contains(expected), "{text}: {message}");
    }
    assert_eq!(refused("storage \"inmem\" {}\nmax_lease_ttl = \"abc\"").split(": ").nth(1), Some("At 2:17"));
    let missing = load(&[PathBuf::from("/nonexistent.hcl")], &Environment::of(&[])).err().unwrap().to_string();
    assert!(missing.starts_with("error loading configuration from /nonexistent.hcl: "), "{missing}");
}

#[test]
fn each_tcp_listener_of_raft_has_a_cluster_address() {
    let raft = "storage \"raft\" { path = \"/d\" }\n";
    let listener = |body: &str| format!("listener \"tcp\" {{\n tls_disable = true\n {body}\n}}\n");
    let unix = "listener \"unix\" { address = \"/s\" }\n";
    let own = listener("address = \"127.0.0.1:7000\"\n cluster_address = \"10.0.0.1:9000\"");
    let text = [unix, &listener("address = \"[::1]:8300\""), &own].concat();
    let (config, _) = load_texts(&[raft, &text], &[]).unwrap();
    assert_eq!(config.cluster_bind_addresses(), ["[::1]:8301", "10.0.0.1:9000"]);
    let (config, _) = load_texts(&[MINIMAL, &text], &[]).unwrap();
    assert!(config.cluster_bind_addresses().is_empty());
    for address in ["10.0.0.1", "[::1]", "::1", "10.0.0.1:http", "10.0.0.1:65536"] {
        let error = refused(&[raft, &listener(&format!("cluster_address = \"{address}\""))].concat());
        assert!(error.contains("4:2") && error.contains("must be host:port"), "{error}");
    }
}

#[test]
fn telemetry_and_lockout_are_parsed_and_errors_name_the_key() {
    let text = r#"
        telemetry {
          prometheus_retention_time = "30s"
          disable_hostname = true
          metrics_prefix = "kf"
          statsd_address = "127.0.0.1:1"
          usage_gauge_period = "none"
          maximum_gauge_cardinality = 50
        }
        user_lockout "userpass" {
          lockout_threshold = "3"
          lockout_duration = "10m"
          disable_lockout = false
        }
        listener "tcp" {
          tls_disable = true
          telemetry { unauthenticated_metrics_access = true }
          disable_unauthed_rekey_endpoints = false
          inflight_requests_logging { unauthenticated_in_flight_requests_access = true }
        }
        introspection_endpoint = true
    "#;
    let (config, warnings) = load_texts(&[MINIMAL, text], &[]).unwrap();
    let telemetry = &config.telemetry;
    assert_eq!((telemetry.prometheus_retention, telemetry.disable_hostname), (Duration::from_secs(30), true));
    assert_eq!((telemetry.prefix.as_str(), config.listeners[0].open_metrics), ("kf", true));
    assert_eq!((telemetry.usage_period, telemetry.gauge_cardinality), (Duration::ZERO, 50));
    let open = config.listeners[0].open;
    assert!(config.listeners[0].open_in_flight && config.introspection_endpoint);
    assert!(open.rekey && !open.generate_root, "each is let in by its own key only");
    let lockout = &config.user_lockout["userpass"];
    assert_eq!((lockout.threshold, lockout.duration.as_secs(), lockout.counter_reset.as_secs()), (3, 600, 900));
    assert_eq!(warnings.len(), 1, "{warnings:?}");
    assert!(warnings[0].contains("statsd_address has no effect"), "{warnings:?}");
    let without = load_texts(&[MINIMAL, LISTENER], &[]).unwrap().0.telemetry;
    assert_eq!(
        (without.prometheus_retention, without.usage_period),
        (Duration::from_secs(86_400), Duration::from_secs(600))
    );
    let telemetry = |stanza: &str| load_texts(&[MINIMAL, LISTENER, stanza], &[]).unwrap().0.telemetry;
    assert!(telemetry("telemetry { prometheus_retention_time = 0 }").prometheus_retention.is_zero());
    assert_eq!(telemetry("telemetry { usage_gauge_period = \"1m\" }").usage_period, Duration::from_secs(60));
    let wrong = format!("{MINIMAL}user_lockout \"kv\" {{}}");
    assert!(refused(&wrong).contains("there are all, approle, userpass and ldap"));
}

#[test]
fn directories_of_database_files_are_absolute_and_not_the_root() {
    let read = |value: &str| load_texts(&[MINIMAL, LISTENER, &format!("database_file_directories = {value}")], &[]);
    let (config, warnings) = read(r#"["/etc/keepfast/db", "/run/postgresql"]"#).unwrap();
    assert_eq!(config.database_file_directories, [PathBuf::from("/etc/keepfast/db"), PathBuf::from("/run/postgresql")]);
    assert_eq!(warnings, Vec::<String>::new());
    assert_eq!(read("\"/etc/db\"").unwrap().0.database_file_directories, [PathBuf::from("/etc/db")]);
    for refused in ["\"relative\"", "\"/\"", "\"/etc/../root\"", "[\"/etc/db\", \"\", \"x\"]"] {
        assert!(read(refused).unwrap_err().contains("database_file_directories"), "{refused}");
    }
}
