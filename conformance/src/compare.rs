//! Plays scenarios on two servers side by side and prints every difference of status, keys, types and texts, whatever
//! the scenario expects.

use anyhow::Result;
use serde_json::Value;

use crate::http::Response;
use crate::play::Play;
use crate::record::mask;
use crate::run::{Target, title};
use crate::scenario::Loaded;

/// Plays each scenario on both servers and prints the differences; returns the number of steps that differ.
pub fn compare_all(ours: &Target, openbao: &Target, scenarios: &[Loaded], strict: bool) -> Result<usize> {
    let mut differing = 0;
    for loaded in scenarios {
        let mut of_ours = play_through(ours, loaded)?;
        let of_openbao = play_through(openbao, loaded)?;
        of_ours.resize(of_ours.len().max(of_openbao.len()), Err("not played".to_owned()));
        for (index, (our, their)) in of_ours.iter().zip(&of_openbao).enumerate() {
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

/// A response with its varying parts masked, or why there is none.
type Played = Result<(u16, Value), String>;

fn play_through(target: &Target, loaded: &Loaded) -> Result<Vec<Played>> {
    let played = target.with_client(loaded.scenario.needs, |client, root| {
        let mut play = match Play::begin(client, root, &loaded.scenario, false).map_err(anyhow::Error::from) {
            Ok(play) => play,
            Err(error) => return loaded.scenario.steps.iter().map(|_| Err(format!("{error:#}"))).collect(),
        };
        let mut responses = Vec::new();
        for step in &loaded.scenario.steps {
            let response = play.send(step, |_, _| true).map_err(|error| format!("{error:#}"));
            if let Ok(response) = &response {
                let _ = play.capture(step, response);
            }
            responses.push(response.map(|response| (response.status, masked_body(&response, &play))));
        }
        play.end();
        responses
    })?;
    Ok(played.unwrap_or_default())
}

fn masked_body(response: &Response, play: &Play<'_>) -> Value {
    let body = response.json().unwrap_or_else(|| String::from_utf8_lossy(&response.body).into_owned().into());
    mask(&body, &play.variables)
}

fn step_differences(ours: &Played, openbao: &Played) -> Vec<String> {
    let (ours, openbao) = match (ours, openbao) {
        (Ok(ours), Ok(openbao)) => (ours, openbao),
        (Err(a), Err(b)) if a == b => return Vec::new(),
        (a, b) => return vec![format!("ours: {}", outcome(a)), format!("openbao: {}", outcome(b))],
    };
    let mut lines = Vec::new();
    if ours.0 != openbao.0 {
        lines.push(format!("status: ours {}, openbao {}", ours.0, openbao.0));
    }
    diff("", Some(&ours.1), Some(&openbao.1), &mut lines);
    lines
}

fn outcome(played: &Played) -> String {
    match played {
        Ok((status, body)) => format!("{status} {body}"),
        Err(error) => error.clone(),
    }
}

fn diff(at: &str, ours: Option<&Value>, openbao: Option<&Value>, lines: &mut Vec<String>) {
    match (ours, openbao) {
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
        _ if ours == openbao => {}
        _ => {
            let show = |value: Option<&Value>| value.map_or_else(|| "absent".to_owned(), Value::to_string);
            let place = if at.is_empty() { "body" } else { at.trim_start_matches('.') };
            lines.push(format!("{place}: ours {}, openbao {}", show(ours), show(openbao)));
        }
    }
}
