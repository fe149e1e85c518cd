//! Paths with values of the caller's identity, such as `{{identity.entity.id}}`.
//!
//! A value becomes part of one segment only. A value that could become a separator or a wildcard turns its rule into a
//! denial of all paths that the rule could cover; dropping the rule would let a wider one decide.

use std::collections::BTreeMap;

use keepfast_framework::text_limits::{TEMPLATE_BYTES, VALUE_CHARACTERS, check_template};

/// The identity that templates refer to.
#[derive(Clone, Debug, Default)]
pub(crate) struct Subject {
    /// The caller's entity.
    pub(crate) entity: Option<Entity>,
    /// The alias by which the caller logged in. Other aliases of the entity are ignored.
    pub(crate) alias: Option<Alias>,
    /// The groups that the entity is a member of, directly or not.
    pub(crate) groups: Vec<Group>,
}

/// An entity as templates see it.
#[derive(Clone, Debug, Default)]
pub(crate) struct Entity {
    /// Its id.
    pub(crate) id: String,
    /// Its name.
    pub(crate) name: String,
    /// Its metadata.
    pub(crate) metadata: BTreeMap<String, String>,
}

/// An alias as templates see it.
#[derive(Clone, Debug, Default)]
pub(crate) struct Alias {
    /// The accessor of the auth mount that it belongs to.
    pub(crate) mount_accessor: String,
    /// Its id.
    pub(crate) id: String,
    /// Its name: the caller's name in the auth method.
    pub(crate) name: String,
    /// Metadata from the auth method.
    pub(crate) metadata: BTreeMap<String, String>,
    /// Metadata from an operator.
    pub(crate) custom_metadata: BTreeMap<String, String>,
}

/// A group as templates see it.
#[derive(Clone, Debug, Default)]
pub(crate) struct Group {
    /// Its id.
    pub(crate) id: String,
    /// Its name.
    pub(crate) name: String,
    /// Its metadata.
    pub(crate) metadata: BTreeMap<String, String>,
}

/// The options of a policy for identity values in its paths. Stored with the policy.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct TemplateOptions {
    /// Values may span several segments (`allow_slashes_in_identity_templates`).
    pub(crate) allow_slashes: bool,
    /// Values may hold wildcards (`allow_wildcards_in_identity_templates`).
    pub(crate) allow_wildcards: bool,
}

/// A path split at its expressions.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Template {
    parts: Vec<Part>,
    /// The longest rendered path, in bytes.
    longest: usize,
}

#[derive(Clone, Debug, PartialEq, Eq)]
enum Part {
    Literal(String),
    Expression(String),
}

/// The result of a template for a subject.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Rendered {
    /// A path.
    Path(String),
    /// The subject has no such value: the rule matches nothing.
    Absent,
    /// The value could be more than a literal. The prefix of all paths that the rule could cover.
    Forbidden(String),
}

impl Template {
    /// Parses a path.
    ///
    /// Fails when braces do not pair; when a path with expressions is longer than a template may be.
    pub(crate) fn parse(path: &str) -> Result<Self, String> {
        if path.contains("{{") {
            check_template(path)?;
        }
        Self::parse_stored(path)
    }

    /// Parses a stored path, which may be older than the limit.
    ///
    /// # Errors
    /// When braces do not pair.
    pub(crate) fn parse_stored(path: &str) -> Result<Self, String> {
        Self::cut(path).ok_or_else(|| "unbalanced templating characters".to_owned())
    }

    fn cut(path: &str) -> Option<Self> {
        let mut parts = Vec::new();
        let mut pieces = path.split("{{");
        let head = pieces.next().unwrap_or_default();
        if head.contains("}}") {
            return None;
        }
        parts.push(Part::Literal(head.to_owned()));
        for piece in pieces {
            let (expression, literal) = piece.split_once("}}")?;
            if literal.contains("}}") {
                return None;
            }
            parts.push(Part::Expression(expression.trim().to_owned()));
            parts.push(Part::Literal(literal.to_owned()));
        }
        let beyond = path.len().saturating_sub(TEMPLATE_BYTES);
        Some(Self { parts, longest: VALUE_CHARACTERS + beyond })
    }

    /// Whether it has an expression.
    pub(crate) fn is_templated(&self) -> bool {
        self.parts.len() > 1
    }

    /// Renders the path for a subject.
    pub(crate) fn render(&self, subject: &Subject, options: TemplateOptions) -> Rendered {
        let mut path = String::new();
        let mut forbidden = None;
        for part in &self.parts {
            match part {
                Part::Literal(text) => path.push_str(text),
                Part::Expression(expression) => {
                    let Some(value) = subject.value(expression) else { return Rendered::Absent };
                    if !is_plain(value, options) {
                        forbidden.get_or_insert(path.len());
                    }
                    if path.len() + value.len() > self.longest {
                        path.truncate(forbidden.unwrap_or(path.len()));
                        return Rendered::Forbidden(path);
                    }
                    path.push_str(value);
                }
            }
        }
        // A value that ends in `+` may precede a literal `*`; together they would be a wildcard.
        let forbidden = forbidden.or_else(|| path.find("+*"));
        if let Some(head) = forbidden {
            path.truncate(head);
            return Rendered::Forbidden(path);
        }
        Rendered::Path(path)
    }
}

/// Whether a value is only a literal. An empty one would widen `x/{{…}}*` to `x/*`.
fn is_plain(value: &str, options: TemplateOptions) -> bool {
    let segment = |segment: &str| !segment.is_empty() && segment != "." && segment != "..";
    value.split('/').all(segment)
        && !value.chars().any(char::is_control)
        && (options.allow_slashes || !value.contains('/'))
        && (options.allow_wildcards || !value.contains(['*', '+']))
        && !value.contains("+*")
}

impl Subject {
    /// The value of an expression; none when the subject has none.
    fn value(&self, expression: &str) -> Option<&str> {
        let rest = expression.strip_prefix("identity.")?;
        if let Some(rest) = rest.strip_prefix("entity.") {
            let entity = self.entity.as_ref()?;
            return match rest.strip_prefix("aliases.") {
                Some(rest) => self.alias_value(rest),
                None => attribute(rest, &entity.id, &entity.name, &entity.metadata),
            };
        }
        if let Some(rest) = rest.strip_prefix("groups.ids.") {
            let (id, rest) = rest.split_once('.')?;
            return self.groups.iter().find(|group| group.id == id)?.value(rest);
        }
        // A group's name may hold dots, so it is searched and not split off.
        let rest = rest.strip_prefix("groups.names.")?;
        self.groups.iter().find_map(|group| group.value(rest.strip_prefix(group.name.as_str())?.strip_prefix('.')?))
    }

    fn alias_value(&self, rest: &str) -> Option<&str> {
        let alias = self.alias.as_ref()?;
        let rest = rest.strip_prefix(alias.mount_accessor.as_str())?.strip_prefix('.')?;
        match rest.strip_prefix("custom_metadata.") {
            Some(key) => alias.custom_metadata.get(key).map(String::as_str),
            None => attribute(rest, &alias.id, &alias.name, &alias.metadata),
        }
    }
}

impl Group {
    fn value(&self, rest: &str) -> Option<&str> {
        attribute(rest, &self.id, &self.name, &self.metadata)
    }
}

fn attribute<'a>(wanted: &str, id: &'a str, name: &'a str, metadata: &'a BTreeMap<String, String>) -> Option<&'a str> {
    match wanted {
        "id" => Some(id),
        "name" => Some(name),
        _ => metadata.get(wanted.strip_prefix("metadata.")?).map(String::as_str),
    }
}
