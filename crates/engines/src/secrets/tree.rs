//! A tree of folders under a prefix of a mount's storage, with lists of one level and scans of all levels.

use keepfast_framework::engine::Gauge;
use keepfast_framework::fields::{Int, Text};
use keepfast_framework::throttle::Throttle;
use keepfast_framework::{Cx, Page, Result};
use schemars::JsonSchema;
use serde::Deserialize;

/// How many names one step of [`Tree::usage`] reads.
const USAGE_PAGE: usize = 1000;

/// The parameters of a list or scan.
#[derive(Clone, Deserialize, JsonSchema)]
pub(crate) struct Listing {
    /// Location of the folder.
    path: Text,
    /// Returns only names after this one, which need not exist.
    after: Option<Text>,
    /// Maximum number of names; no limit if it is not positive.
    limit: Option<Int>,
}

impl Listing {
    /// The folder's path: empty for the root, otherwise with a final `/`.
    pub(crate) fn folder(&self) -> String {
        folder(&self.path)
    }

    /// The requested page of names.
    pub(crate) fn page(&self) -> Page {
        Page {
            after: self.after.as_ref().filter(|after| !after.is_empty()).map(|after| after.0.clone()),
            limit: self.limit.and_then(|limit| usize::try_from(limit.0).ok()).filter(|limit| *limit > 0),
        }
    }
}

/// The prefix of the names below a path.
fn folder(path: &str) -> String {
    match path {
        "" => String::new(),
        folder if folder.ends_with('/') => folder.to_owned(),
        name => format!("{name}/"),
    }
}

/// One tree under one or two prefixes of the storage (two while an upgrade moves records between them).
pub(crate) struct Tree<'a> {
    prefixes: &'a [&'a str],
}

impl<'a> Tree<'a> {
    /// The tree under all of these prefixes; each ends in `/`.
    pub(crate) fn under(prefixes: &'a [&'a str]) -> Self {
        Tree { prefixes }
    }

    /// The sorted names one level below `folder`; names of folders end in `/`.
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

    /// The paths at all levels below `folder`, relative to it, in byte order.
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
            let is_before = after.is_some_and(|after| path.as_str() <= after);
            if path.ends_with('/') {
                if is_before && !after.is_some_and(|after| after.starts_with(&path)) {
                    continue;
                }
                let below = self.list(cx, &format!("{folder}{path}"), &Page::all()).await?;
                open.push((path, below.into_iter()));
            } else if !is_before {
                found.push(path);
                if found.len() >= limit {
                    break;
                }
            }
        }
        Ok(found)
    }

    /// Counts the names at all levels for the metric `secret.kv.count`, one page at a time and paced.
    ///
    /// # Errors
    /// When storage fails.
    pub(crate) async fn usage(&self, cx: &mut Cx) -> Result<Vec<Gauge>> {
        let mut throttle = Throttle::new(cx.clock().clone());
        let mut count = 0_usize;
        let mut open = vec![(String::new(), Page::first(USAGE_PAGE))];
        while let Some((folder, page)) = open.pop() {
            let names = self.list(cx, &folder, &page).await?;
            // The next page comes after the subfolders, so the depth bounds the stack, not the number of folders.
            if names.len() >= USAGE_PAGE {
                open.push((folder.clone(), Page { after: names.last().cloned(), ..Page::first(USAGE_PAGE) }));
            }
            let (below, here): (Vec<_>, Vec<_>) = names.into_iter().partition(|name| name.ends_with('/'));
            count += here.len();
            open.extend(below.into_iter().map(|name| (format!("{folder}{name}"), Page::first(USAGE_PAGE))));
            throttle.step().await;
        }
        Ok(vec![Gauge { name: "secret.kv.count", value: count as f64, labels: Vec::new() }])
    }

    /// A whole scan in OpenBao's order: the secrets of each folder, then its subfolders, last one first.
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
