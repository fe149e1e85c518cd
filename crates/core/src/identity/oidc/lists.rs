//! The name of an object in a path, and lists of names and ids.

use std::collections::BTreeMap;

use keepfast_framework::fields::Text;
use keepfast_framework::routes::Paged;
use keepfast_framework::{Cx, Error, Keys, Page, Records, Result};
use schemars::JsonSchema;
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

/// The name in a path.
#[derive(Deserialize, JsonSchema)]
pub(super) struct ByName {
    /// Name of the object.
    pub(super) name: Text,
}

/// The maximum number of names in the response to a list without a limit.
const MOST_LISTED: usize = 10_000;

/// The names of records, with one that exists without a record.
pub(super) async fn names<T: Serialize + DeserializeOwned>(
    cx: &mut Cx,
    records: &Records<T>,
    always: Option<&str>,
    req: Paged,
) -> Result<Vec<String>> {
    let Page { after, limit } = req.page();
    let page = Page { after: after.clone(), limit: Some(limit.unwrap_or(MOST_LISTED + 1)) };
    let mut names = records.list(cx, "", &page).await?;
    if let Some(always) = always
        && after.as_deref().is_none_or(|after| always > after)
        && !names.iter().any(|name| name == always)
    {
        names.push(always.to_owned());
        names.sort();
        names.truncate(page.limit.unwrap_or(usize::MAX));
    }
    if names.len() > MOST_LISTED {
        return Err(Error::invalid(format!("a list has at most {MOST_LISTED} entries: use 'after' and 'limit'")));
    }
    Ok(names)
}

/// Whether a list of ids has this one; `*` is all.
pub(super) fn has_id(ids: &[String], id: &str) -> bool {
    ids.iter().any(|known| known == "*" || known == id)
}

/// A list with information about each name.
pub(super) fn with_info<T: Serialize>(found: BTreeMap<String, T>) -> Result<Keys> {
    Keys::with_info(found.keys().cloned().collect(), &found)
}
