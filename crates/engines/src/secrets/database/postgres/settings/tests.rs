//! The driver's configuration for connection strings.

use serde_json::json;
use tokio_postgres::config::SslNegotiation;

use super::*;

const PASSWORD: &str = "p'w@/?sslmode=disable";

fn read_in(url: &str, more: serde_json::Value, files: &FileDirectories) -> Result<Settings, OpenError> {
    let mut details = json!({ "connection_url": url, "username": "ad'min@x:/", });
    details.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
    Settings::read(&details::of_json(&details), &SecretString::new(PASSWORD.to_owned()), files)
}

fn read_with(url: &str, more: serde_json::Value) -> Result<Settings, OpenError> {
    read_in(url, more, &FileDirectories::default())
}

fn read(url: &str) -> Result<Settings, OpenError> {
    read_with(url, json!({}))
}

fn config(url: &str) -> Config {
    read(url).unwrap_or_else(|why| panic!("{url}: {}", why.text())).target.hosts[0].config.clone()
}

fn refusal(url: &str) -> String {
    read(url).err().map(OpenError::text).unwrap_or_else(|| panic!("{url} is taken"))
}

#[test]
fn sec_se04_credentials_never_change_the_meaning_of_the_url() {
    for url in [
        "postgresql://{{username}}:{{password}}@db.internal:5432/myapp",
        "postgresql://db.internal/myapp",
        "host=db.internal user={{username}} password={{password}}",
        "host=db.internal user = '{{username}}'\npassword='{{password}}'",
    ] {
        let config = config(url);
        assert_eq!(config.get_user(), Some("ad'min@x:/"));
        assert_eq!(config.get_password(), Some(PASSWORD.as_bytes()));
        assert_eq!(config.get_ssl_mode(), SslMode::Prefer);
    }
    assert_eq!(config("postgresql://{{username}}%40tenant@h/d").get_user(), Some("ad'min@x:/@tenant"));
    for (url, expected) in [
        ("postgresql://u:p@h/d?sslmode=what", "cannot parse connection url: sslmode is invalid"),
        ("", "connection_url cannot be empty"),
        ("postgresql://u:geheim@h:x/d", "cannot parse connection url: a port is not a number"),
        ("postgresql://u:geheim@h:0/d", "cannot parse connection url: a port is invalid"),
        ("postgresql:///d", "cannot parse connection url: it has no host"),
        (
            "host=a,b port=1,2,3",
            "cannot parse connection url: host, hostaddr and port have different numbers of entries",
        ),
        ("host=h connect_timeout=x", "cannot parse connection url: connect_timeout is not a number in its range"),
    ] {
        assert_eq!(refusal(url), expected);
    }
    for (setting, value, expected) in [
        ("password_authentication", "md5", "'md5' is not a valid password authentication type"),
        ("max_connection_lifetime", "x", "invalid max_connection_lifetime: time: invalid duration \"x\""),
    ] {
        let refused = read_with("postgresql://u:p@h/d", json!({setting: value}));
        assert_eq!(refused.err().unwrap().text(), expected);
    }
    for setting in ["disable_escaping", "max_open_connections"] {
        let refused = read_with("postgresql://u:p@h/d", json!({setting: "maybe"})).err().unwrap().text();
        assert!(refused.contains(&format!("'{setting}' cannot parse value")), "{refused}");
    }
}

#[test]
fn sec_kf23_no_spelling_of_sslmode_loses_tls() {
    for mode in ["require", "verify-ca", "verify-full"] {
        let encoded: String = mode.bytes().map(|b| format!("%{b:02X}")).collect();
        for url in [
            format!("host=h sslmode={mode}"),
            format!("host=h sslmode = {mode}"),
            format!("host=h\nsslmode={mode}"),
            format!("host=h\tsslmode='{mode}'"),
            format!("sslmode\u{b}=\u{c}{mode} host=h"),
            format!("host=h sslmode=disable sslmode={mode}"),
            format!("host=h application_name='x sslmode=disable' sslmode={mode}"),
            format!("postgres://u:p@h/d?sslmode={mode}"),
            format!("postgres://u:p@h?sslmode={mode}&application_name=sslmode=disable"),
            format!("postgres://u:p@h/d?%73%73%6C%6dode={mode}"),
            format!("postgres://u:p@h/d?sslmode={encoded}"),
            format!("postgres://u:p@h/d?a=1&sslmode=disable&sslmode={mode}"),
            format!("postgres://u:p@h/sslmode=disable?sslmode={mode}"),
            format!("postgres://u:sslmode=disable@h/d?sslmode={mode}"),
        ] {
            assert_eq!(config(&url).get_ssl_mode(), SslMode::Require, "{url}");
        }
    }
    assert_eq!(config("postgres://h/d?ssl=true").get_ssl_mode(), SslMode::Require);
    assert_eq!(config("host=h sslmode=require sslmode=disable").get_ssl_mode(), SslMode::Disable);
    for refused in [
        "host=h SSLMODE=require",
        "host=h sslmode=REQUIRE",
        "host=h sslmode='require '",
        "host=h sslmode",
        "postgres://h/d?SslMode=require",
        "postgres://h/d?sslmode=require;a=b",
        "postgres://h/d?sslmode=require#",
        "postgres://h/d?sslmode%20=require",
        "postgres://h/d?sslmode=require\n",
        "postgres://h/d?ssl=1",
        "postgres://h/d?sslmode=require&sslrootcert=system",
        "postgres://h/d?sslnegotiation=direct",
    ] {
        refusal(refused);
    }
}

#[test]
fn parameters_are_set_in_the_driver() {
    let url = "postgres://h/d?options=-c%20a=b&search_path=x&connect_timeout=3&channel_binding=require&application_name=n&\
               keepalives_idle=7&tcp_user_timeout=1500&sslmode=require&sslnegotiation=direct";
    let read = config(url);
    assert_eq!(read.get_options(), Some("-c a=b -c search_path=x"));
    assert_eq!(read.get_connect_timeout(), Some(&Duration::from_secs(3)));
    assert_eq!(read.get_channel_binding(), ChannelBinding::Require);
    assert_eq!(read.get_application_name(), Some("n"));
    assert_eq!(read.get_keepalives_idle(), Duration::from_secs(7));
    assert_eq!(read.get_tcp_user_timeout(), Some(&Duration::from_millis(1500)));
    assert_eq!(read.get_ssl_negotiation(), SslNegotiation::Direct);
    let read = config("host=h fallback_application_name=f connect_timeout=0 sslmode=''");
    assert_eq!((read.get_application_name(), read.get_connect_timeout()), (Some("f"), Some(&CONNECT_TIMEOUT)));
    assert_eq!(read.get_ssl_mode(), SslMode::Prefer);
    for versions in
        ["ssl_min_protocol_version=TLSv1.3", "ssl_max_protocol_version=tlsv1.2", "ssl_min_protocol_version=TLSv1"]
    {
        config(&format!("host=h sslmode=require {versions}"));
    }
    for versions in ["ssl_max_protocol_version=TLSv1.1", "ssl_min_protocol_version=SSLv3", "sslsni=x"] {
        refusal(&format!("host=h sslmode=require {versions}"));
    }
}

#[test]
fn several_hosts_give_one_configuration_each() {
    let several = |url: &str| -> Vec<(Vec<_>, Vec<u16>)> {
        let hosts = read(url).unwrap_or_else(|why| panic!("{url}: {}", why.text())).target.hosts;
        hosts.iter().map(|h| (h.config.get_hosts().to_vec(), h.config.get_ports().to_vec())).collect()
    };
    let tcp = |name: &str, port| (vec![tokio_postgres::config::Host::Tcp(name.to_owned())], vec![port]);
    let url = "postgresql://{{username}}:{{password}}@a:1,b,[::1]:2/d?sslmode=disable&target_session_attrs=primary";
    assert_eq!(several(url), [tcp("a", 1), tcp("b", 5432), tcp("::1", 2)]);
    assert_eq!(several("host=a,b port=7"), [tcp("a", 7), tcp("b", 7)]);
    assert_eq!(several("postgres://a/d?host=b,c&port=1,2"), [tcp("b", 1), tcp("c", 2)]);
    assert_eq!(
        refusal("postgresql://h/d?target_session_attrs=x"),
        "cannot parse connection url: unknown target_session_attrs value: x"
    );
    assert_eq!(refusal("postgresql://a,,b/d"), "cannot parse connection url: a host is empty");
    let hosts = |count: usize| format!("postgresql://{}/d", vec!["h"; count].join(","));
    assert_eq!(several(&hosts(32)).len(), 32);
    assert_eq!(refusal(&hosts(33)), "cannot parse connection url: it has more than 32 hosts");
    let split = "cannot parse connection url: host has a placeholder outside the host";
    assert_eq!(refusal("host=h,{{username}}"), split);
    assert_eq!(refusal(&"{{username}}".repeat(17)), "cannot parse connection url: it has more than 16 placeholders");
}

#[test]
fn disable_escaping_parses_credentials_like_the_connection_string() {
    let read = |url: &str, escaped: bool| {
        let details = json!({"connection_url": url, "username": "u%40x", "disable_escaping": escaped});
        let password = SecretString::new("'a b\\'c'".to_owned());
        let settings = Settings::read(&details::of_json(&details), &password, &FileDirectories::default()).unwrap();
        let config = &settings.target.hosts[0].config;
        let password = String::from_utf8(config.get_password().unwrap().to_vec()).unwrap();
        (config.get_user().unwrap().to_owned(), password)
    };
    let pair = |user: &str, password: &str| (user.to_owned(), password.to_owned());
    let (uri, keywords) =
        ("postgres://{{username}}:{{password}}@h/d", "host=h user={{username}} password={{password}}");
    assert_eq!(read(uri, false), pair("u%40x", "'a b\\'c'"));
    assert_eq!(read(uri, true), pair("u@x", "'a b\\'c'"));
    assert_eq!(read(keywords, false), pair("u%40x", "'a b\\'c'"));
    assert_eq!(read(keywords, true), pair("u%40x", "a b'c"));
}

#[test]
fn sec_kf05_files_and_sockets_are_refused_by_name() {
    for (parameter, setting) in [("sslrootcert", "tls_ca"), ("sslcert", "tls_certificate"), ("sslkey", "private_key")] {
        for url in [
            format!("postgresql://u:p@h/d?{parameter}=/dev/zero"),
            format!("postgresql://u:p@h/d?{parameter}=%2Fdev%2Fzero&sslmode=disable"),
            format!("host=h {parameter} = '/dev/zero'"),
            format!("host=h {parameter}=relative"),
        ] {
            let error_text = read_with(&url, json!({setting: "x"})).err().unwrap();
            let expected = format!(
                "{parameter} names a local file outside of database_file_directories of the server's configuration: give PEM in {setting}"
            );
            assert_eq!(error_text, OpenError::Setting(expected), "{url}");
        }
    }
    for url in [
        "host=/run/postgresql",
        "postgres://%2Frun%2Fpostgresql/d",
        "postgres:///d?host=/run/x",
        "host=@abstract",
        "host=a,/run/x",
    ] {
        assert!(
            matches!(read(url), Err(OpenError::Setting(error_text)) if error_text.starts_with("host names a local file")),
            "{url}"
        );
    }
    let directory = tempfile::tempdir().unwrap();
    let files = FileDirectories::new(&[directory.path().to_owned()]);
    let path = directory.path().display();
    let socket = read_in(&format!("host={path} sslmode=require"), json!({}), &files).unwrap();
    assert_eq!(socket.target.hosts[0].config.get_ssl_mode(), SslMode::Disable, "sockets have no TLS, as in libpq");
    let both = read_in(&format!("host={path} hostaddr=127.0.0.1 sslmode=require"), json!({}), &files);
    assert!(both.err().unwrap().text().contains("hostaddr is given for a host that is a directory of sockets"));
    assert!(
        read_in(&format!("host=h sslrootcert={path}/ca.pem"), json!({}), &files).is_ok(),
        "it is read at the connection"
    );
}

#[tokio::test]
async fn sec_kf05_files_are_read_per_connection_and_fail_with_one_text() {
    let directory = tempfile::tempdir().unwrap();
    let files = FileDirectories::new(&[directory.path().to_owned()]);
    let url = format!("host=h sslmode=require sslrootcert={}/ca.pem", directory.path().display());
    let settings = read_in(&url, json!({}), &files).unwrap();
    let error_text = async || settings.target.encryption.connector().await.err().map(|error| error.text().to_owned());
    let unusable = Some("the file of sslrootcert cannot be used".to_owned());
    assert_eq!(error_text().await, unusable);
    std::fs::create_dir(directory.path().join("ca.pem")).unwrap();
    assert_eq!(error_text().await, unusable);
    std::fs::remove_dir(directory.path().join("ca.pem")).unwrap();
    std::os::unix::fs::symlink("/etc/passwd", directory.path().join("ca.pem")).unwrap();
    assert_eq!(error_text().await, unusable);
    std::fs::remove_file(directory.path().join("ca.pem")).unwrap();
    std::fs::write(directory.path().join("ca.pem"), "nothing").unwrap();
    assert_eq!(error_text().await, unusable);
    let [certificate, _] = crate::secrets::database::tests::servers::certify(directory.path());
    std::fs::rename(certificate, directory.path().join("ca.pem")).unwrap();
    assert_eq!(error_text().await, None);
}
