//! Templates in addresses: `{{ GetInterfaceIP "eth0" }}:8200`, in the language of go-sockaddr, as in Vault and OpenBao.
//!
//! A subset of <https://pkg.go.dev/github.com/hashicorp/go-sockaddr/template>: pipelines of the functions below. Other
//! functions are refused by name, and so is an expression that finds no address or several. An IPv6 address gets
//! brackets when a port follows.

use std::io;
use std::net::Ipv6Addr;

use super::interface_filters::{attribute, select, sort};
use super::interfaces::{self, InterfaceAddress};

/// The longest text with a template, in bytes.
const MAX_TEXT: usize = 4096;
/// The most functions of one pipeline.
const MAX_STAGES: usize = 32;

/// Replaces the templates of a text by addresses of this machine. Returns a text without templates unchanged.
///
/// # Errors
/// When a template is invalid or finds no address; the text is the reason.
pub(super) fn expand(text: &str) -> Result<String, String> {
    if !text.contains("{{") {
        return Ok(text.to_owned());
    }
    let machine = interfaces::of_this_machine();
    let addresses = machine.map_err(|error: io::Error| format!("the network interfaces cannot be read: {error}"))?;
    expand_with(text, &addresses)
}

fn expand_with(text: &str, machine: &[InterfaceAddress]) -> Result<String, String> {
    if text.len() > MAX_TEXT {
        return Err(format!("an address with a template is longer than {MAX_TEXT} bytes"));
    }
    let (mut out, mut rest) = (String::new(), text);
    while let Some((before, from)) = rest.split_once("{{") {
        let (inside, behind) = split_at_end(from)?;
        let (trim_before, inside) = strip_trim(inside, str::strip_prefix);
        let (trim_behind, inside) = strip_trim(inside, str::strip_suffix);
        out.push_str(if trim_before { before.trim_end() } else { before });
        rest = if trim_behind { behind.trim_start() } else { behind };
        let address = evaluate(inside, machine).map_err(|error| format!("template {{{{{inside}}}}}: {error}"))?;
        let needs_brackets = rest.starts_with(':') && !out.ends_with('[') && address.parse::<Ipv6Addr>().is_ok();
        out.push_str(&if needs_brackets { format!("[{address}]") } else { address });
    }
    out.push_str(rest);
    Ok(out)
}

/// Go's trim markers: `{{-` and `-}}`.
fn strip_trim<'a>(inside: &'a str, strip: impl Fn(&'a str, char) -> Option<&'a str>) -> (bool, &'a str) {
    strip(inside, '-').map_or((false, inside), |inner| (true, inner))
}

/// Splits the text after `{{` at the `}}` that is not in a string.
fn split_at_end(from: &str) -> Result<(&str, &str), String> {
    let mut quote = None;
    let mut escaped = false;
    for (at, c) in from.char_indices() {
        match quote {
            Some('"') if escaped => escaped = false,
            Some('"') if c == '\\' => escaped = true,
            Some(open) if c == open => quote = None,
            Some(_) => {}
            None if c == '"' || c == '`' => quote = Some(c),
            None if from.get(at..).is_some_and(|rest| rest.starts_with("}}")) => {
                let (inside, behind) = from.split_at(at);
                return Ok((inside, behind.get(2..).unwrap_or_default()));
            }
            None => {}
        }
    }
    Err("a template has no closing }}".into())
}

/// The output of a stage of a pipeline.
enum Output {
    Addresses(Vec<InterfaceAddress>),
    Text(String),
}

/// Evaluates a pipeline to its only address.
fn evaluate(pipeline: &str, machine: &[InterfaceAddress]) -> Result<String, String> {
    let stages = stages(pipeline)?;
    let mut current: Option<Output> = None;
    for (name, arguments) in &stages {
        current = Some(match current.take() {
            None => source(name, arguments, machine)?,
            Some(Output::Addresses(addresses)) => filter(name, arguments, addresses)?,
            Some(Output::Text(_)) => return Err(format!("{name:?} cannot follow a function that gives text")),
        });
    }
    let text = match current {
        Some(Output::Text(text)) => text,
        Some(Output::Addresses(_)) => return Err("it gives interfaces; end it with attr \"address\"".into()),
        None => return Err("it is empty".into()),
    };
    match text.split_ascii_whitespace().collect::<Vec<_>>()[..] {
        [] => Err("no address of this machine matches".into()),
        [one] => Ok(one.to_owned()),
        _ => Err(format!("it gives several addresses ({text})")),
    }
}

/// `GetPrivateInterfaces` or `GetPublicInterfaces` of go-sockaddr.
fn forwardable(machine: &[InterfaceAddress], private: bool) -> Result<Vec<InterfaceAddress>, String> {
    let mut found = select(machine.to_vec(), "flags", "forwardable|up", true)?;
    sort(&mut found, "default,type,size")?;
    select(found, "rfc", "6890", private)
}

fn source(name: &str, arguments: &[String], machine: &[InterfaceAddress]) -> Result<Output, String> {
    let first = |addresses: Vec<InterfaceAddress>| addresses.into_iter().take(1).collect::<Vec<_>>();
    let count = usize::from(name.starts_with("GetInterfaceIP"));
    let addresses = match name {
        "." | "GetAllInterfaces" => machine.to_vec(),
        "GetDefaultInterfaces" => machine.iter().filter(|one| one.has_default_route).cloned().collect(),
        "GetPrivateInterfaces" | "GetPrivateIPs" => forwardable(machine, true)?,
        "GetPublicInterfaces" | "GetPublicIPs" => forwardable(machine, false)?,
        "GetPrivateIP" => first(forwardable(machine, true)?),
        "GetPublicIP" => first(forwardable(machine, false)?),
        "GetInterfaceIP" | "GetInterfaceIPs" => {
            let [interface] = arguments else { return Err(format!("{name} takes the name of an interface")) };
            let mut found: Vec<_> = machine.iter().filter(|one| one.interface == *interface).cloned().collect();
            if found.is_empty() {
                return Err(format!("this machine has no interface {interface:?} with an address"));
            }
            sort(&mut found, "type,size")?;
            let found = select(found, "flags", "forwardable", true)?;
            if name == "GetInterfaceIP" { first(found) } else { found }
        }
        _ => return Err(format!("unknown function {name:?}")),
    };
    if arguments.len() != count {
        return Err(format!("{name} takes {count} arguments, not {}", arguments.len()));
    }
    if name.ends_with("IP") || name.ends_with("IPs") {
        return joined(&addresses, "address", " ");
    }
    Ok(Output::Addresses(addresses))
}

fn filter(name: &str, arguments: &[String], mut addresses: Vec<InterfaceAddress>) -> Result<Output, String> {
    let arguments: Vec<&str> = arguments.iter().map(String::as_str).collect();
    let addresses = match (name, &arguments[..]) {
        ("include" | "exclude", [selector, parameter]) => select(addresses, selector, parameter, name == "include")?,
        ("sort", [keys]) => {
            sort(&mut addresses, keys)?;
            addresses
        }
        ("limit", [count]) => addresses.into_iter().take(number(count)?).collect(),
        ("offset", [count]) => addresses.into_iter().skip(number(count)?).collect(),
        ("unique", [key]) => {
            let keys: Result<Vec<String>, String> = addresses.iter().map(|one| attribute(one, key)).collect();
            let mut last = None;
            let kept = addresses.into_iter().zip(keys?).filter_map(|(one, key)| {
                let is_new = last.as_ref() != Some(&key);
                last = Some(key);
                is_new.then_some(one)
            });
            kept.collect()
        }
        ("attr", [key]) => {
            addresses.truncate(1);
            return joined(&addresses, key, " ");
        }
        ("join", [key, separator]) => return joined(&addresses, key, separator),
        ("include" | "exclude" | "sort" | "limit" | "offset" | "unique" | "attr" | "join", _) => {
            return Err(format!("{name} takes another number of arguments"));
        }
        _ => return Err(format!("unknown function {name:?}")),
    };
    Ok(Output::Addresses(addresses))
}

fn joined(addresses: &[InterfaceAddress], key: &str, separator: &str) -> Result<Output, String> {
    let texts: Result<Vec<String>, String> = addresses.iter().map(|one| attribute(one, key)).collect();
    Ok(Output::Text(texts?.join(separator)))
}

fn number(text: &str) -> Result<usize, String> {
    text.parse().map_err(|_| format!("{text:?} is no count"))
}

/// Splits a pipeline into its stages: a function and its arguments each.
fn stages(pipeline: &str) -> Result<Vec<(String, Vec<String>)>, String> {
    let mut stages = Vec::new();
    let mut words: Vec<String> = Vec::new();
    let mut rest = pipeline.trim_start();
    loop {
        let end = rest.is_empty();
        if end || rest.starts_with('|') {
            let mut all = std::mem::take(&mut words).into_iter();
            let Some(name) = all.next() else { return Err("a function is missing".into()) };
            stages.push((name, all.collect()));
            if end {
                return Ok(stages);
            }
            if stages.len() == MAX_STAGES {
                return Err(format!("it has more than {MAX_STAGES} functions"));
            }
            rest = rest.get(1..).unwrap_or_default().trim_start();
            continue;
        }
        let (word, behind) = word(rest, words.is_empty())?;
        words.push(word);
        rest = behind.trim_start();
    }
}

/// Splits off the next word: the name of a function, a number, or a string in `"` or backquotes.
fn word(text: &str, is_name: bool) -> Result<(String, &str), String> {
    if !is_name && let Some(raw) = text.strip_prefix('`') {
        let (inside, behind) = raw.split_once('`').ok_or("a string has no end")?;
        return Ok((inside.to_owned(), behind));
    }
    if !is_name && let Some(quoted) = text.strip_prefix('"') {
        return string(quoted);
    }
    let end = text.find(|c: char| !(c.is_ascii_alphanumeric() || "._$".contains(c))).unwrap_or(text.len());
    let (word, behind) = text.split_at(end);
    let is_number = word.bytes().all(|b| b.is_ascii_digit());
    match word {
        "" => Err(format!("unexpected {:?}", text.chars().next().unwrap_or_default())),
        _ if is_name || is_number => Ok((word.to_owned(), behind)),
        _ => Err(format!("{word:?} is neither a number nor a string")),
    }
}

/// Splits the text after an opening `"` at the closing one.
fn string(quoted: &str) -> Result<(String, &str), String> {
    let mut out = String::new();
    let mut chars = quoted.char_indices();
    while let Some((at, c)) = chars.next() {
        match c {
            '"' => return Ok((out, quoted.get(at + 1..).unwrap_or_default())),
            '\\' => match chars.next() {
                Some((_, c @ ('"' | '\\'))) => out.push(c),
                _ => return Err("only \\\" and \\\\ may be escaped in a string".into()),
            },
            c => out.push(c),
        }
    }
    Err("a string has no end".into())
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used)]
    use nix::net::if_::InterfaceFlags;
    use proptest::prelude::*;

    use super::*;

    fn machine() -> Vec<InterfaceAddress> {
        let up = InterfaceFlags::IFF_UP;
        let of = |interface: &str, address: &str, flags, has_default_route| InterfaceAddress {
            interface: interface.into(),
            address: address.parse().unwrap(),
            flags,
            has_default_route,
        };
        vec![
            of("lo", "127.0.0.1/8", up | InterfaceFlags::IFF_LOOPBACK, false),
            of("eth1", "10.1.2.3/8", up, false),
            of("eth0", "192.168.7.5/24", up | InterfaceFlags::IFF_BROADCAST, true),
            of("eth0", "fd00::5/64", up, true),
            of("eth2", "8.8.4.4/32", up, false),
            of("eth3", "10.9.9.9/16", InterfaceFlags::empty(), false),
        ]
    }

    fn expanded(text: &str) -> Result<String, String> {
        expand_with(text, &machine())
    }

    #[test]
    fn templates_of_public_configurations_expand() {
        for (template, expected) in [
            ("127.0.0.1:8200", "127.0.0.1:8200"),
            ("http://{{ GetPrivateIP }}:8200", "http://192.168.7.5:8200"),
            ("{{GetPublicIP}}", "8.8.4.4"),
            ("{{ GetInterfaceIP \"eth1\" }}:8201", "10.1.2.3:8201"),
            ("{{ GetInterfaceIP `eth1` }}:8201", "10.1.2.3:8201"),
            ("{{ GetAllInterfaces | include \"network\" \"10.0.0.0/8\" | attr \"address\" }}", "10.1.2.3"),
            (
                "{{ GetAllInterfaces | include \"name\" \"eth\" | sort \"-name\" | limit 1 | attr \"address\" }}",
                "10.9.9.9",
            ),
            ("{{ . | exclude \"flags\" \"up\" | attr \"address\" }}:1", "10.9.9.9:1"),
            ("{{ GetDefaultInterfaces | exclude \"type\" \"IPv6\" | join \"address\" \" \" }}", "192.168.7.5"),
            ("{{ GetDefaultInterfaces | include \"type\" \"ipv6\" | attr \"address\" }}:8200", "[fd00::5]:8200"),
            ("[{{ GetDefaultInterfaces | include \"type\" \"ipv6\" | attr \"address\" }}]:8200", "[fd00::5]:8200"),
            ("{{ GetPrivateInterfaces | sort \"size\" | attr \"network\" }}", "10.0.0.0/8"),
            ("{{ GetAllInterfaces | sort \"-size,name\" | offset 1 | attr \"name\" }}", "eth2"),
            (
                "{{ GetAllInterfaces | include \"rfc\" \"1918|6598\" | unique \"name\" | offset 2 | attr \"name\" }}",
                "eth3",
            ),
            ("a {{- GetPublicIP -}} b", "a8.8.4.4b"),
        ] {
            assert_eq!(expanded(template).as_deref(), Ok(expected), "{template}");
        }
    }

    #[test]
    fn unsupported_functions_are_refused_by_name() {
        for (template, expected) in [
            ("{{ GetPrivteIP }}", "unknown function \"GetPrivteIP\""),
            ("{{ env \"HOME\" }}", "unknown function \"env\""),
            ("{{ GetAllInterfaces | math \"network\" \"+1\" | attr \"address\" }}", "unknown function \"math\""),
            ("{{ if true }}", "\"true\" is neither a number nor a string"),
            ("{{ GetAllInterfaces | include \"colour\" \"red\" | attr \"address\" }}", "unknown selector \"colour\""),
            ("{{ GetAllInterfaces | attr \"colour\" }}", "unknown attribute \"colour\""),
            ("{{ GetAllInterfaces | include \"rfc\" \"1\" | attr \"name\" }}", "unsupported RFC \"1\""),
            ("{{ GetInterfaceIP \"eth9\" }}", "no interface \"eth9\""),
            ("{{ GetInterfaceIP \"lo\" }}", "no address of this machine matches"),
            ("{{ GetInterfaceIP }}", "takes the name of an interface"),
            ("{{ GetPrivateIPs }}", "it gives several addresses"),
            ("{{ GetAllInterfaces }}", "end it with attr"),
            ("{{ GetPrivateIP | attr \"address\" }}", "cannot follow a function that gives text"),
            ("{{ GetAllInterfaces | include \"name\" \"(\" | attr \"name\" }}", "pattern \"(\""),
            ("{{ GetPrivateIP", "no closing }}"),
            ("{{ }}", "a function is missing"),
            ("{{ GetAllInterfaces | }}", "a function is missing"),
            ("{{ GetInterfaceIP \"eth0 }}", "no closing }}"),
            ("{{ (GetPrivateIP) }}", "unexpected '('"),
        ] {
            let error = expanded(template).unwrap_err();
            assert!(error.contains(expected), "{template}: {error}");
        }
        assert!(expanded(&format!("{{{{ {} . }}}}", ". | ".repeat(100))).is_err());
        assert!(expanded(&format!("{}{{{{.}}}}", "x".repeat(5000))).is_err());
    }

    proptest! {
        #[test]
        fn no_template_panics(text in "[{}|.\"`\\\\a-zA-Z -]{0,60}") {
            let _ = expanded(&text);
        }
    }
}
