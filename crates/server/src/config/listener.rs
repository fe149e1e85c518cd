//! The `listener` stanza: address, TLS, and the limits of requests.

use std::net::Ipv6Addr;
use std::time::Duration;

use keepfast_edge::{Bind, ClientCertificates, Forwarded, JsonLimits, Limits, ListenerConfig, TlsConfig};
use keepfast_framework::UnauthedEndpoints;
use keepfast_framework::token_params::parse_cidr;
use keepfast_hcl::{Item, Position, Suggestion};

use super::error::{ConfigError, Warning};
use super::headers;
use super::known_keys;
use super::stanza::{Labelled, Stanza};

/// Parses one `listener` block. Returns it with its `cluster_address`.
pub(super) fn read(
    block: Labelled<'_>,
    duration: Duration,
    warnings: &mut Vec<Warning>,
) -> Result<(ListenerConfig, Option<String>), ConfigError> {
    let Labelled { labels, position, mut stanza } = block;
    let kind = labels.first().copied().unwrap_or_default().to_ascii_lowercase();
    let (bind, cluster_address, tls) = match kind.as_str() {
        "tcp" => {
            let (bind, cluster_address) = (tcp(&mut stanza, warnings)?, cluster_address(&mut stanza)?);
            (bind, cluster_address, tls(&mut stanza, position, warnings)?)
        }
        "unix" => (unix(&mut stanza, position, warnings)?, None, None),
        _ => {
            let suggestion = Suggestion::of(&kind, &["tcp", "unix"]);
            return Err(stanza.fault(position, format!("unsupported listener type {kind:?}{suggestion}")));
        }
    };
    let limits = limits(&mut stanza, duration)?;
    let forwarded = forwarded(&mut stanza)?;
    if forwarded.authorized.is_empty() {
        let why = " without x_forwarded_for_authorized_addrs";
        stanza.without_effect_because(why, FORWARDED, warnings);
    }
    let headers = headers::read(&mut stanza)?;
    let open_metrics = match stanza.object("telemetry")? {
        None => false,
        Some(mut telemetry) => {
            let open = telemetry.flag("unauthenticated_metrics_access")?.unwrap_or(false);
            if telemetry.flag("metrics_only")?.unwrap_or(false) {
                let message = "metrics_only is not supported: the listener would serve the whole API";
                return Err(telemetry.fault(telemetry.position("metrics_only"), message));
            }
            telemetry.without_effect(known_keys::LISTENER_TELEMETRY, warnings);
            telemetry.finish(warnings);
            open
        }
    };
    let open_in_flight = match stanza.object("inflight_requests_logging")? {
        None => false,
        Some(mut logging) => {
            let open = logging.flag("unauthenticated_in_flight_requests_access")?.unwrap_or(false);
            logging.finish(warnings);
            open
        }
    };
    let mut is_open = |key| Ok::<_, ConfigError>(!stanza.flag(key)?.unwrap_or(true));
    let open = UnauthedEndpoints {
        rekey: is_open("disable_unauthed_rekey_endpoints")?,
        generate_root: is_open("disable_unauthed_generate_root_endpoints")?,
    };
    refuse_proxy_protocol(&mut stanza)?;
    stanza.without_effect(known_keys::LISTENER, warnings);
    stanza.finish(warnings);
    let listener = ListenerConfig { bind, tls, limits, forwarded, headers, open_metrics, open_in_flight, open };
    Ok((listener, cluster_address))
}

/// The address of the cluster port. Without one it is that of the listener with the next port.
fn cluster_address(stanza: &mut Stanza<'_>) -> Result<Option<String>, ConfigError> {
    let Some(address) = stanza.address("cluster_address")?.filter(|address| !address.is_empty()) else {
        return Ok(None);
    };
    let port = address.rsplit_once(':').filter(|_| has_port(&address)).map(|(_, port)| port);
    if address.parse::<Ipv6Addr>().is_ok() || port.is_none_or(|port| port.parse::<u16>().is_err()) {
        let message = format!("cluster_address {address:?} must be host:port with a port from 0 to 65535");
        return Err(stanza.fault(stanza.position("cluster_address"), message));
    }
    Ok(Some(address))
}

fn tcp(stanza: &mut Stanza<'_>, warnings: &mut Vec<Warning>) -> Result<Bind, ConfigError> {
    stanza.without_effect_because(" on a tcp listener", known_keys::UNIX_ONLY, warnings);
    let address = stanza.address("address")?.filter(|a| !a.is_empty()).unwrap_or_else(|| "127.0.0.1:8200".into());
    if address.parse::<Ipv6Addr>().is_ok() {
        return Ok(Bind::Tcp(format!("[{address}]:8200")));
    }
    let address = if has_port(&address) { address } else { format!("{address}:8200") };
    let port = address.rsplit_once(':').map_or("", |(_, port)| port);
    if port.parse::<u16>().is_err() {
        let message = format!("address {address:?} must be host:port with a port from 0 to 65535");
        return Err(stanza.fault(stanza.position("address"), message));
    }
    Ok(Bind::Tcp(address))
}

fn has_port(address: &str) -> bool {
    let behind_host = address.rsplit_once(']').map_or(address, |(_, rest)| rest);
    behind_host.contains(':')
}

fn unix(stanza: &mut Stanza<'_>, position: Position, warnings: &mut Vec<Warning>) -> Result<Bind, ConfigError> {
    stanza.without_effect_because(" on a unix listener", known_keys::TCP_ONLY, warnings);
    let Some(path) = stanza.text("address")? else {
        return Err(stanza.fault(position, "a unix listener needs an address: the path of its socket"));
    };
    let mode = match stanza.text("socket_mode")? {
        None => None,
        Some(text) if text.is_empty() => None,
        Some(text) => match u32::from_str_radix(text.trim_start_matches("0o"), 8) {
            Ok(mode) if mode <= 0o777 => Some(mode),
            _ => return Err(stanza.fault(position, "socket_mode must be octal permission bits such as \"0660\"")),
        },
    };
    let named = |text: Option<String>| text.filter(|t| !t.is_empty());
    Ok(Bind::Unix {
        path: path.into(),
        mode,
        user: named(stanza.text("socket_user")?),
        group: named(stanza.text("socket_group")?),
    })
}

/// Keys without effect when no proxy is authorized.
const FORWARDED: &[&str] =
    &["x_forwarded_for_hop_skips", "x_forwarded_for_reject_not_authorized", "x_forwarded_for_reject_not_present"];

/// Keys without effect on a listener without TLS.
const WITH_TLS: &[&str] =
    &["tls_cert_file", "tls_key_file", "tls_client_ca_file", "tls_require_and_verify_client_cert"];

fn tls(
    stanza: &mut Stanza<'_>,
    position: Position,
    warnings: &mut Vec<Warning>,
) -> Result<Option<TlsConfig>, ConfigError> {
    let disabled = stanza.flag("tls_disable")?.unwrap_or(false);
    let cert_file = stanza.text("tls_cert_file")?;
    let key_file = stanza.text("tls_key_file")?;
    let min = version(stanza, "tls_min_version", position, warnings)?.unwrap_or(12);
    let max = version(stanza, "tls_max_version", position, warnings)?.unwrap_or(13);
    let ca_file = stanza.text("tls_client_ca_file")?;
    let required = stanza.flag("tls_require_and_verify_client_cert")?.unwrap_or(false);
    let no_client_certs = stanza.flag("tls_disable_client_certs")?.unwrap_or(false);
    if disabled && required {
        return Err(stanza.fault(position, "tls_require_and_verify_client_cert contradicts tls_disable"));
    }
    if disabled {
        stanza.without_effect(known_keys::ACME, warnings);
        stanza.without_effect_because(" with tls_disable = true", WITH_TLS, warnings);
        return Ok(None);
    }
    let acme: Vec<&str> = known_keys::ACME.iter().copied().filter(|key| stanza.has(key)).collect();
    let given = |file: Option<String>| file.filter(|path| !path.is_empty());
    let (Some(cert_file), Some(key_file)) = (given(cert_file), given(key_file)) else {
        if let Some(key) = acme.first() {
            let message = format!(
                "{key}: certificates of an ACME authority are not supported; give tls_cert_file and tls_key_file"
            );
            return Err(stanza.fault(position, message));
        }
        return Err(
            stanza.fault(position, "a tcp listener needs tls_cert_file and tls_key_file, or tls_disable = true")
        );
    };
    stanza.without_effect(known_keys::ACME, warnings);
    if min > max {
        return Err(stanza.fault(position, "tls_min_version is above tls_max_version"));
    }
    if !required {
        let why = " without tls_require_and_verify_client_cert";
        stanza.without_effect_because(why, &["tls_client_ca_file"], warnings);
    }
    let clients = match (required, no_client_certs, ca_file) {
        (true, true, _) => {
            return Err(
                stanza.fault(position, "tls_require_and_verify_client_cert contradicts tls_disable_client_certs")
            );
        }
        (true, false, Some(ca)) => ClientCertificates::Required(ca.into()),
        (true, false, None) => {
            return Err(stanza.fault(position, "tls_require_and_verify_client_cert needs tls_client_ca_file"));
        }
        (false, true, _) => ClientCertificates::Disabled,
        (false, false, _) => ClientCertificates::Requested,
    };
    Ok(Some(TlsConfig {
        cert_file: cert_file.into(),
        key_file: key_file.into(),
        tls12: min <= 12,
        tls13: max >= 13,
        clients,
    }))
}

/// Parses a TLS version to 12 or 13. Older versions are not supported: they are read as 1.2, with a warning.
fn version(
    stanza: &mut Stanza<'_>,
    key: &'static str,
    position: Position,
    warnings: &mut Vec<Warning>,
) -> Result<Option<u8>, ConfigError> {
    match stanza.text(key)?.as_deref() {
        None | Some("") => Ok(None),
        Some("tls12") => Ok(Some(12)),
        Some("tls13") => Ok(Some(13)),
        Some("tls10" | "tls11") => {
            warnings.push(
                stanza.warning(position, format!("{key}: TLS 1.0 and 1.1 are not offered; TLS 1.2 is the oldest")),
            );
            Ok(Some(12))
        }
        Some(_) => Err(stanza.fault(position, format!("{key} must be tls12 or tls13"))),
    }
}

fn limits(stanza: &mut Stanza<'_>, duration: Duration) -> Result<Limits, ConfigError> {
    let standard = Limits::default();
    let json = standard.json;
    let timeout = |given: Option<Duration>, standard: Duration| given.filter(|d| !d.is_zero()).unwrap_or(standard);
    Ok(Limits {
        body: bound(stanza.size("max_request_size")?, standard.body),
        duration: timeout(stanza.duration("max_request_duration")?, duration),
        json: JsonLimits {
            memory: bound(stanza.size("max_request_json_memory")?, json.memory),
            strings: bound(stanza.integer("max_request_json_strings")?, json.strings),
            depth: bound(stanza.integer("max_json_depth")?, json.depth),
            string_length: bound(stanza.size("max_json_string_value_length")?, json.string_length),
            object_entries: bound(stanza.integer("max_json_object_entry_count")?, json.object_entries),
            array_elements: bound(stanza.integer("max_json_array_element_count")?, json.array_elements),
        },
        token: bound(stanza.size("max_token_header_size")?, standard.token),
        header_timeout: timeout(stanza.duration("http_read_header_timeout")?, standard.header_timeout),
        read_timeout: timeout(stanza.duration("http_read_timeout")?, standard.read_timeout),
        idle_timeout: timeout(stanza.duration("http_idle_timeout")?, standard.idle_timeout),
        handshake_timeout: standard.handshake_timeout,
        connections_per_source: bound(stanza.integer("max_connections_per_source")?, standard.connections_per_source),
    })
}

/// The value of a limit: 0 and absence are the default, a negative number means no limit.
fn bound(given: Option<i64>, standard: usize) -> usize {
    match given {
        None | Some(0) => standard,
        Some(n) => usize::try_from(n).unwrap_or(usize::MAX),
    }
}

fn forwarded(stanza: &mut Stanza<'_>) -> Result<Forwarded, ConfigError> {
    let mut place = |key| Ok::<_, ConfigError>(stanza.item(key)?.map_or(Position::START, Item::position));
    let (authorized_at, skips_at) = (place("x_forwarded_for_authorized_addrs")?, place("x_forwarded_for_hop_skips")?);
    let mut authorized = Vec::new();
    for text in stanza.list("x_forwarded_for_authorized_addrs")?.unwrap_or_default() {
        match parse_cidr(&text) {
            Some(net) => authorized.push(net),
            None => return Err(stanza.fault(authorized_at, format!("{text:?} is neither an address nor a network"))),
        }
    }
    let hop_skips = usize::try_from(stanza.integer("x_forwarded_for_hop_skips")?.unwrap_or(0));
    Ok(Forwarded {
        authorized,
        hop_skips: hop_skips.map_err(|_| stanza.fault(skips_at, "x_forwarded_for_hop_skips cannot be negative"))?,
        reject_not_present: stanza.flag("x_forwarded_for_reject_not_present")?.unwrap_or(false),
        reject_not_authorized: stanza.flag("x_forwarded_for_reject_not_authorized")?.unwrap_or(false),
    })
}

/// Refuses the PROXY protocol: a header that is trusted without a complete parser would let anyone choose an address.
fn refuse_proxy_protocol(stanza: &mut Stanza<'_>) -> Result<(), ConfigError> {
    for key in ["proxy_protocol_behavior", "proxy_protocol_authorized_addrs"] {
        if let Some(item) = stanza.item(key)? {
            return Err(stanza.fault(
                item.position(),
                format!("{key}: the PROXY protocol is not supported; use x_forwarded_for_authorized_addrs"),
            ));
        }
    }
    Ok(())
}
