//! The `audit` stanzas.

use std::collections::BTreeMap;

use keepfast_core::audit::DeviceOptions;
use keepfast_core::settings::AuditSettings;

use super::stanza::Labelled;
use super::top_level::Config;
use super::{ConfigError, Warning};

/// Parses `audit "file" "NAME" { options { file_path = … } }` and checks the options.
pub(super) fn read(
    block: Labelled<'_>,
    config: &Config,
    warnings: &mut Vec<Warning>,
) -> Result<AuditSettings, ConfigError> {
    let Labelled { labels, position, mut stanza } = block;
    let device = labels.first().copied().unwrap_or_default().to_owned();
    let name = labels.get(1).copied().unwrap_or_default().trim_matches('/').to_owned();
    if device != "file" {
        return Err(stanza.fault(position, format!("unknown audit device type {device:?}; there is \"file\"")));
    }
    if name.is_empty() || config.audit.iter().any(|d| d.name == name) {
        return Err(stanza.fault(position, format!("audit device name {name:?} is empty or used twice")));
    }
    let description = stanza.text("description")?.unwrap_or_default();
    let options: BTreeMap<String, String> = match stanza.object("options")? {
        Some(options) => options.pairs()?.into_iter().collect(),
        None => BTreeMap::new(),
    };
    let refused = |why: &str| stanza.fault(position, format!("audit device {name:?}: {why}"));
    if !options.contains_key("file_path") && !options.contains_key("path") {
        return Err(refused("an audit device of type file needs options { file_path = … }"));
    }
    let read = DeviceOptions::read(&device, &options).map_err(|why| refused(&why))?;
    if read.has_prefix() && !config.allow_audit_log_prefixing {
        return Err(refused("audit log prefixing is not allowed; set allow_audit_log_prefixing = true"));
    }
    for unknown in DeviceOptions::unknown(&options) {
        let text = format!("unknown option {unknown} of audit device {name:?} has no effect");
        warnings.push(stanza.warning(position, text));
    }
    stanza.without_effect(&["local"], warnings);
    let settings = AuditSettings { device, name, description, options };
    stanza.finish(warnings);
    Ok(settings)
}
