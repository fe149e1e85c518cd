//! A naive model of fifty namespaces: random requests, whose responses must be those of the model.

use std::collections::{BTreeMap, BTreeSet};

use proptest::prelude::Rng as _;
use proptest::test_runner::{RngAlgorithm, TestRng};
use serde_json::{Value, json};

use super::tenants::{delete, within};
use crate::tests::fixture::{ROOT, TestServer};

/// The number of namespaces.
const NAMESPACES: usize = 50;
/// The deepest namespace.
const DEPTH: usize = 4;
/// The names of namespaces; few, so that the same name lies in many places.
const NAMES: [&str; 5] = ["a", "b", "c", "kvx", "team"];
/// The keys of secrets.
const KEYS: [&str; 6] = ["x", "y", "d/x", "d/y", "d/e/z", "team"];
/// The capabilities of rules.
const CAPABILITIES: [&str; 5] = ["create", "read", "update", "delete", "list"];
/// The policies of a namespace.
const POLICIES: [&str; 3] = ["p0", "p1", "p2"];
/// The requests of one run, unless `KEEPFAST_NAMESPACE_REQUESTS` has another number.
const REQUESTS: usize = 15_000;

/// A path of namespaces, from root.
type Path = Vec<String>;

/// One rule: the text of its path and its capabilities; none denies.
#[derive(Clone, Debug)]
struct Rule {
    path: String,
    capabilities: Vec<&'static str>,
}

/// A namespace of the model.
#[derive(Default)]
struct Space {
    policies: BTreeMap<&'static str, Vec<Rule>>,
    secrets: BTreeMap<&'static str, u64>,
    locked: bool,
}

/// A token of the model.
#[derive(Clone)]
struct Holder {
    text: String,
    home: Path,
    policies: Vec<&'static str>,
    /// The number of the namespace that it belongs to: another one of the same path does not have it.
    birth: u64,
    is_revoked: bool,
}

/// The model with the server beside it.
struct World {
    rng: TestRng,
    server: TestServer,
    spaces: BTreeMap<Path, (u64, Space)>,
    holders: Vec<Holder>,
    births: u64,
    writes: u64,
    statuses: BTreeMap<u16, usize>,
}

fn segments(path: &str) -> Vec<&str> {
    path.split('/').collect()
}

/// Whether the path of a rule matches, by the documentation: `+` is one segment, a final `*` any rest.
fn matches(rule: &str, path: &str) -> bool {
    let (body, is_open) = rule.strip_suffix('*').map_or((rule, false), |body| (body, true));
    let (ours, theirs) = (segments(body), segments(path));
    for (n, part) in ours.iter().enumerate() {
        let Some(segment) = theirs.get(n) else { return false };
        let is_last = n + 1 == ours.len();
        let fits = *part == "+" || part == segment || (is_open && is_last && segment.starts_with(part));
        if !fits {
            return false;
        }
    }
    is_open || ours.len() == theirs.len()
}

fn is_exact(rule: &str) -> bool {
    !rule.ends_with('*') && !segments(rule).contains(&"+")
}

/// The order of rules with wildcards: the greater one decides.
fn rank(rule: &str) -> (usize, bool, std::cmp::Reverse<usize>, usize, String) {
    let body = rule.strip_suffix('*').unwrap_or(rule);
    let plus = segments(body).iter().filter(|segment| **segment == "+").count();
    let mut at = 0;
    let mut first = body.len();
    for segment in segments(body) {
        if segment == "+" {
            first = at;
            break;
        }
        at += segment.len() + 1;
    }
    (first, !rule.ends_with('*'), std::cmp::Reverse(plus), rule.len(), rule.to_owned())
}

/// The capabilities that these rules give on a path.
fn granted(rules: &[Rule], path: &str, is_list: bool) -> BTreeSet<&'static str> {
    let bare = path.strip_suffix('/').filter(|_| is_list);
    let best = |path: &str, exact: bool| {
        let paths = rules.iter().map(|rule| rule.path.as_str());
        paths.filter(|rule| is_exact(rule) == exact && matches(rule, path)).max_by_key(|rule| rank(rule))
    };
    let order = [(Some(path), true), (bare, true), (Some(path), false), (bare, false)];
    let Some(decides) = order.iter().find_map(|(path, exact)| best((*path)?, *exact)) else { return BTreeSet::new() };
    let deciding: Vec<&Rule> = rules.iter().filter(|rule| rule.path == decides).collect();
    if deciding.iter().any(|rule| rule.capabilities.is_empty()) {
        return BTreeSet::new();
    }
    // A more specific denial of the path without its final slash denies as well.
    if let Some(bare) = bare.filter(|_| !is_exact(decides)) {
        let denies =
            |rule: &&Rule| rule.capabilities.is_empty() && (matches(&rule.path, bare) || matches(&rule.path, path));
        let is_more = |rule: &&Rule| is_exact(&rule.path) || rank(&rule.path) > rank(decides);
        if rules.iter().filter(denies).any(|rule| is_more(&rule)) {
            return BTreeSet::new();
        }
    }
    deciding.iter().flat_map(|rule| rule.capabilities.iter().copied()).collect()
}

impl World {
    fn below(&mut self, bound: usize) -> usize {
        self.rng.next_u32() as usize % bound
    }

    fn pick<T: Clone>(&mut self, from: &[T]) -> T {
        let at = self.below(from.len());
        from[at].clone()
    }

    fn space(&mut self) -> Path {
        let all: Vec<Path> = self.spaces.keys().cloned().collect();
        self.pick(&all)
    }

    /// The topmost locked namespace at or above a path.
    fn locked(&self, path: &[String]) -> Option<String> {
        (0..=path.len())
            .find(|n| self.spaces.get(&path[..*n]).is_some_and(|(_, space)| space.locked))
            .map(|n| joined(&path[..n]))
    }

    /// The rules of a token, if it is valid.
    fn rules(&self, holder: &Holder) -> Option<Vec<Rule>> {
        let (birth, space) = self.spaces.get(&holder.home)?;
        if holder.is_revoked || *birth != holder.birth || self.locked(&holder.home).is_some() {
            return None;
        }
        Some(holder.policies.iter().filter_map(|name| space.policies.get(name)).flatten().cloned().collect())
    }

    /// A random rule: mostly about the secrets of namespaces below its own.
    fn rule(&mut self, home: &Path) -> Rule {
        let below: Vec<Path> = self.spaces.keys().filter(|path| path.starts_with(home)).cloned().collect();
        let target = self.pick(&below);
        let mut parts: Vec<String> = target[home.len()..].to_vec();
        parts.push("kv".to_owned());
        let key = self.pick(&KEYS);
        parts.extend(key.split('/').map(str::to_owned));
        for part in &mut parts {
            if self.rng.next_u32().is_multiple_of(6) {
                "+".clone_into(part);
            }
        }
        match self.below(6) {
            0 | 1 => {
                let keep = self.below(parts.len() + 1);
                parts.truncate(keep);
                parts.push("*".to_owned());
            }
            // A folder, for lists.
            2 => *parts.last_mut().unwrap() = String::new(),
            _ => {}
        }
        let mut capabilities: Vec<&'static str> =
            CAPABILITIES.into_iter().filter(|_| !self.rng.next_u32().is_multiple_of(5)).collect();
        if self.below(6) == 0 {
            capabilities.clear();
        }
        Rule { path: parts.join("/"), capabilities }
    }

    async fn write_policy(&mut self, home: &Path) {
        let name = self.pick(&POLICIES);
        if self.below(10) == 0 {
            let path = format!("sys/policies/acl/{name}");
            within(&self.server, &joined(home), ("DELETE", &path), ROOT, Value::Null).await.ok();
            self.spaces.get_mut(home).unwrap().1.policies.remove(name);
            return;
        }
        let count = 1 + self.below(4);
        let mut rules: Vec<Rule> = Vec::new();
        for _ in 0..count {
            rules.push(self.rule(home));
        }
        let text: String = rules
            .iter()
            .map(|rule| {
                let capabilities = if rule.capabilities.is_empty() {
                    "\"deny\"".to_owned()
                } else {
                    format!("\"{}\"", rule.capabilities.join("\", \""))
                };
                format!("path \"{}\" {{ capabilities = [{capabilities}] }}\n", rule.path)
            })
            .collect();
        let path = format!("sys/policies/acl/{name}");
        within(&self.server, &joined(home), ("POST", &path), ROOT, json!({ "policy": text })).await.ok();
        self.spaces.get_mut(home).unwrap().1.policies.insert(name, rules);
    }

    async fn write_token(&mut self, home: &Path) {
        // Without any it would be a root token.
        let mut policies: Vec<&'static str> =
            POLICIES.into_iter().filter(|_| self.rng.next_u32().is_multiple_of(2)).collect();
        if policies.is_empty() {
            policies.push(self.pick(&POLICIES));
        }
        let kind = if self.below(4) == 0 { "batch" } else { "service" };
        let body = json!({ "policies": policies, "no_default_policy": true, "type": kind });
        let made = within(&self.server, &joined(home), ("POST", "auth/token/create"), ROOT, body).await;
        let policies = made.body["auth"]["policies"].as_array().cloned().unwrap_or_default();
        let policies = POLICIES.into_iter().filter(|name| policies.contains(&json!(name))).collect();
        let birth = self.spaces[home].0;
        let text = made.ok().token();
        self.holders.push(Holder { text, home: home.clone(), policies, birth, is_revoked: false });
        // So many that most are alive.
        if self.holders.len() > 150 {
            let old = self.below(60);
            self.holders.remove(old);
        }
    }

    async fn create(&mut self) {
        let parent = self.space();
        let name = self.pick(&NAMES).to_owned();
        let mut path = parent.clone();
        path.push(name.clone());
        if path.len() > DEPTH || self.locked(&parent).is_some() || self.spaces.contains_key(&path) {
            return;
        }
        let (above, at) = (joined(&parent), joined(&path));
        within(&self.server, &above, ("POST", &format!("sys/namespaces/{name}")), ROOT, json!({})).await.ok();
        let kv = json!({ "type": "kv", "options": { "version": "1" } });
        within(&self.server, &at, ("POST", "sys/mounts/kv"), ROOT, kv).await.ok();
        self.births += 1;
        self.spaces.insert(path.clone(), (self.births, Space::default()));
        for _ in 0..2 {
            self.write_policy(&path).await;
            self.write_token(&path).await;
        }
    }

    async fn delete(&mut self) {
        let path = self.space();
        if path.is_empty() || self.locked(&path[..path.len() - 1]).is_some() {
            return;
        }
        if self.spaces.keys().any(|other| other.len() > path.len() && other.starts_with(&path)) {
            let (parent, name) = (joined(&path[..path.len() - 1]), path.last().unwrap());
            within(&self.server, &parent, ("DELETE", &format!("sys/namespaces/{name}")), ROOT, Value::Null)
                .await
                .is(400);
            return;
        }
        delete(&self.server, &joined(&path)).await;
        self.spaces.remove(&path);
    }

    async fn lock(&mut self) {
        let locked: Vec<Path> =
            self.spaces.iter().filter(|(_, (_, space))| space.locked).map(|(path, _)| path.clone()).collect();
        let path = if locked.len() >= 3 { self.pick(&locked) } else { self.space() };
        // Mostly deep ones, so that most requests are not refused.
        if path.is_empty() || self.locked(&path[..path.len() - 1]).is_some() || (path.len() == 1 && self.below(8) > 0) {
            return;
        }
        let locked = self.spaces[&path].1.locked;
        let action = if locked { "unlock" } else { "lock" };
        let (parent, name) = (joined(&path[..path.len() - 1]), path.last().unwrap());
        let at = format!("sys/namespaces/api-lock/{action}/{name}");
        within(&self.server, &parent, ("POST", &at), ROOT, json!({})).await.ok();
        self.spaces.get_mut(&path).unwrap().1.locked = !locked;
    }

    async fn revoke(&mut self) {
        let at = self.below(self.holders.len());
        let holder = self.holders[at].clone();
        if self.rules(&holder).is_none() || holder.text.starts_with("hvb.") {
            return;
        }
        self.server.post("auth/token/revoke", ROOT, json!({ "token": holder.text })).await.ok();
        self.holders[at].is_revoked = true;
    }

    /// A change of the tree, policies or tokens.
    async fn change(&mut self) {
        match self.below(40) {
            0..=1 if self.spaces.len() > NAMESPACES / 2 => self.delete().await,
            0..=4 => self.create().await,
            5..=8 => self.lock().await,
            9..=12 => self.revoke().await,
            n => {
                let home = self.space();
                if self.locked(&home).is_some() {
                    return;
                }
                if n < 28 { self.write_policy(&home).await } else { self.write_token(&home).await }
            }
        }
    }

    /// A namespace and a key that a rule of the token is about.
    fn aim(&mut self, holder: &Holder) -> Option<(Path, &'static str)> {
        let rules = self.rules(holder).filter(|rules| !rules.is_empty())?;
        let rule = self.pick(&rules).path;
        let (mut at, mut parts) = (holder.home.clone(), rule.split('/').peekable());
        while let Some(part) = parts.next_if(|part| *part != "kv") {
            let next: Vec<Path> = self
                .spaces
                .keys()
                .filter(|path| path.len() == at.len() + 1 && path.starts_with(&at))
                .filter(|path| part == "+" || part.ends_with('*') || path[at.len()] == part)
                .cloned()
                .collect();
            if next.is_empty() {
                break;
            }
            at = self.pick(&next);
        }
        let rest: String = parts.skip(1).collect::<Vec<_>>().join("/");
        let key = KEYS.into_iter().find(|key| *key == rest);
        Some((at, key.unwrap_or_else(|| self.pick(&KEYS))))
    }

    /// One request of a token about a secret, whose response must be that of the model.
    async fn request(&mut self, n: usize) {
        let holder = match self.below(12) {
            0 => Holder {
                text: "hvs.none".to_owned(),
                home: Path::new(),
                policies: Vec::new(),
                birth: u64::MAX,
                is_revoked: true,
            },
            _ => {
                let at = self.below(self.holders.len());
                self.holders[at].clone()
            }
        };
        // Mostly in a namespace of its own or below it.
        let below: Vec<Path> = self.spaces.keys().filter(|path| path.starts_with(&holder.home)).cloned().collect();
        let mut target = if self.below(3) > 0 && !below.is_empty() { self.pick(&below) } else { self.space() };
        let mut key = self.pick(&KEYS);
        if self.below(3) > 0
            && let Some((at, aimed)) = self.aim(&holder)
        {
            (target, key) = (at, aimed);
        }
        if self.below(20) == 0 {
            target.push(self.pick(&NAMES).to_owned());
        }
        let split = match self.below(3) {
            0 => target.len(),
            1 => 0,
            _ => self.below(target.len() + 1),
        };
        let operation = self.pick(&["read", "read", "read", "write", "write", "delete", "list"]);
        let folder = self.pick(&["", "d/", "d/e/"]);
        let within_mount = if operation == "list" { folder } else { key };
        let (header, in_path) = (joined(&target[..split]), &target[split..]);
        let path: String =
            in_path.iter().map(|name| format!("{name}/")).chain([format!("kv/{within_mount}")]).collect();
        let method = match operation {
            "read" => "GET",
            "write" => "POST",
            "delete" => "DELETE",
            _ => "LIST",
        };
        self.writes += 1;
        let value = self.writes;
        let body = if operation == "write" { json!({ "n": value }) } else { Value::Null };
        let expected = self.expected(&holder, (&target, split), operation, within_mount, value);
        let response = within(&self.server, &header, (method, &path), &holder.text, body).await;
        let found = match (response.status, operation) {
            (200, "read") => (200, response.data()["n"].to_string()),
            (200, "list") => (200, response.data()["keys"].to_string()),
            (204, _) => (204, String::new()),
            (503, _) | (404, _) if response.error() != "" => (response.status, response.error().to_owned()),
            (status, _) => (status, String::new()),
        };
        *self.statuses.entry(found.0).or_default() += 1;
        let rules = self.rules(&holder);
        assert_eq!(
            found,
            expected,
            "request {n}: {operation} by header {header:?} at {path}, token of {:?} with {:?}: {rules:#?}",
            joined(&holder.home),
            holder.policies
        );
    }

    /// The response of the model, which also applies the change.
    fn expected(
        &mut self,
        holder: &Holder,
        (target, split): (&Path, usize),
        operation: &str,
        key: &'static str,
        value: u64,
    ) -> (u16, String) {
        if !self.spaces.contains_key(&target[..split]) {
            return (404, "namespace not found".to_owned());
        }
        let deepest = (split..=target.len()).rev().find(|n| self.spaces.contains_key(&target[..*n])).unwrap_or(split);
        let at: Path = target[..deepest].to_vec();
        if let Some(locked) = self.locked(&at) {
            let text = format!(
                "API access to this namespace has been locked by an administrator - \"{locked}/\" must be unlocked to gain access."
            );
            return (503, text);
        }
        let denied = (403, String::new());
        let Some(rules) = self.rules(holder) else { return denied };
        if !at.starts_with(&holder.home) {
            return denied;
        }
        let mut relative: String = target[holder.home.len()..].iter().map(|name| format!("{name}/")).collect();
        relative.push_str("kv/");
        relative.push_str(key);
        let exists = deepest == target.len() && self.spaces[&at].1.secrets.contains_key(key);
        let needed = match operation {
            "write" if exists => "update",
            // Where there is no mount no engine knows whether the secret exists, and it is an update.
            "write" if deepest < target.len() => "update",
            "write" => "create",
            other => other,
        };
        if !granted(&rules, &relative, operation == "list").contains(needed) {
            return denied;
        }
        if deepest < target.len() {
            let rest: String = target[deepest..].iter().map(|name| format!("{name}/")).collect();
            return (404, format!("no handler for route {:?}. route entry not found.", format!("{rest}kv/{key}")));
        }
        let secrets = &mut self.spaces.get_mut(&at).unwrap().1.secrets;
        match operation {
            "read" => secrets.get(key).map_or((404, String::new()), |n| (200, n.to_string())),
            "write" => {
                secrets.insert(key, value);
                (204, String::new())
            }
            "delete" => {
                secrets.remove(key);
                (204, String::new())
            }
            _ => {
                let names: BTreeSet<String> = secrets
                    .keys()
                    .filter_map(|secret| secret.strip_prefix(key))
                    .map(|rest| rest.split_once('/').map_or(rest.to_owned(), |(folder, _)| format!("{folder}/")))
                    .collect();
                if names.is_empty() { (404, String::new()) } else { (200, json!(names).to_string()) }
            }
        }
    }
}

fn joined(path: &[String]) -> String {
    path.join("/")
}

/// A generator whose seed is printed when the test fails; `KEEPFAST_TEST_SEED` repeats a run.
fn seeded() -> TestRng {
    let seed = match std::env::var("KEEPFAST_TEST_SEED") {
        Ok(text) => hex::decode(text).unwrap(),
        Err(_) => keepfast_crypto::random::bytes::<32>().to_vec(),
    };
    println!("repeat with KEEPFAST_TEST_SEED={}", hex::encode(&seed));
    TestRng::from_seed(RngAlgorithm::ChaCha, &seed)
}

#[tokio::test]
async fn model_fifty_namespaces() {
    let requests = std::env::var("KEEPFAST_NAMESPACE_REQUESTS").map_or(REQUESTS, |text| text.parse().unwrap());
    let server = TestServer::new().await;
    let kv = json!({ "type": "kv", "options": { "version": "1" } });
    server.post("sys/mounts/kv", ROOT, kv).await.ok();
    let mut world = World {
        rng: seeded(),
        server,
        spaces: BTreeMap::from([(Path::new(), (0, Space::default()))]),
        holders: Vec::new(),
        births: 0,
        writes: 0,
        statuses: BTreeMap::new(),
    };
    for _ in 0..6 {
        world.write_policy(&Path::new()).await;
        world.write_token(&Path::new()).await;
    }
    while world.spaces.len() <= NAMESPACES {
        world.create().await;
    }
    println!("{} namespaces", world.spaces.len());
    for n in 0..requests {
        if world.below(12) == 0 {
            world.change().await;
        }
        if world.below(3000) == 0 {
            world.server.restarted().await;
        }
        if n % 1000 == 0 {
            world.server.forget_audit();
        }
        world.request(n).await;
    }
    println!("{requests} requests: {:?}, {} namespaces", world.statuses, world.spaces.len());
    let allowed = |status: u16| world.statuses.get(&status).copied().unwrap_or_default();
    if requests >= 5000 {
        assert!(allowed(200) + allowed(204) > requests / 20, "{:?}", world.statuses);
        assert!(allowed(403) > requests / 20 && allowed(503) > requests / 200, "{:?}", world.statuses);
    }
}
