//! `custom_response_headers`: headers that the operator adds to responses of all statuses, of a class or of one.

use http::{HeaderName, HeaderValue};
use keepfast_edge::{CustomHeader, Statuses};
use keepfast_hcl::{Item, ValueKind};

use super::error::ConfigError;
use super::stanza::{Stanza, scalar};

/// Parses the block of a listener, widest rules first.
pub(super) fn read(stanza: &mut Stanza<'_>) -> Result<Vec<CustomHeader>, ConfigError> {
    let Some(block) = stanza.object("custom_response_headers")? else { return Ok(Vec::new()) };
    let mut out = Vec::new();
    for group in block.items() {
        let when = Statuses::parse(group.name()).ok_or_else(|| {
            block.fault(group.position(), format!("{:?} is not default, a status or a class such as 4xx", group.name()))
        })?;
        let body = match group.value.as_list() {
            Some([only]) => only.as_object(),
            _ => group.value.as_object(),
        };
        let body = body.ok_or_else(|| block.fault(group.position(), "headers of a status must be an object"))?;
        for item in &body.items {
            out.push(header(&block, when, item)?);
        }
    }
    out.sort_by_key(|h| h.when);
    Ok(out)
}

fn header(block: &Stanza<'_>, when: Statuses, item: &Item) -> Result<CustomHeader, ConfigError> {
    let fault =
        |message: &str| block.fault(item.position(), format!("custom response header {:?}: {message}", item.name()));
    let name = HeaderName::from_bytes(item.name().as_bytes()).map_err(|_| fault("not a header name"))?;
    if name.as_str().starts_with("x-vault-")
        || ["content-length", "transfer-encoding", "connection"].contains(&name.as_str())
    {
        return Err(fault("reserved"));
    }
    let values: Option<Vec<String>> = match &item.value.kind {
        ValueKind::List(values) => values.iter().map(scalar).collect(),
        _ => scalar(&item.value).map(|v| vec![v]),
    };
    let joined = values.ok_or_else(|| fault("values must be strings"))?.join("; ");
    let value = HeaderValue::from_str(&joined).map_err(|_| fault("not a header value"))?;
    Ok(CustomHeader { when, name, value })
}
