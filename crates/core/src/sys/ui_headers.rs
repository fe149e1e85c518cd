//! `sys/config/ui/headers`: response headers of the user interface.

use keepfast_framework::fields::{Flag, Strings, Text};
use keepfast_framework::routes::{Help, Nothing};
use keepfast_framework::{Cx, Error, Keys, Outcome, Records, Result, Routes};
use keepfast_storage::Page;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::value::to_raw_value;

use super::System;

const HELP: Help = Help {
    synopsis: "Configures response headers of the user interface.",
    description: "The headers are only stored: this server has no user interface.",
};

/// The headers by name, in canonical HTTP/1 form.
const HEADERS: Records<Vec<String>> = Records::at("config/ui/headers/");

pub(super) fn routes(r: &mut Routes<System>) {
    r.path("config/ui/headers/", HELP).list(list).sudo().root_only();
    r.path("config/ui/headers/{header}", HELP).read(read).update(write).delete(delete).sudo().root_only();
}

#[derive(Deserialize, JsonSchema)]
struct HeaderPath {
    /// Name of the header.
    header: Text,
}

#[derive(Deserialize, JsonSchema)]
struct Read {
    /// Name of the header.
    header: Text,
    /// Whether all values are returned instead of the first. Default: false.
    multivalue: Option<Flag>,
}

#[derive(Deserialize, JsonSchema)]
struct Write {
    /// Name of the header.
    header: Text,
    /// Values of the header.
    values: Option<Strings>,
    /// Ignored: all values are stored.
    #[allow(dead_code, reason = "named so that it is known")]
    multivalue: Option<Flag>,
}

#[derive(Serialize)]
struct HeaderResponse {
    #[serde(skip_serializing_if = "Option::is_none")]
    value: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    values: Option<Vec<String>>,
}

/// The canonical form of a header name: `X-Frame-Options` for `x-frame-options`.
fn canonical(name: &str) -> String {
    let mut begins = true;
    name.chars()
        .map(|c| {
            let c = if begins { c.to_ascii_uppercase() } else { c.to_ascii_lowercase() };
            begins = c == '-';
            c
        })
        .collect()
}

async fn list(_: &System, cx: &mut Cx, _: Nothing) -> Result<Keys> {
    let names = HEADERS.list(cx, "", &Page::default()).await?;
    if names.is_empty() {
        // Warnings of unknown parameters do not turn this 404 into a response, as they do for other empty lists.
        return Err(Error::not_found().because("no header is set"));
    }
    Ok(Keys::of(names))
}

async fn read(_: &System, cx: &mut Cx, req: Read) -> Result<keepfast_framework::Data<HeaderResponse>> {
    let values = HEADERS.get(cx, &canonical(&req.header)).await?.ok_or_else(Error::not_found)?;
    Ok(keepfast_framework::Data(if req.multivalue.is_some_and(|m| m.0) {
        HeaderResponse { value: None, values: Some(values) }
    } else {
        HeaderResponse { value: values.into_iter().next(), values: None }
    }))
}

async fn write(_: &System, cx: &mut Cx, req: Write) -> Result<Outcome> {
    let values = req.values.map(|v| v.0).unwrap_or_default();
    if req.header.is_empty() || values.is_empty() {
        return Err(Error::invalid("header and values must be specified"));
    }
    if req.header.to_ascii_lowercase().starts_with("x-vault-") {
        return Err(Error::invalid("X-Vault headers cannot be set"));
    }
    if req.header.eq_ignore_ascii_case("content-security-policy") {
        cx.warn("overriding default Content-Security-Policy which is secure by default, proceed with caution");
    }
    HEADERS.put(cx, &canonical(&req.header), &values)?;
    // 200 and not 204: clients distinguish them.
    Ok(Outcome::of(to_raw_value(&())?))
}

async fn delete(_: &System, cx: &mut Cx, req: HeaderPath) -> Result<()> {
    HEADERS.delete(cx, &canonical(&req.header));
    Ok(())
}
