//! The rows of a table without the type of their engine: for dispatch, help and the OpenAPI document.

use std::borrow::Cow;
use std::sync::OnceLock;

use schemars::{Schema, SchemaGenerator};

use crate::input::WHOLE_BODY;
use crate::path::{Captures, Operation, Pattern};
use crate::reply::Reply;
use crate::routes::{Access, Match, Request, RowHelp};

/// One operation of a row, without the type of its engine.
///
/// Schemas are generated on demand: those of a whole server take megabytes and are rarely read.
pub struct OperationInfo {
    /// The operation.
    pub operation: Operation,
    request: fn(&mut SchemaGenerator) -> Schema,
    reply: fn(&mut SchemaGenerator) -> Option<Schema>,
    captures: Box<[Cow<'static, str>]>,
    known: OnceLock<Box<[Box<str>]>>,
    /// Copied from the row when the table is compiled.
    pub(crate) stores_body: bool,
    /// Copied from the row when the table is compiled.
    pub(crate) nested: Option<&'static str>,
}

impl OperationInfo {
    pub(crate) fn new<Q: Request, R: Reply>(operation: Operation, patterns: &[Pattern]) -> Self {
        Self::replying::<Q>(operation, patterns, R::schema)
    }

    /// Creates the information with a schema for the response.
    pub(crate) fn replying<Q: Request>(
        operation: Operation,
        patterns: &[Pattern],
        reply: fn(&mut SchemaGenerator) -> Option<Schema>,
    ) -> Self {
        let captures = patterns.iter().flat_map(Pattern::captures).cloned().collect();
        let request = |generator: &mut SchemaGenerator| generator.subschema_for::<Q>();
        OperationInfo { operation, request, reply, captures, known: OnceLock::new(), stores_body: false, nested: None }
    }

    /// The schema of its parameters, captures included.
    pub fn request(&self) -> Schema {
        (self.request)(&mut generator())
    }

    /// The schema of `data` in its response, where it is declared.
    pub fn reply(&self) -> Option<Schema> {
        (self.reply)(&mut generator())
    }

    /// Whether the operation has a parameter of this name; always true where the whole body is data.
    pub fn knows(&self, name: &str) -> bool {
        self.takes_whole_body() || self.parameters().iter().any(|k| **k == *name)
    }

    /// Whether the handler reads a parameter of this name. A handler that takes the whole body reads every name, unless
    /// its row only stores the body.
    pub fn declares(&self, name: &str) -> bool {
        if self.takes_whole_body() { !self.stores_body } else { self.parameters().iter().any(|k| **k == *name) }
    }

    /// The other names of the same parameter in this operation, including deprecated ones.
    pub fn other_names<'n>(&self, name: &'n str) -> impl Iterator<Item = &'static str> + use<'_, 'n> {
        let names = |name: &str| !self.takes_whole_body() && self.declares(name);
        let group = SYNONYMS.iter().filter(move |group| group.contains(&name) && names(name));
        group.flat_map(|group| group.iter().copied()).filter(move |other| *other != name && names(other))
    }

    /// The parameter whose fields policies constrain by `parameter.field`; see [`RowInfo::nested`].
    pub fn nested(&self) -> Option<&'static str> {
        self.nested
    }

    /// Whether the whole body is data without separate parameters ([`WHOLE_BODY`]).
    pub fn takes_whole_body(&self) -> bool {
        self.parameters().iter().any(|k| **k == *WHOLE_BODY)
    }

    /// The names of its parameters, taken from the schema on the first call and cached.
    pub fn parameters(&self) -> &[Box<str>] {
        self.known.get_or_init(|| {
            let request = self.request();
            let properties = request.get("properties").and_then(|p| p.as_object());
            let mut known: Vec<Box<str>> =
                properties.into_iter().flatten().map(|(name, _)| name.as_str().into()).collect();
            for name in &self.captures {
                if !known.iter().any(|k| **k == **name) {
                    known.push((**name).into());
                }
            }
            known.into()
        })
    }
}

/// Names of the same parameter, where an operation declares more than one of them.
const SYNONYMS: [&[&str]; 15] = [
    &["policy", "rules"],
    &["password", "password_hash"],
    &["token_policies", "policies"],
    &["token_ttl", "ttl"],
    &["ttl", "lease"],
    &["token_max_ttl", "max_ttl"],
    &["token_explicit_max_ttl", "explicit_max_ttl"],
    &["token_period", "period"],
    &["token_bound_cidrs", "bound_cidrs"],
    &["secret_id_bound_cidrs", "bound_cidr_list"],
    &["type", "plugin_name"],
    &["paths", "path"],
    &["lease_id", "url_lease_id"],
    &["hash_algorithm", "algorithm", "urlalgorithm"],
    &["bytes", "urlbytes"],
];

/// A generator of schemas for OpenAPI 3.0, with inlined subschemas.
fn generator() -> SchemaGenerator {
    schemars::generate::SchemaSettings::openapi3().with(|s| s.inline_subschemas = true).into_generator()
}

/// The node of a cluster that runs an operation.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Runs {
    /// The node that receives the request. Its rare writes pass through the leader.
    Here,
    /// The leader.
    Leader,
    /// The node that receives the request, in every case: it acts on that node.
    OwnNode,
}

/// The namespaces in which a row exists. Requests in the root namespace reach every row.
///
/// As on OpenBao some classes are checked before authentication: the error is then the same for every caller and every
/// operation of the path, help included. The others are checked once the request is authorized, so that a caller
/// without the right to the path learns nothing about the namespace.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum NamespaceScope {
    /// Every namespace.
    #[default]
    Everywhere,
    /// Only the root namespace: it configures the whole server, for example audit devices and quotas. Checked before
    /// authentication, after the namespace is found and is neither locked nor sealed.
    RootOnly,
    /// Only the root namespace: it acts on the barrier or the node, for example `sys/health`, `sys/unseal` and
    /// `sys/storage/raft`. Checked before everything else: also in a namespace that does not exist, is locked or is
    /// sealed, and on a sealed server.
    NotInNamespaces,
    /// The root namespace and namespaces that have their own seal, but not those below them: it acts on the keys of
    /// that seal, for example `sys/rotate/root`. Checked once the request is authorized; help needs no seal.
    SealableOnly,
    /// Only the root namespace, but described by the help of every namespace: it is about the plugins of the server.
    /// Other namespaces list them without their details. Checked once the request is authorized.
    AbsentInNamespaces,
    /// The node, whatever the namespace of the request, even one that does not exist, is locked or is sealed:
    /// `sys/seal-status` and `sys/leader`. Its help belongs to a namespace like any other.
    NodeWide,
}

impl NamespaceScope {
    /// The error text of a request in a namespace without the row: with status 400, and with 404 for
    /// [`NamespaceScope::AbsentInNamespaces`]. `None` where every namespace has the row.
    pub const fn refusal(self) -> Option<&'static str> {
        match self {
            NamespaceScope::Everywhere | NamespaceScope::NodeWide => None,
            NamespaceScope::RootOnly => Some("operation only available in root namespace"),
            NamespaceScope::NotInNamespaces => Some("operation unavailable in namespaces"),
            NamespaceScope::SealableOnly => Some("namespace is not sealable"),
            NamespaceScope::AbsentInNamespaces => Some("unsupported path"),
        }
    }

    /// Whether the refusal precedes authentication, for every operation and help.
    pub const fn precedes_authentication(self) -> bool {
        matches!(self, NamespaceScope::RootOnly | NamespaceScope::NotInNamespaces)
    }
}

/// The namespace in which a row runs.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum RunsIn {
    /// That of the request.
    #[default]
    Request,
    /// That of the caller's token, whatever that of the request is: the row is about this token.
    Caller,
    /// That of the caller's token where the body lacks this field, which names another token.
    CallerWithout(&'static str),
    /// That of the token in this field of the body, if it is below that of the request; that of the caller's token where
    /// the body lacks the field.
    Token(&'static str),
    /// That of the id in this field of the body, or at the end of the path, if it is below that of the request.
    Id(&'static str),
}

/// One row, without the type of its engine.
pub struct RowInfo {
    /// The patterns.
    pub patterns: Vec<Pattern>,
    /// The help.
    pub help: RowHelp,
    /// The access rule.
    pub access: Access,
    /// Whether it acts on an external system, and therefore commits in steps and never runs twice.
    pub once: bool,
    /// Omitted from the OpenAPI document.
    pub hidden: bool,
    /// Only for paths that no other row matches, for any operation.
    pub fallback: bool,
    /// Only for paths whose captures are names: see [`is_name`].
    pub names_only: bool,
    /// Only for paths whose captures are UUIDs in lower case: any other path is unsupported.
    pub ids_only: bool,
    /// Whether a body that is taken as a whole is only stored, never read as parameters.
    pub stores_body: bool,
    /// The parameter with an object whose fields policies can constrain: a rule about `parameter.field` is about the
    /// field inside. Only KV version 2 has such rows. Without it a dot in the name of a rule has no meaning.
    pub nested: Option<&'static str>,
    /// Whether the path may have a final slash.
    pub final_slash: bool,
    /// Whether the path ends in the path of a mount, a device or a policy, which callers may write with a final slash.
    pub name_may_end_in_slash: bool,
    /// Whether a list of the path matches this row, which has no list: the error is an unsupported operation instead of
    /// an unsupported path.
    pub found_by_lists: bool,
    /// Whether it is a login path.
    pub login: bool,
    /// Whether the request is about a wrapping token, which is checked before anything else.
    pub takes_wrapping_token: bool,
    /// Whether `token` in the body is a token: a value that is no JSON string is refused before authentication.
    pub token_in_body: bool,
    /// Whether the body of an update is bytes and no JSON.
    pub raw_body: bool,
    /// Whether it reads the scheme and the credentials of the `Authorization` header.
    pub takes_authorization: bool,
    /// Whether a node without a leader runs it on its own state.
    pub without_leader: bool,
    /// Whether it has a handler for a sealed server, without audit.
    pub sealed: bool,
    /// The node that runs it, where the operation alone does not decide: see [`RowInfo::runs`].
    pub runs: Option<Runs>,
    /// The namespaces in which it exists.
    pub namespace_scope: NamespaceScope,
    /// The namespace in which it runs.
    pub runs_in: RunsIn,
    /// Whether the engine can check if the object exists, so that `create` and `update` are distinguished.
    pub has_existence_check: bool,
    /// The operations.
    pub operations: Vec<OperationInfo>,
}

impl RowInfo {
    /// Adds empty texts for the captures that only longer patterns of the row have: a body cannot supply a part that
    /// the path omits.
    pub(crate) fn completed(&self, mut captures: Captures) -> Captures {
        if self.patterns.len() > 1 {
            for name in self.patterns.iter().flat_map(Pattern::captures) {
                if !captures.iter().any(|(known, _)| known == name) {
                    captures.push((name.clone(), String::new()));
                }
            }
        }
        captures
    }

    /// Whether this path may have a final slash. The row must allow it; in a row with optional parts the path must
    /// contain at least one of them.
    pub fn takes_final_slash(&self, found: &Match) -> bool {
        let in_all = |name: &str| self.patterns.iter().all(|pattern| pattern.captures().any(|own| own == name));
        let mut optional = found.captures.iter().filter(|(name, _)| !in_all(name)).peekable();
        self.final_slash && (optional.peek().is_none() || optional.any(|(_, text)| !text.is_empty()))
    }

    /// The node of a cluster that runs an operation of this row. Without a declaration reads run on every node, and
    /// writes, logins and operations that never run twice at the leader.
    pub fn runs(&self, operation: Operation) -> Runs {
        if let Some(runs) = self.runs {
            return runs;
        }
        let writes = matches!(operation, Operation::Update | Operation::Patch | Operation::Delete);
        let is_help = operation == Operation::Help;
        if writes || !is_help && (self.once || self.login) { Runs::Leader } else { Runs::Here }
    }

    /// Returns the information about one operation, if the row has it.
    pub fn operation(&self, operation: Operation) -> Option<&OperationInfo> {
        self.operations.iter().find(|o| o.operation == operation)
    }
}

/// Whether a text is a name in most of Vault's paths: ASCII letters, digits and underscores, and inside it dots and
/// hyphens.
pub fn is_name(text: &str) -> bool {
    let is_word = |c: &u8| c.is_ascii_alphanumeric() || *c == b'_';
    let bytes = text.as_bytes();
    let ends = bytes.first().is_some_and(is_word) && bytes.last().is_some_and(is_word);
    ends && bytes.iter().all(|c| is_word(c) || matches!(c, b'-' | b'.'))
}

/// Whether a text is a UUID in lower case.
pub(crate) fn is_id(text: &str) -> bool {
    let groups = || text.split('-');
    let is_digit = |byte: u8| byte.is_ascii_digit() || matches!(byte, b'a'..=b'f');
    groups().map(str::len).eq([8, 4, 4, 4, 12]) && groups().all(|group| group.bytes().all(is_digit))
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicUsize, Ordering};

    use schemars::JsonSchema;

    use super::*;
    use crate::routes::{Compiled, Help, Routes};
    use crate::{Cx, Result};

    static MADE: AtomicUsize = AtomicUsize::new(0);

    #[derive(serde::Deserialize)]
    struct Counted {}

    impl JsonSchema for Counted {
        fn schema_name() -> std::borrow::Cow<'static, str> {
            "Counted".into()
        }
        fn json_schema(_: &mut SchemaGenerator) -> Schema {
            MADE.fetch_add(1, Ordering::Relaxed);
            schemars::json_schema!({ "type": "object", "properties": { "count": { "type": "integer" } } })
        }
    }

    async fn write(_: &(), _: &mut Cx, _: Counted) -> Result<()> {
        Ok(())
    }

    #[test]
    fn a_row_of_names_has_no_other_paths() {
        let mut routes: Routes<()> = Routes::new();
        routes.path("thing/{name}", Help { synopsis: "Things.", description: "" }).names_only().update(write);
        let compiled = Compiled::new(routes);
        let found = |path: &str| compiled.table().find(Operation::Update, path).is_some();
        for name in ["a", "A_1", "_", "a.b-c", "9"] {
            assert!(found(&format!("thing/{name}")), "{name}");
        }
        for other in ["a b", "a+b", "-a", "a.", ".", "é", "a:b", "*"] {
            assert!(!found(&format!("thing/{other}")), "{other}");
        }
    }

    #[test]
    fn a_row_has_the_namespace_scope_that_it_declares() {
        let help = Help { synopsis: "Things.", description: "" };
        let mut routes: Routes<()> = Routes::new();
        routes.path("everywhere", help).update(write);
        routes.path("root", help).root_only().update(write);
        routes.path("barrier", help).update(write).not_in_namespaces();
        routes.path("keys", help).sealable_namespaces_only().update(write);
        routes.path("plugin", help).absent_in_namespaces().update(write);
        routes.path("node", help).node_wide().update(write);
        let compiled = Compiled::new(routes);
        let scopes = compiled.table().rows().iter().map(|row| row.namespace_scope);
        let shown: Vec<_> = scopes.map(|scope| (scope, scope.refusal(), scope.precedes_authentication())).collect();
        let expected = [
            (NamespaceScope::Everywhere, None, false),
            (NamespaceScope::RootOnly, Some("operation only available in root namespace"), true),
            (NamespaceScope::NotInNamespaces, Some("operation unavailable in namespaces"), true),
            (NamespaceScope::SealableOnly, Some("namespace is not sealable"), false),
            (NamespaceScope::AbsentInNamespaces, Some("unsupported path"), false),
            (NamespaceScope::NodeWide, None, false),
        ];
        assert_eq!(shown, expected);
    }

    #[test]
    fn a_row_of_ids_has_no_other_paths() {
        let mut routes: Routes<()> = Routes::new();
        let help = Help { synopsis: "Things.", description: "" };
        routes.paths(["thing", "thing/{id}"], help).ids_only().update(write);
        let compiled = Compiled::new(routes);
        let found = |path: &str| compiled.table().find(Operation::Update, path).is_some();
        assert!(found("thing") && found("thing/0e1f2a3b-0000-1111-2222-c4d5e6f70819"));
        for other in ["a", "0e1f2a3b", "0E1F2A3B-0000-1111-2222-C4D5E6F70819", "0e1f2a3b-0000-1111-2222-c4d5e6f7081"] {
            assert!(!found(&format!("thing/{other}")), "{other}");
        }
    }

    #[test]
    fn a_schema_is_generated_on_request_and_its_names_once() {
        let mut routes: Routes<()> = Routes::new();
        routes.path("thing/{name}", Help { synopsis: "Things.", description: "" }).update(write);
        let compiled = Compiled::new(routes);
        assert!(compiled.table().find(Operation::Update, "thing/a").is_some());
        assert_eq!(MADE.load(Ordering::Relaxed), 0, "an idle server holds no schemas");
        let operation = compiled.table().rows()[0].operation(Operation::Update).unwrap();
        assert!(operation.knows("count") && operation.knows("name") && !operation.knows("other"));
        assert_eq!(operation.parameters().len(), 2);
        assert_eq!(MADE.load(Ordering::Relaxed), 1, "the names are kept");
    }
}
