//! No struct of core that owns others grows into one that does everything.
//!
//! An owner is a struct with at least [`OWNED`] fields whose types name structs of other top-level modules of core, or one that
//! the table of services in ARCHITECTURE.md lists. The methods of all its inherent `impl` blocks count, wherever they are;
//! those for tests alone do not.

use std::collections::{BTreeMap, BTreeSet};

use anyhow::Result;

use super::cycles::{ItemPath, Modules, SOURCES, segments};
use super::{File, Findings, Repository};

/// Structs of core that are values and not services: a field of one of these types makes no owner.
const VALUES: [&str; 1] = ["NamespaceId"];
/// From how many fields of other modules on a struct is an owner.
const OWNED: usize = 3;
/// The most fields of an owner.
const FIELDS: usize = 8;
/// The most methods of an owner.
const METHODS: usize = 10;

/// A struct with named fields.
struct Struct {
    place: String,
    module: ItemPath,
    /// The types of its fields.
    fields: Vec<String>,
}

pub(super) fn small(repository: &Repository) -> Result<Findings> {
    let structs = structs(repository);
    let methods = methods(repository);
    let modules = Modules::read(repository);
    let declared: BTreeSet<(&ItemPath, &str)> = structs.iter().map(|(name, s)| (&s.module, name.as_str())).collect();
    let is_foreign = |s: &Struct, field: &&String| {
        let paths = field.split(|c: char| !(c.is_alphanumeric() || matches!(c, '_' | ':'))).map(segments);
        paths.filter(|path| !path.is_empty()).any(|path| {
            let module = modules.declaring(&s.module, &path).filter(|module| module.first() != s.module.first());
            module.zip(path.last()).is_some_and(|(module, name)| {
                !VALUES.contains(&name.as_str()) && declared.contains(&(module, name.as_str()))
            })
        })
    };
    let services = services(repository);
    let mut findings: Findings = Vec::new();
    for (name, s) in &structs {
        let is_listed = services.contains(name);
        if !is_listed && s.fields.iter().filter(|field| is_foreign(s, field)).count() < OWNED {
            continue;
        }
        let counts =
            [("fields", s.fields.len(), FIELDS), ("methods", methods.get(name).copied().unwrap_or(0), METHODS)];
        let broken = counts.iter().filter(|(_, count, most)| count > most);
        findings.extend(broken.map(|(what, count, _)| format!("{}: {name} has {count} {what}", s.place)));
    }
    let unknown = services.iter().filter(|name| !structs.iter().any(|(known, _)| known == *name));
    findings.extend(unknown.map(|name| format!("ARCHITECTURE.md: core has no service {name}")));
    Ok(findings)
}

/// The services that ARCHITECTURE.md lists: the first column of the table whose header begins with `service`.
fn services(repository: &Repository) -> BTreeSet<String> {
    let text = repository.file("ARCHITECTURE.md").map_or("", |file| &file.text);
    let table = text.lines().skip_while(|line| !line.starts_with("| service ")).skip(2);
    let rows = table.take_while(|line| line.starts_with('|'));
    rows.filter_map(|row| Some(row.split('`').nth(1)?.to_owned())).collect()
}

/// The files of production code of core, each with the path of its module.
fn sources(repository: &Repository) -> impl Iterator<Item = (&File, ItemPath)> {
    repository.rust().filter(|file| !file.is_test()).filter_map(|file| {
        let within = file.path.strip_prefix(SOURCES)?.strip_suffix(".rs")?;
        let mut module: ItemPath = within.split('/').map(str::to_owned).collect();
        if matches!(module.last().map(String::as_str), Some("mod" | "lib")) {
            module.pop();
        }
        Some((file, module))
    })
}

fn structs(repository: &Repository) -> Vec<(String, Struct)> {
    let mut structs = Vec::new();
    for (file, module) in sources(repository) {
        let mut open: Option<(String, Struct)> = None;
        for (number, line) in file.production() {
            match &mut open {
                Some(_) if line == "}" => structs.extend(open.take()),
                Some((_, s)) => s.fields.extend(field_type(line)),
                None => {
                    let place = format!("{}:{number}", file.path);
                    let s = Struct { place, module: module.clone(), fields: Vec::new() };
                    let is_open = line.ends_with('{');
                    let named = declared_name(line).map(|name| (name, s));
                    if is_open { open = named } else { structs.extend(named) }
                }
            }
        }
    }
    structs
}

/// The name of the struct that a line declares.
fn declared_name(line: &str) -> Option<String> {
    let rest = line.split_once("struct ").filter(|(before, _)| before.is_empty() || before.starts_with("pub"))?.1;
    Some(rest.split(|c: char| !(c.is_alphanumeric() || c == '_')).next()?.to_owned())
}

/// The type of the field that a line declares, as rustfmt lays it out.
fn field_type(line: &str) -> Option<String> {
    let declared = line.strip_prefix("    ").filter(|rest| !rest.starts_with([' ', '/', '#']))?;
    Some(declared.split_once(": ")?.1.trim_end_matches(',').to_owned())
}

/// How many methods each struct has in its inherent `impl` blocks.
fn methods(repository: &Repository) -> BTreeMap<String, usize> {
    let mut methods = BTreeMap::new();
    for (file, _) in sources(repository) {
        let mut within: Option<String> = None;
        let mut is_for_tests = false;
        for (_, line) in file.production() {
            if line.starts_with("impl") {
                within = inherent(line);
            } else if let Some(name) = &within {
                let is_method = line.strip_prefix("    ").is_some_and(super::sources::begins_function);
                if is_method && !is_for_tests {
                    *methods.entry(name.clone()).or_default() += 1;
                }
                is_for_tests = line == "    #[cfg(test)]" || is_for_tests && !is_method;
            }
            if line == "}" {
                within = None;
            }
        }
    }
    methods
}

/// The struct whose inherent block a line begins.
fn inherent(line: &str) -> Option<String> {
    let rest = line.strip_prefix("impl")?;
    let rest = if rest.starts_with('<') { rest.split_once("> ")?.1 } else { rest };
    let subject = rest.trim_start().strip_suffix('{')?;
    let name = subject.split(['<', ' ']).next()?.to_owned();
    (!subject.contains(" for ")).then_some(name)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn repository(owner: &str, page: &str) -> Repository {
        let file = |path: &str, text: &str| File { path: path.to_owned(), text: text.to_owned() };
        let parts = "pub(crate) struct A;\npub(crate) struct B {\n    n: u8,\n}\npub(crate) struct C(u8);\n";
        Repository {
            files: vec![
                file(&format!("{SOURCES}parts.rs"), parts),
                file(&format!("{SOURCES}owner.rs"), owner),
                file("ARCHITECTURE.md", page),
            ],
        }
    }

    fn owner(owned: &[&str], plain: usize, methods: usize) -> String {
        let fields = owned.iter().enumerate().map(|(n, owned)| format!("    pub(crate) o{n}: {owned},\n"));
        let plain = (0..plain).map(|n| format!("    /// Plain.\n    p{n}: u64,\n"));
        let methods = (0..methods).map(|n| format!("    pub(crate) async fn m{n}(&self) {{}}\n"));
        format!(
            "use std::sync::Arc;\nuse crate::parts::{{A, B}};\nstruct Owner {{\n{}{}}}\nimpl Owner {{\n{}}}\nimpl Drop for Owner \
             {{\n    fn drop(&mut self) {{}}\n}}\nimpl Owner {{\n    #[cfg(test)]\n    fn tested() {{}}\n}}\n",
            fields.collect::<String>(),
            plain.collect::<String>(),
            methods.collect::<String>()
        )
    }

    const OWNED: [&str; 3] = ["Arc<A>", "Option<B>", "crate::parts::C"];

    #[test]
    fn owners_have_at_most_eight_fields_and_ten_methods() {
        let place = format!("{SOURCES}owner.rs:3: Owner has");
        for (owned, plain, methods, expected) in [
            (&OWNED[..], 5, 10, vec![]),
            (&OWNED, 6, 10, vec![format!("{place} 9 fields")]),
            (&OWNED, 5, 11, vec![format!("{place} 11 methods")]),
            (&OWNED[..2], 9, 11, vec![]),
            (&["Arc<A>", "Option<B>", "std::parts::C"], 9, 11, vec![]),
        ] {
            assert_eq!(
                small(&repository(&owner(owned, plain, methods), "")).unwrap(),
                expected,
                "{owned:?} {plain} {methods}"
            );
        }
    }

    #[test]
    fn services_of_the_page_are_owners_and_exist() {
        let page = "| service | does |\n|---|---|\n| `Owner` | a |\n| `Gone` | b |\n\n| `A` | c |\n";
        let findings = small(&repository(&owner(&[], 9, 0), page)).unwrap();
        let expected =
            [format!("{SOURCES}owner.rs:3: Owner has 9 fields"), "ARCHITECTURE.md: core has no service Gone".into()];
        assert_eq!(findings, expected);
    }
}
