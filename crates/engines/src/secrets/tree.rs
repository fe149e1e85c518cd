//! Names under a prefix of a mount's storage that form a tree of folders, listed one level or all levels deep.

use keepfast_framework::engine::Gauge;
use keepfast_framework::fields::{Int, Text};
use keepfast_framework::pace::Pace;
use keepfast_framework::{Cx, Page, Result};
use schemars::JsonSchema;
use serde::Deserialize;

/// How many names one step of a count reads.
const COUNTED: usize = 1000;

/// What a list or a scan is asked for.
#[derive(Clone, Deserialize, JsonSchema)]
pub(crate) struct Listing {
    /// Location of the folder.
    path: Text,
    /// Only names that come after this one; it need not exist.
    after: Option<Text>,
    /// At most so many names; all of them if it is not positive.
    limit: Option<Int>,
}

impl Listing {
    /// The folder's path: empty for the root, else ending in `/`.
    pub(crate) fn folder(&self) -> String {
        folder(&self.path)
    }

    /// The part that is asked for.
    pub(crate) fn page(&self) -> Page {
        Page {
            after: self.after.as_ref().filter(|after| !after.is_empty()).map(|after| after.0.clone()),
            limit: self.limit.and_then(|limit| usize::try_from(limit.0).ok()).filter(|limit| *limit > 0),
        }
    }
}

/// A path as the prefix of what is below it.
fn folder(path: &str) -> String {
    match path {
        "" => String::new(),
        folder if folder.ends_with('/') => folder.to_owned(),
        name => format!("{name}/"),
    }
}

/// One tree, kept under one or two prefixes of the storage (two while records move from one to the other).
pub(crate) struct Tree<'a> {
    prefixes: &'a [&'a str],
}

impl<'a> Tree<'a> {
    /// The tree under all of these prefixes, each ending in `/`.
    pub(crate) fn under(prefixes: &'a [&'a str]) -> Self {
        Tree { prefixes }
    }

    /// The names one level below `folder`, sorted; those of folders end in `/`.
    ///
    /// # Errors
    /// When storage fails.
    pub(crate) async fn list(&self, cx: &mut Cx, folder: &str, page: &Page) -> Result<Vec<String>> {
        let (tx, view) = cx.store();
        let mut names = Vec::new();
        for prefix in self.prefixes {
            names.append(&mut tx.list(view, &format!("{prefix}{folder}"), page).await?);
        }
        if self.prefixes.len() > 1 {
            names.sort_unstable();
            names.dedup();
            names.truncate(page.limit.unwrap_or(usize::MAX));
        }
        Ok(names)
    }

    /// The paths at every level below `folder`, relative to it, in the order of their bytes.
    ///
    /// # Errors
    /// When storage fails.
    pub(crate) async fn scan(&self, cx: &mut Cx, folder: &str, page: &Page) -> Result<Vec<String>> {
        if page.after.is_none() && page.limit.is_none() {
            return self.whole(cx, folder).await;
        }
        let after = page.after.as_deref();
        let limit = page.limit.unwrap_or(usize::MAX);
        let mut found = Vec::new();
        let root = self.list(cx, folder, &Page::all()).await?;
        let mut open = vec![(String::new(), root.into_iter())];
        while let Some((inside, names)) = open.last_mut() {
            let Some(name) = names.next() else {
                open.pop();
                continue;
            };
            let path = format!("{inside}{name}");
            let passed = after.is_some_and(|after| path.as_str() <= after);
            if path.ends_with('/') {
                if passed && !after.is_some_and(|after| after.starts_with(&path)) {
                    continue;
                }
                let below = self.list(cx, &format!("{folder}{path}"), &Page::all()).await?;
                open.push((path, below.into_iter()));
            } else if !passed {
                found.push(path);
                if found.len() >= limit {
                    break;
                }
            }
        }
        Ok(found)
    }

    /// How many names there are at all levels, as the metrics tell it of KV. Reads a page of names at a time, and takes its time.
    ///
    /// # Errors
    /// When storage fails.
    pub(crate) async fn usage(&self, cx: &mut Cx) -> Result<Vec<Gauge>> {
        let mut pace = Pace::new(cx.clock().clone());
        let mut count = 0_usize;
        let mut open = vec![(String::new(), Page::first(COUNTED))];
        while let Some((folder, page)) = open.pop() {
            let names = self.list(cx, &folder, &page).await?;
            // Behind its subfolders in the list, so that what is kept is bounded by the depth and not by the number of folders.
            if names.len() >= COUNTED {
                open.push((folder.clone(), Page { after: names.last().cloned(), ..Page::first(COUNTED) }));
            }
            let (below, here): (Vec<_>, Vec<_>) = names.into_iter().partition(|name| name.ends_with('/'));
            count += here.len();
            open.extend(below.into_iter().map(|name| (format!("{folder}{name}"), Page::first(COUNTED))));
            pace.step().await;
        }
        Ok(vec![Gauge { name: "secret.kv.count", value: count as f64, labels: Vec::new() }])
    }

    /// All of a scan in OpenBao's order: of each folder its secrets, then the folders in it, the last one first.
    async fn whole(&self, cx: &mut Cx, folder: &str) -> Result<Vec<String>> {
        let mut found = Vec::new();
        let mut open = vec![String::new()];
        while let Some(inside) = open.pop() {
            for name in self.list(cx, &format!("{folder}{inside}"), &Page::all()).await? {
                let path = format!("{inside}{name}");
                if path.ends_with('/') { open.push(path) } else { found.push(path) }
            }
        }
        Ok(found)
    }
}
