//! The fast matcher against the naive one.

use std::sync::Arc;
use std::time::Duration;

use keepfast_framework::Operation;
use keepfast_hcl::Position;

use super::super::template::Template;
use super::NOW;
use super::*;

/// A small random generator (xorshift), so that a seed identifies a run.
struct Xorshift(u64);

impl Xorshift {
    fn below(&mut self, bound: usize) -> usize {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        usize::try_from(self.0 >> 33).unwrap() % bound
    }

    fn pick<'a>(&mut self, from: &[&'a str]) -> &'a str {
        from[self.below(from.len())]
    }

    fn path(&mut self, segments: &[&str], ends: &[&str]) -> String {
        let count = 1 + self.below(3);
        let path: Vec<_> = (0..count).map(|_| self.pick(segments)).collect();
        path.join("/") + self.pick(ends)
    }

    fn policies(&mut self) -> Vec<Policy> {
        (0..1 + self.below(3))
            .map(|_| {
                let paths = (0..self.below(12)).map(|_| self.rule()).collect();
                Policy { paths, ..Policy::empty("") }
            })
            .collect()
    }

    fn rule(&mut self) -> PathRule {
        let path = self
            .path(&["a", "b", "a", "b", "A", "+", "+", "a+", "*b", "\u{df}"], &["", "", "*", "/", "/*", "b*"])
            .replace("+*", "+");
        let mut capabilities: Capabilities =
            (0..self.below(7)).map(|_| Capability::ALL[self.below(9)]).filter(|c| *c != Capability::Deny).collect();
        if self.below(6) == 0 {
            capabilities = Capabilities::DENY;
        }
        let mut bound = || Some(self.below(12)).filter(|n| *n > 0 && *n < 4).map(|n| Duration::from_secs(n as u64));
        let conditions =
            grant::Conditions { min_wrapping_ttl: bound(), max_wrapping_ttl: bound(), ..grant::Conditions::default() };
        let conditions = (!conditions.is_empty() && capabilities != Capabilities::DENY).then(|| Box::new(conditions));
        let template = Template::parse(&path).unwrap();
        PathRule {
            path,
            position: Position::START,
            grant: grant::Grant { capabilities, conditions },
            expiration: None,
            template,
        }
    }
}

/// The fast matcher and the naive one agree on random policies, paths and operations: 100,000 by default,
/// `KEEPFAST_POLICY_CASES` in a campaign, with the seed `KEEPFAST_POLICY_SEED`.
#[test]
fn sec_ac13_fast_matcher_equals_the_naive_reference() {
    let number =
        |name: &str, default: u64| std::env::var(name).ok().and_then(|text| text.parse().ok()).unwrap_or(default);
    let mut chance = Xorshift(number("KEEPFAST_POLICY_SEED", 0x9e37_79b9_7f4a_7c15));
    let (mut cases, mut granted) = (0, 0);
    while cases < number("KEEPFAST_POLICY_CASES", 100_000) {
        let policies = chance.policies();
        let acl = Acl::compile(&policies, &Subject::default());
        for _ in 0..100 {
            let path = chance.path(&["a", "b", "a", "b", "ab", "A", "a+", "*b", "\u{df}", "SS"], &["", "", "/"]);
            let operation = Operation::ALL[chance.below(6)];
            let wrap_ttl = Some(chance.below(5)).filter(|ttl| *ttl > 0).map(|ttl| Duration::from_secs(ttl as u64));
            let creates = chance.below(2) == 0;
            let decision = acl.allow(&AclRequest {
                path: &path,
                operation,
                creates,
                parameters: &|| None,
                declared: None,
                wrap_ttl,
                now: NOW,
            });
            let expected = naive_decision(&policies, &path, operation, creates, wrap_ttl);
            assert_eq!(
                (decision.allowed, decision.sudo),
                expected,
                "{operation:?} {path} {wrap_ttl:?} under {policies:#?}"
            );
            assert_eq!(
                acl.capabilities(&path, NOW),
                naive_capabilities(&policies, &path),
                "{path} under {policies:#?}"
            );
            granted += u64::from(decision.allowed);
            cases += 1;
        }
    }
    assert!(granted * 20 > cases, "too few of the {cases} cases were granted to say anything: {granted}");
}

/// Policies with expressions, expirations and conditions, as texts.
fn whole_policies(chance: &mut Xorshift) -> Vec<Arc<Policy>> {
    let mut policies = Vec::new();
    for number in 0..1 + chance.below(3) {
        let mut text = String::new();
        for _ in 0..1 + chance.below(6) {
            let segments = ["a", "b", "A", "+", "{{identity.entity.name}}", "{{identity.entity.metadata.k}}", "a+"];
            let path = chance.path(&segments, &["", "", "*", "/", "/*"]).replace("+*", "+");
            let mut names: Vec<_> = (0..chance.below(6)).map(|_| Capability::ALL[chance.below(9)]).collect();
            names.retain(|capability| *capability != Capability::Deny || chance.below(4) == 0);
            let names: Vec<_> = names.iter().map(|capability| format!("{:?}", capability.name())).collect();
            let mut conditions = String::new();
            for condition in [
                "allowed_parameters = { a = [\"x\"], b = [] }",
                "allowed_parameters = { \"*\" = [] }",
                "denied_parameters = { a = [\"x\", 1] }",
                "required_parameters = [\"b\"]",
                "pagination_limit = 3",
                "min_wrapping_ttl = 2",
                "expiration = 1799999999",
                "expiration = 1800000001",
            ] {
                let name = condition.split(' ').next().unwrap();
                if chance.below(8) == 0 && !conditions.contains(name) {
                    conditions += condition;
                    conditions.push('\n');
                }
            }
            if chance.below(8) == 0 {
                let controlled = names.iter().find(|name| !matches!(name.as_str(), "\"sudo\"" | "\"deny\""));
                let controlled = controlled.filter(|_| chance.below(3) > 0);
                let controlled = controlled.map(|name| format!("controlled_capabilities = [{name}]"));
                let (ttl, factor) = (1 + chance.below(3), chance.pick(&["f", "g"]));
                let identity = "identity { group_names = [\"x\"] approvals = 1 }";
                let controlled = controlled.unwrap_or_default();
                conditions +=
                    &format!("control_group {{ ttl = {ttl} factor {factor:?} {{ {controlled}\n{identity} }} }}\n");
            }
            text += &format!("path {path:?} {{\ncapabilities = [{}]\n{conditions}}}\n", names.join(", "));
        }
        let mut policy = parse(&format!("p{number}"), &text).unwrap();
        policy.expiration =
            (chance.below(8) == 0).then(|| Timestamp::from_unix(1_799_999_999 + chance.below(3) as i64));
        policies.push(Arc::new(policy));
    }
    policies
}

/// The reference evaluator and the explanations decide as the fast one, with expressions, expirations and conditions.
#[test]
fn explanations_decide_as_the_fast_evaluator() {
    let number =
        |name: &str, default: u64| std::env::var(name).ok().and_then(|text| text.parse().ok()).unwrap_or(default);
    let seed = number("KEEPFAST_POLICY_SEED", 0x2545_f491_4f6c_dd1d);
    let mut chance = Xorshift(seed);
    let (mut cases, mut granted) = (0, 0);
    while cases < number("KEEPFAST_POLICY_CASES", 100_000) / 2 {
        let policies = whole_policies(&mut chance);
        let subject = subject(chance.pick(&["a", "b", "a/b", "+", "*"]));
        let acl = Acl::compile(policies.iter().map(Arc::as_ref), &subject);
        for _ in 0..50 {
            let path = chance.path(&["a", "b", "A", "a+", "ab"], &["", "", "/"]);
            let mut given = serde_json::Map::new();
            for name in ["a", "b", "B", "c", "limit"] {
                if chance.below(4) == 0 {
                    given.insert(name.to_owned(), [json!("x"), json!(1), json!(5)][chance.below(3)].clone());
                }
            }
            let parameters = || Some(given.clone());
            let request = AclRequest {
                path: &path,
                operation: Operation::ALL[chance.below(8)],
                creates: chance.below(2) == 0,
                parameters: &parameters,
                declared: None,
                wrap_ttl: Some(chance.below(5)).map(|ttl| Duration::from_secs(ttl as u64)),
                now: NOW,
            };
            let decision = acl.allow(&request);
            let candidates = naive::candidates(policies.iter().map(Arc::as_ref), &subject);
            let reference = naive::decide(&candidates, &request);
            let context = || format!("seed {seed}: {:?} {path} {given:?} under {policies:#?}", request.operation);
            assert_eq!(reference.decision, decision, "{}", context());
            let question = explain::Question {
                readable: &policies,
                has_hidden: false,
                acl: &acl,
                subject: &subject,
                request: AclRequest { ..request },
                route: explain::KnownRoute::Absent,
            };
            let explanation = explain::explain(&question);
            assert_eq!(explanation.allowed, decision.allowed, "{}", context());
            assert_ne!(explanation.cause, "hidden_policy", "{}", context());
            granted += u64::from(decision.allowed);
            cases += 1;
        }
    }
    assert!(granted * 20 > cases, "too few of the {cases} cases were granted to say anything: {granted}");
}

/// The rules that decide and do not deny.
fn granting<'c, 'a>(
    candidates: &'c [naive::Candidate<'a>],
    path: &str,
    list: bool,
) -> Option<Vec<&'c naive::Candidate<'a>>> {
    let naive::Deciding { rules, veto } = naive::deciding(candidates, path, list, NOW)?;
    (veto.is_none() && !rules.iter().any(|rule| rule.grant.is_deny())).then_some(rules)
}

/// The response of `sys/capabilities`.
fn naive_capabilities(policies: &[Policy], path: &str) -> Vec<&'static str> {
    let candidates = naive::candidates(policies, &Subject::default());
    let rules = granting(&candidates, path, true).unwrap_or_default();
    let has = |capability: &Capability| rules.iter().any(|rule| rule.grant.capabilities.has(*capability));
    let names: Vec<_> = Capability::ALL.into_iter().filter(has).map(Capability::name).collect();
    if names.is_empty() { vec!["deny"] } else { names }
}

fn naive_decision(
    policies: &[Policy],
    path: &str,
    operation: Operation,
    creates: bool,
    wrap_ttl: Option<Duration>,
) -> (bool, bool) {
    let list = operation.lists();
    let path = if list && !path.ends_with('/') { format!("{path}/") } else { path.to_owned() };
    let candidates = naive::candidates(policies, &Subject::default());
    let Some(rules) = granting(&candidates, &path, list) else { return (false, false) };
    let needed = match operation {
        Operation::Read => Capability::Read,
        Operation::Update if creates => Capability::Create,
        Operation::Update => Capability::Update,
        Operation::Patch => Capability::Patch,
        Operation::Delete => Capability::Delete,
        Operation::List => Capability::List,
        _ => Capability::Scan,
    };
    let has = |capability| rules.iter().any(|rule| rule.grant.capabilities.has(capability));
    let conditions = || rules.iter().filter_map(|rule| rule.grant.conditions.as_deref());
    let min = conditions().filter_map(|conditions| conditions.min_wrapping_ttl).min();
    let max = conditions().filter_map(|conditions| conditions.max_wrapping_ttl).min();
    let wrapped = min.is_none_or(|min| wrap_ttl.is_some_and(|ttl| ttl >= min))
        && max.is_none_or(|max| wrap_ttl.is_some_and(|ttl| ttl <= max));
    (has(needed) && wrapped, has(Capability::Sudo))
}
