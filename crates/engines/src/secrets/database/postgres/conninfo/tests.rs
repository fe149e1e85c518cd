//! The grammar with texts that libpq and pgx accept.

use proptest::prelude::*;

use super::*;
use crate::secrets::database::placeholders::Credentials;

fn parameters(text: &str) -> Result<Vec<(String, String)>, &'static str> {
    let credentials = Credentials::new("U&=@".to_owned(), "P' \\")?;
    let info = ConnInfo::parse(text)?;
    Ok(info.parameters().map(|(name, value)| (name.to_owned(), value.fill(&credentials))).collect())
}

fn reads_as(text: &str, expected: &[(&str, &str)]) {
    let read = parameters(text).unwrap();
    let read: Vec<(&str, &str)> = read.iter().map(|(name, value)| (name.as_str(), value.as_str())).collect();
    assert_eq!(read, expected, "{text}");
}

#[test]
fn keywords_are_parsed_with_blanks_quotes_and_escapes() {
    let require = [("host", "h"), ("sslmode", "require")];
    for text in [
        "host=h sslmode=require",
        "host=h sslmode = require",
        "host=h\nsslmode=require",
        "host=h\tsslmode\n=\r\n'require'",
        "\x0bhost='h'sslmode=r\\equire",
        "host=h sslmode=disable sslmode=require",
    ] {
        reads_as(text, &require);
    }
    reads_as(
        "user={{username}} password='{{password}}' dbname='a\\'b \\\\ c' application_name= ''database=''",
        &[("user", "U&=@"), ("password", "P' \\"), ("application_name", ""), ("dbname", "")],
    );
    for text in ["nonsense", "a b=c", "=x", "a='x", "a=x\\", "", " ", "a=\0", "SSLMODE"] {
        assert!(parameters(text).is_err(), "{text:?}");
    }
}

#[test]
fn uris_are_parsed_with_escapes_hosts_and_repeated_parameters() {
    for query in
        ["sslmode=require", "%73slmode=require", "sslmode=%72equire", "sslmode=disable&sslmode=require", "ssl=true"]
    {
        reads_as(&format!("postgres://h?{query}"), &[("host", "h"), ("sslmode", "require")]);
    }
    reads_as(
        "postgresql://{{username}}:{{password}}@[::1]:5,%2Frun%2Fpg,b:6/d%20b/c?a=x+y%2B&options=-c%20a=b",
        &[
            ("user", "U&=@"),
            ("password", "P' \\"),
            ("host", "::1,/run/pg,b"),
            ("port", "5,,6"),
            ("dbname", "d b/c"),
            ("a", "x y+"),
            ("options", "-c a=b"),
        ],
    );
    reads_as("postgres://u:p@x@h/d?user=v", &[("password", "p@x"), ("host", "h"), ("dbname", "d"), ("user", "v")]);
    reads_as("postgres:///d?host=/tmp", &[("dbname", "d"), ("host", "/tmp")]);
    for text in [
        "postgres://h/d?sslmode",
        "postgres://h/d?a=%zz",
        "postgres://h/d?a=%00",
        "postgres://h/d#x",
        "postgres://h/d?sslmode=require\n",
        "postgres://[::1/d",
        "postgres://[::1]x/d",
        "POSTGRES://h/d",
    ] {
        assert!(parameters(text).is_err(), "{text:?}");
    }
}

#[test]
fn sec_kf08_no_spelling_of_a_password_is_returned() {
    let public = |name: &str| matches!(name, "host" | "port" | "user" | "dbname" | "sslmode");
    for (text, expected) in [
        ("postgresql://u:geheim@h/d", "postgresql://u:xxxxx@h/d"),
        ("postgresql://u:geh:eim@g@h/d", "postgresql://u:xxxxx@h/d"),
        ("postgres://:geheim@h/d", "postgres://:xxxxx@h/d"),
        ("postgres://u:a{{password}}geheim@h/d", "postgres://u:xxxxx@h/d"),
        ("postgres://h/d?user=u&password=geheim", "postgres://h/d?user=u&password=xxxxx"),
        ("postgres://h/d?%70assword=geheim", "postgres://h/d?password=xxxxx"),
        ("postgres://h/d?PASSWORD=geheim&pass%20word=geheim", "postgres://h/d?xxxxx=xxxxx&xxxxx=xxxxx"),
        ("postgres://h/d?sslpassword=geheim&geheim%26=1", "postgres://h/d?xxxxx=xxxxx&xxxxx=xxxxx"),
        ("postgres://h/d?password={{password}}&password=geheim", "postgres://h/d?password={{password}}&password=xxxxx"),
        (
            "postgresql://{{username}}:{{password}}@h:1,[::1]:2/d?sslmode=disable",
            "postgresql://{{username}}:{{password}}@h:1,[::1]:2/d?sslmode=disable",
        ),
        ("postgres://u@h", "postgres://u@h"),
        ("host=h password = geheim", "host=h password=xxxxx"),
        ("host=h PASSWORD=geheim", "host=h xxxxx=xxxxx"),
        ("host=h\tpassword=geheim", "host=h password=xxxxx"),
        ("host=h\npassword='a geheim' user='a b'", "host=h password=xxxxx user='a b'"),
        ("password=geheim\\ geheim host=h", "password=xxxxx host=h"),
        ("host=h password={{password}}", "host=h password={{password}}"),
        ("host=h password=a geheim=1", "host=h password=xxxxx xxxxx=xxxxx"),
        ("host=h 'geheim'=1", "host=h xxxxx=xxxxx"),
    ] {
        assert_eq!(ConnInfo::parse(text).unwrap().masked(public).as_deref(), Some(expected), "{text}");
    }
}

#[test]
fn sec_kf08_what_may_be_part_of_a_password_is_not_returned() {
    for text in [
        "postgres://u:12/geheim@h/d",
        "postgres://u:p@geheim/x@h/d",
        "postgres://u:12?a=geheim@h",
        "postgres://u:p@geheim?user=a@h",
    ] {
        assert_eq!(ConnInfo::parse(text).unwrap().masked(|_| true), None, "{text}");
    }
    assert_eq!(ConnInfo::parse("postgres://u:geheim"), Err("a port is not a number"));
    let mixed = ConnInfo::parse("host=h user='a {{username}}'").unwrap().masked(|_| true);
    assert_eq!(mixed.as_deref(), Some("host=h user='a {{username}}'"));
}

proptest! {
    #[test]
    fn parsing_inverts_quoting(value in "[^\\x00{]{1,40}") {
        let text = format!("host=h password={}", quoted(&value));
        prop_assert_eq!(&parameters(&text).unwrap()[1].1, &value);
        let text = format!("postgres://u:{}@h/d?a={}", percent_encode_authority(&value), percent_encode(&value));
        let read = parameters(&text).unwrap();
        prop_assert_eq!((&read[1].1, &read[4].1), (&value, &value));
    }

    #[test]
    fn no_text_panics(text in "(postgres://)?[a-z'\\\\ =&?/:@,%\\[\\]{}\n]{0,80}") {
        if let Some(shown) = ConnInfo::parse(&text).ok().and_then(|info| info.masked(|_| true)) {
            prop_assert!(ConnInfo::parse(&shown).is_ok(), "{}", shown);
        }
    }
}
