//! Finds rules of a policy text that probably do not do what their author expects.

use std::collections::{BTreeMap, HashMap};

use keepfast_framework::Operation;
use keepfast_framework::engine::Registered;
use keepfast_framework::routes::Access;
use keepfast_hcl::{Body, Document, HclError, Key, Position, Value, ValueKind};
use serde::Serialize;

use super::engine_tables::{EngineTables, is_kv_version_2};
use super::grant::Capability;
use super::naive;
use super::parse::{PathRule, PolicyError};

/// A finding in a policy text.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct LintFinding {
    /// The name of the check.
    pub check: &'static str,
    /// The line, from 1.
    pub line: u32,
    /// The column in characters, from 1.
    pub column: u32,
    /// The path of the rule; empty for the whole text.
    pub path: String,
    /// What is wrong, and what to write instead.
    pub message: String,
}

/// The findings in a policy text, in its order.
#[derive(Clone, Debug, Default, Serialize)]
pub struct LintReport {
    /// The findings.
    pub findings: Vec<LintFinding>,
    /// Whether there are more, or the text has too many rules for the checks of pairs.
    pub truncated: bool,
}

/// The most findings of a report.
const MOST_FINDINGS: usize = 500;
/// The most rules whose pairs are compared.
const MOST_PAIRED: usize = 2000;
/// The beginnings of paths in KV version 2.
const KV_V2: [&str; 8] =
    ["data", "metadata", "delete", "undelete", "destroy", "subkeys", "detailed-metadata", "config"];

/// The names in a rule as written, which the parsed rule does not keep.
#[derive(Default)]
struct Written {
    capabilities: Vec<(String, Position)>,
    /// Whether `capabilities` or `policy` is present.
    has_capabilities: bool,
    parameters: Vec<(String, Position)>,
}

/// A rule with what the checks need of it.
struct Checked<'p> {
    rule: &'p PathRule,
    written: Written,
    /// The path without a leading slash.
    path: &'p str,
    /// The path before its first wildcard or expression.
    head: &'p str,
}

impl Checked<'_> {
    fn has(&self, capability: Capability) -> bool {
        self.written.capabilities.iter().any(|(name, _)| name == capability.name())
    }

    fn is_literal(&self) -> bool {
        self.head.len() == self.path.len()
    }
}

/// Checks a policy text.
pub fn lint(text: &str, tables: &EngineTables) -> LintReport {
    let (policy, document) = match (super::parse("", text), keepfast_hcl::parse(text)) {
        (Ok(policy), Ok(document)) => (policy, document),
        (Err(PolicyError { position, message, check }), _) => return unparsed(position, message, check),
        (_, Err(HclError { position, message })) => return unparsed(position, message, "syntax"),
    };
    let mut written = written(&document);
    let rules: Vec<_> = policy
        .paths
        .iter()
        .map(|rule| {
            let path = rule.path.strip_prefix('/').unwrap_or(&rule.path);
            let written = written.remove(&rule.position.offset).unwrap_or_default();
            Checked { rule, written, path, head: path.get(..literal_length(path)).unwrap_or(path) }
        })
        .collect();
    let mut linter = Linter { tables, report: LintReport::default() };
    let known_kv: Vec<&str> = rules.iter().filter_map(|rule| kv_mount(rule.path)).collect();
    for rule in &rules {
        linter.wildcards(rule);
        linter.capabilities(rule);
        if linter.mount(rule, &known_kv) {
            linter.routes(rule);
        }
    }
    linter.pairs(&rules);
    let mut report = linter.report;
    report.findings.sort_by(|a, b| (a.line, a.column, a.check).cmp(&(b.line, b.column, b.check)));
    report.truncated |= report.findings.len() > MOST_FINDINGS;
    report.findings.truncate(MOST_FINDINGS);
    report
}

/// The report on a text that is no policy.
fn unparsed(position: Position, message: String, check: &'static str) -> LintReport {
    let (Position { line, column, .. }, path) = (position, String::new());
    LintReport { findings: vec![LintFinding { check, line, column, path, message }], truncated: false }
}

/// The length of a path before its first wildcard or expression, in bytes.
fn literal_length(path: &str) -> usize {
    let mut at = 0;
    for segment in path.split_inclusive('/') {
        let name = segment.strip_suffix('/').unwrap_or(segment);
        if let Some(expression) = name.find("{{") {
            return at + expression;
        }
        if name == "+" {
            return at;
        }
        at += segment.len();
    }
    if path.ends_with('*') { path.len() - 1 } else { path.len() }
}

/// The mount of a path that is probably one of KV version 2: what comes before `/data/` or `/metadata/`.
fn kv_mount(path: &str) -> Option<&str> {
    let at = ["/data/", "/metadata/"].iter().filter_map(|middle| path.find(middle)).min()?;
    path.get(..=at).filter(|mount| !mount.starts_with("sys/") && !mount.contains('+'))
}

/// The rules as written, by the offsets of their paths.
fn written(document: &Document) -> HashMap<usize, Written> {
    let mut rules = HashMap::new();
    let mut open: Vec<&Value> = Vec::new();
    let mut add = |path: &Key, body: &Body| drop(rules.insert(path.position.offset, written_rule(body)));
    for item in document.body.all("path") {
        match (item.keys.as_slice(), &item.value.kind) {
            ([_, path], ValueKind::Object(body)) => add(path, body),
            _ => open.push(&item.value),
        }
    }
    while let Some(value) = open.pop() {
        match &value.kind {
            ValueKind::List(list) => open.extend(list),
            ValueKind::Object(paths) => {
                for item in &paths.items {
                    let bodies = item.value.as_list().unwrap_or(std::slice::from_ref(&item.value));
                    let Some(path) = item.keys.first() else { continue };
                    bodies.iter().filter_map(Value::as_object).for_each(|body| add(path, body));
                }
            }
            _ => {}
        }
    }
    rules
}

fn written_rule(body: &Body) -> Written {
    let mut rule = Written::default();
    for item in &body.items {
        let list = item.value.as_list().unwrap_or_default();
        let names = list.iter().filter_map(|value| Some((value.as_str()?.to_owned(), value.position)));
        match item.name() {
            "capabilities" => {
                rule.has_capabilities = true;
                rule.capabilities = names.collect();
            }
            "policy" => rule.has_capabilities = true,
            "required_parameters" => rule.parameters.extend(names),
            "allowed_parameters" | "denied_parameters" => {
                let items = item.value.as_object().map(|body| body.items.as_slice()).unwrap_or_default();
                rule.parameters.extend(items.iter().map(|item| (item.name().to_owned(), item.position())));
            }
            _ => {}
        }
    }
    rule
}

struct Linter<'t> {
    tables: &'t EngineTables,
    report: LintReport,
}

impl Linter<'_> {
    fn add(&mut self, check: &'static str, rule: &Checked<'_>, position: Position, message: String) {
        if self.report.findings.len() > MOST_FINDINGS {
            return;
        }
        let (Position { line, column, .. }, path) = (position, rule.rule.path.clone());
        self.report.findings.push(LintFinding { check, line, column, path, message });
    }

    /// Wildcards that are none, and those that match more or less than they seem to.
    fn wildcards(&mut self, rule: &Checked<'_>) {
        let (path, at) = (rule.path, rule.rule.position);
        let body = path.strip_suffix('*').unwrap_or(path);
        if outside_expressions(body).any(|part| part.contains('*')) {
            let message = "\"*\" is a wildcard at the end of the path only; here it is a literal character: \
                           use \"+\" for one whole segment";
            self.add("literal_star", rule, at, message.to_owned());
        }
        let is_part = |segment: &str| segment.contains('+') && segment != "+";
        if outside_expressions(body).any(|part| part.split('/').any(is_part)) {
            let message = "\"+\" is a wildcard only as a whole segment; here it is a literal character";
            self.add("literal_plus", rule, at, message.to_owned());
        }
        let is_prefix = path.ends_with('*') && rule.head.len() + 1 == path.len();
        if is_prefix && !rule.head.is_empty() && !rule.head.contains('/') {
            let message = format!("the pattern matches every mount whose path begins with {:?}", rule.head);
            self.add("prefix_of_mounts", rule, at, format!("{message}: end it with \"/*\" for one mount"));
        }
        let lists = rule.has(Capability::List) || rule.has(Capability::Scan) || !rule.written.has_capabilities;
        if path.ends_with('/') && !lists && !rule.rule.grant.is_deny() {
            let message = "the rule matches only the path with its final slash: end it with \"/*\" for what is below";
            self.add("final_slash", rule, at, message.to_owned());
        }
    }

    fn capabilities(&mut self, rule: &Checked<'_>) {
        let at = rule.rule.position;
        let names: Vec<&str> = rule.written.capabilities.iter().map(|(name, _)| name.as_str()).collect();
        match names.as_slice() {
            [] if !rule.written.has_capabilities || rule.rule.grant.capabilities.names() == ["deny"] => {
                let message = "the rule grants nothing, and it overrules less specific rules: write \"deny\" if that \
                               is the purpose";
                self.add("no_capability", rule, at, message.to_owned());
            }
            ["sudo"] => {
                let message = "\"sudo\" only adds to the capability of the operation, which the rule does not grant";
                self.add("sudo_alone", rule, at, message.to_owned());
            }
            [_, _, ..] if rule.has(Capability::Deny) => {
                let message = "\"deny\" overrules the other capabilities of the rule";
                self.add("deny_with_others", rule, at, message.to_owned());
            }
            _ => {}
        }
    }

    /// Paths without a mount, and paths of KV version 2 without `data/` or `metadata/`. Whether the path may exist.
    fn mount(&mut self, rule: &Checked<'_>, known_kv: &[&str]) -> bool {
        let at = rule.rule.position;
        if self.tables.mounts().is_some() && !self.tables.touches(rule.head) {
            self.add("unknown_mount", rule, at, "no mount of the server has this path".to_owned());
        }
        let found = self.tables.find(rule.head);
        let mount = match found {
            Some((mount, engine)) => is_kv_version_2(engine.table()).then_some(mount),
            // Without the mounts the other rules of the text show which mounts have version 2.
            None if self.tables.mounts().is_none() => {
                known_kv.iter().copied().find(|mount| rule.head.starts_with(mount))
            }
            None => None,
        };
        let Some(mount) = mount else { return true };
        let within = rule.path.strip_prefix(mount).unwrap_or_default();
        let first = within.split('/').next().unwrap_or_default();
        let is_wild = first == "+" || first.contains("{{");
        let covers = |prefix: &str| KV_V2.iter().any(|name| name.starts_with(prefix));
        let is_known = match first.strip_suffix('*') {
            Some(prefix) if !within.contains('/') => covers(prefix),
            _ => KV_V2.contains(&first),
        };
        if within.is_empty() || is_wild {
            return true;
        }
        if !is_known {
            let message = format!(
                "the mount has KV version 2, whose secrets are at \"{mount}data/{within}\" and their lists at \
                 \"{mount}metadata/{within}\""
            );
            self.add("kv_data_prefix", rule, at, message);
        } else if first == "data" && (rule.has(Capability::List) || rule.has(Capability::Scan)) {
            let message = format!("lists of KV version 2 need the capability at \"{mount}metadata/\"");
            self.add("kv_list_on_data", rule, at, message);
        }
        is_known
    }

    /// Capabilities and parameters that a path of a known engine does not have.
    fn routes(&mut self, rule: &Checked<'_>) {
        let Some((mount, engine)) = self.tables.find(rule.path).filter(|_| rule.is_literal()) else { return };
        let within = rule.path.strip_prefix(mount).unwrap_or_default();
        let rows = Rows { engine, within };
        for (name, position) in &rule.written.capabilities {
            let Some(operation) = Capability::named(name).and_then(operation_of) else { continue };
            match rows.access(operation) {
                None => {
                    let message = format!("the path has no operation that needs the capability {name:?}");
                    self.add("unsupported_capability", rule, *position, message);
                }
                Some(Access::Sudo) if !rule.has(Capability::Sudo) => {
                    let message = format!("the path requires the capability \"sudo\" in addition to {name:?}");
                    self.add("missing_sudo", rule, *position, message);
                }
                Some(Access::Unauthenticated) => {
                    let message = "the path needs no token, so that no policy decides on it".to_owned();
                    self.add("unauthenticated_path", rule, *position, message);
                }
                Some(_) => {}
            }
        }
        for (name, position) in &rule.written.parameters {
            if name != "*" && !rows.has_parameter(name) {
                let message = format!("no operation of the path has the parameter {name:?}");
                self.add("unknown_parameter", rule, *position, message);
            }
        }
    }

    /// Rules that another one overrules on every path.
    fn pairs(&mut self, rules: &[Checked<'_>]) {
        self.report.truncated |= rules.len() > MOST_PAIRED;
        let rules = rules.get(..MOST_PAIRED).unwrap_or(rules);
        let mut first: BTreeMap<&str, &Checked<'_>> = BTreeMap::new();
        for rule in rules {
            let Some(earlier) = first.insert(rule.path, rule) else { continue };
            let is_denied = rule.rule.grant.is_deny() != earlier.rule.grant.is_deny();
            let effect = if is_denied { "\"deny\" overrules the other rule" } else { "they are united" };
            let message = format!("the rule at {} has the same path: {effect}", earlier.rule.position);
            self.add("same_path", rule, rule.rule.position, message);
        }
        let is_wild = |rule: &&Checked<'_>| !naive::is_exact(rule.path) && !rule.path.contains("{{");
        let wild: Vec<_> = rules.iter().filter(is_wild).map(|rule| (naive::rank(rule.path), rule)).collect();
        for (rank, rule) in &wild {
            let overrules = |(other, wide): &&(_, &Checked<'_>)| other > rank && covers(wide.path, rule.path);
            let Some((_, other)) = wild.iter().find(overrules) else { continue };
            let place = other.rule.position;
            let at = rule.rule.position;
            if rule.rule.grant.is_deny() && !other.rule.grant.is_deny() {
                let message = format!(
                    "the rule for {:?} at {place} is more specific and matches all of these paths: this \"deny\" \
                     never applies",
                    other.path
                );
                self.add("unreachable_deny", rule, at, message);
            } else {
                let message =
                    format!("the rule for {:?} at {place} is more specific and matches all of these paths", other.path);
                self.add("shadowed", rule, at, message);
            }
        }
    }
}

/// The parts of a path between its expressions.
fn outside_expressions(path: &str) -> impl Iterator<Item = &str> {
    path.split("{{")
        .enumerate()
        .map(|(at, part)| if at == 0 { part } else { part.split_once("}}").map_or("", |p| p.1) })
}

/// Whether a pattern with wildcards matches every path that another one matches.
fn covers(wide: &str, narrow: &str) -> bool {
    let is_open = narrow.ends_with('*');
    let mut rest = Some(narrow.strip_suffix('*').unwrap_or(narrow));
    let mut segments = wide.split('/').peekable();
    while let Some(segment) = segments.next() {
        let Some(text) = rest else { return false };
        let (own, behind) = text.split_once('/').map_or((text, None), |(own, behind)| (own, Some(behind)));
        let is_last_open = behind.is_none() && is_open;
        if segments.peek().is_none() && segment.ends_with('*') {
            let prefix = segment.strip_suffix('*').unwrap_or_default();
            return prefix.is_empty() || own != "+" && own.starts_with(prefix);
        }
        if is_last_open || segment != "+" && segment != own {
            return false;
        }
        rest = behind;
    }
    rest.is_none()
}

fn operation_of(capability: Capability) -> Option<Operation> {
    Some(match capability {
        Capability::Create | Capability::Update => Operation::Update,
        Capability::Read => Operation::Read,
        Capability::Delete => Operation::Delete,
        Capability::Patch => Operation::Patch,
        Capability::List => Operation::List,
        Capability::Scan => Operation::Scan,
        Capability::Sudo | Capability::Deny => return None,
    })
}

/// The rows of one path of an engine.
struct Rows<'r> {
    engine: &'r Registered,
    within: &'r str,
}

impl Rows<'_> {
    /// The access rule of an operation; none if the path does not have it.
    fn access(&self, operation: Operation) -> Option<Access> {
        let plain = self.within.trim_end_matches('/');
        let folder = format!("{plain}/");
        let spellings = [self.within, plain, folder.as_str()];
        let rows = spellings.iter().filter_map(|path| self.row(operation, path));
        // A fallback row only describes the other paths of the mount.
        rows.filter(|row| !row.fallback && row.operation(operation).is_some()).map(|row| row.access).next()
    }

    /// Whether an operation of the path has a parameter of this name.
    fn has_parameter(&self, name: &str) -> bool {
        [Operation::Read, Operation::Update, Operation::Patch].into_iter().any(|operation| {
            let row = self.row(operation, self.within);
            let folded = name.to_lowercase();
            let is_field = |parameter: &str| folded.strip_prefix(parameter).is_some_and(|rest| rest.starts_with('.'));
            row.is_some_and(|row| row.nested.is_some_and(is_field))
                || row.and_then(|row| row.operation(operation)).is_some_and(|operation| operation.knows(&folded))
        })
    }

    fn row(&self, operation: Operation, path: &str) -> Option<&keepfast_framework::rows::RowInfo> {
        let table = self.engine.table();
        let found = table.find(operation, path)?;
        table.rows().get(found.row)
    }
}

#[cfg(test)]
mod tests {
    use super::super::engine_tables::KnownMount;
    use super::*;

    fn tables(mounts: bool) -> EngineTables {
        let kv = |path: &str, version: &str| KnownMount {
            path: path.to_owned(),
            engine: "kv".to_owned(),
            options: BTreeMap::from([("version".to_owned(), version.to_owned())]),
        };
        let mounts = mounts.then(|| vec![kv("secret/", "2"), kv("old/", "1")]);
        EngineTables::new(keepfast_engines::all(), mounts)
    }

    fn found(text: &str, mounts: bool) -> Vec<(&'static str, u32, u32)> {
        let report = lint(text, &tables(mounts));
        report.findings.iter().map(|finding| (finding.check, finding.line, finding.column)).collect()
    }

    fn rule(path: &str, capabilities: &str) -> String {
        format!("path \"{path}\" {{ capabilities = [{capabilities}] }}\n")
    }

    #[test]
    fn each_mistake_is_found_at_its_place() {
        for (text, mounts, expected) in [
            ("path \"a\" {", false, vec![("syntax", 1, 12)]),
            (&rule("secret/app", "\"read\""), true, vec![("kv_data_prefix", 1, 6)]),
            (&rule("secret/data*", "\"read\""), true, vec![]),
            (&rule("secret/+/app", "\"read\""), true, vec![]),
            (&rule("secret/data/app/*", "\"list\""), true, vec![("kv_list_on_data", 1, 6)]),
            (&rule("old/app", "\"read\""), true, vec![]),
            (&rule("nowhere/app", "\"read\""), true, vec![("unknown_mount", 1, 6)]),
            (&rule("nowhere/app", "\"read\""), false, vec![]),
            (&rule("sec*", "\"read\""), true, vec![("prefix_of_mounts", 1, 6)]),
            (&rule("old/*/x", "\"read\""), true, vec![("literal_star", 1, 6)]),
            (&rule("old/a+/x", "\"read\""), true, vec![("literal_plus", 1, 6)]),
            (&rule("old/a/", "\"read\""), true, vec![("final_slash", 1, 6)]),
            (&rule("old/a", ""), true, vec![("no_capability", 1, 6)]),
            (&rule("old/a", "\"sudo\""), true, vec![("sudo_alone", 1, 6)]),
            (&rule("old/a", "\"deny\", \"read\""), true, vec![("deny_with_others", 1, 6)]),
            (&rule("secret/config", "\"read\", \"delete\""), true, vec![("unsupported_capability", 1, 48)]),
            (&rule("sys/seal", "\"update\""), false, vec![("missing_sudo", 1, 35)]),
            (&rule("sys/health", "\"read\""), false, vec![("unauthenticated_path", 1, 37)]),
            (
                "path \"old/a\" {\n capabilities = [\"read\"]\n control_group { factor \"f\" {\n  controlled_capabilities = \
                 [\"read\", \"list\"]\n  identity { group_names = [\"g\"] approvals = 1 } } }\n}",
                true,
                vec![("control_group_capability", 4, 38)],
            ),
            ("{\"path\": {\"secret/app\": {\"capabilities\": [\"read\"]}}}", true, vec![("kv_data_prefix", 1, 11)]),
        ] {
            assert_eq!(found(text, mounts), expected, "{text}");
        }
    }

    #[test]
    fn pairs_of_rules_that_overrule_each_other_are_found() {
        for (first, second, expected) in [
            (rule("old/a", "\"read\""), rule("/old/a", "\"list\""), vec![("same_path", 2, 6)]),
            (rule("old/+/t*", "\"read\""), rule("old/*", "\"read\""), vec![("shadowed", 1, 6)]),
            (rule("old/+/t*", "\"deny\""), rule("old/*", "\"read\""), vec![("unreachable_deny", 1, 6)]),
            (rule("old/+/t", "\"read\""), rule("old/*", "\"read\""), vec![]),
            (rule("old/t/*", "\"read\""), rule("old/*", "\"deny\""), vec![]),
            (rule("old/+/+", "\"read\""), rule("old/+/*", "\"read\""), vec![]),
        ] {
            assert_eq!(found(&format!("{first}{second}"), true), expected, "{first}{second}");
        }
        let text = rule("kv/data/a", "\"read\"") + &rule("kv/app", "\"read\"");
        assert_eq!(found(&text, false), [("kv_data_prefix", 2, 6)], "the other rules show the version");
    }

    #[test]
    fn parameters_that_no_operation_has_are_found() {
        let with = |path: &str, conditions: &str| {
            format!("path \"{path}\" {{\n  capabilities = [\"update\"]\n  {conditions}\n}}")
        };
        for (path, conditions, expected) in [
            ("auth/token/create", "allowed_parameters = { ttl = [], nope = [] }", vec![("unknown_parameter", 3, 36)]),
            ("auth/token/create", "required_parameters = [\"nope\"]", vec![("unknown_parameter", 3, 26)]),
            ("auth/token/create", "denied_parameters = { \"*\" = [] }", vec![]),
            ("secret/data/a", "denied_parameters = { \"data.x\" = [] }", vec![]),
            ("secret/metadata/a", "denied_parameters = { \"data.x\" = [] }", vec![("unknown_parameter", 3, 25)]),
            ("old/a", "denied_parameters = { anything = [] }", vec![]),
        ] {
            assert_eq!(found(&with(path, conditions), true), expected, "{path} {conditions}");
        }
    }

    #[test]
    fn a_report_is_bounded() {
        let text: String = (0..3000).map(|n| rule(&format!("old/*/{n}"), "\"read\"")).collect();
        let report = lint(&text, &tables(true));
        assert!(report.truncated && report.findings.len() == MOST_FINDINGS);
    }

    #[test]
    fn a_pattern_covers_another_only_if_it_matches_all_of_its_paths() {
        for (wide, narrow, expected) in [
            ("a/*", "a/+/t*", true),
            ("a/*", "a/b", true),
            ("a/b*", "a/+", false),
            ("a/+", "a/+", true),
            ("a/+", "a/b*", false),
            ("a/+/c", "a/b/c", true),
            ("a/+/c", "a/b", false),
            ("*", "a*", true),
            ("a/b*", "a/bc*", true),
            ("a/bc*", "a/b*", false),
        ] {
            assert_eq!(covers(wide, narrow), expected, "{wide} {narrow}");
        }
    }
}
