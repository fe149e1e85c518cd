//! Plays scenarios on two servers side by side and prints every difference of status, keys, types and texts, whatever
//! the scenario expects: the tool of whoever builds an engine.

use anyhow::Result;
use serde_json::Value;

use crate::http::Answer;
use crate::play::Play;
use crate::record::mask;
use crate::run::{Ground, title};
use crate::scenario::Loaded;

/// Plays each scenario on both and prints the differences; the number of steps that differ.
pub fn compare_all(ours: &Ground, peer: &Ground, scenarios: &[Loaded], strict: bool) -> Result<usize> {
    let mut differing = 0;
    for loaded in scenarios {
        let mut of_ours = play_through(ours, loaded)?;
        let of_peer = play_through(peer, loaded)?;
        of_ours.resize(of_ours.len().max(of_peer.len()), Err("not played".to_owned()));
        for (index, (our, their)) in of_ours.iter().zip(&of_peer).enumerate() {
            let step = &loaded.scenario.steps[index];
            let known = step.differs.is_some();
            let lines = if known && !strict { Vec::new() } else { step_differences(our, their) };
            if lines.is_empty() {
                continue;
            }
            differing += 1;
            println!(
                "{} step {}: {}{}",
                loaded.name,
                index + 1,
                title(step),
                if known { " [differs on purpose]" } else { "" }
            );
            for line in lines {
                println!("     {line}");
            }
        }
    }
    Ok(differing)
}

/// An answer with its varying parts masked, or why there is none.
type Played = Result<(u16, Value), String>;

fn play_through(ground: &Ground, loaded: &Loaded) -> Result<Vec<Played>> {
    let played = ground.with_client(loaded.scenario.needs, |client, root| {
        let mut play = match Play::begin(client, root, &loaded.scenario) {
            Ok(play) => play,
            Err(error) => return loaded.scenario.steps.iter().map(|_| Err(format!("{error:#}"))).collect(),
        };
        let mut answers = Vec::new();
        for step in &loaded.scenario.steps {
            let answer = play.send(step, |_, _| true).map_err(|error| format!("{error:#}"));
            if let Ok(answer) = &answer {
                let _ = play.capture(step, answer);
            }
            answers.push(answer.map(|answer| (answer.status, masked_body(&answer, &play))));
        }
        play.end();
        answers
    })?;
    Ok(played.unwrap_or_default())
}

fn masked_body(answer: &Answer, play: &Play<'_>) -> Value {
    let body = answer.json().unwrap_or_else(|| String::from_utf8_lossy(&answer.body).into_owned().into());
    mask(&body, &play.variables)
}

fn step_differences(ours: &Played, peer: &Played) -> Vec<String> {
    let (ours, peer) = match (ours, peer) {
        (Ok(ours), Ok(peer)) => (ours, peer),
        (Err(a), Err(b)) if a == b => return Vec::new(),
        (a, b) => return vec![format!("ours: {}", outcome(a)), format!("peer: {}", outcome(b))],
    };
    let mut lines = Vec::new();
    if ours.0 != peer.0 {
        lines.push(format!("status: ours {}, peer {}", ours.0, peer.0));
    }
    diff("", Some(&ours.1), Some(&peer.1), &mut lines);
    lines
}

fn outcome(played: &Played) -> String {
    match played {
        Ok((status, body)) => format!("{status} {body}"),
        Err(error) => error.clone(),
    }
}

fn diff(at: &str, ours: Option<&Value>, peer: Option<&Value>, lines: &mut Vec<String>) {
    match (ours, peer) {
        (Some(Value::Object(a)), Some(Value::Object(b))) => {
            for key in a.keys().chain(b.keys().filter(|key| !a.contains_key(*key))) {
                diff(&format!("{at}.{key}"), a.get(key), b.get(key), lines);
            }
        }
        (Some(Value::Array(a)), Some(Value::Array(b))) if a.len() == b.len() => {
            for (index, (x, y)) in a.iter().zip(b).enumerate() {
                diff(&format!("{at}.{index}"), Some(x), Some(y), lines);
            }
        }
        _ if ours == peer => {}
        _ => {
            let show = |value: Option<&Value>| value.map_or_else(|| "absent".to_owned(), Value::to_string);
            let place = if at.is_empty() { "body" } else { at.trim_start_matches('.') };
            lines.push(format!("{place}: ours {}, peer {}", show(ours), show(peer)));
        }
    }
}
