//! Explanations for people: a sentence, then one line per fact under a word that says what kind it is.

use crate::output::{gib, text as text_at};
use serde_json::Value;

/// Writes it.
pub fn text_of(lines: &[(String, String)]) -> String {
    let mut last = String::new();
    let lines = lines.iter().map(|(key, value)| {
        let shown = if *key == last { "" } else { key.as_str() };
        last.clone_from(key);
        format!("  {shown:<9} {value}").trim_end().to_owned()
    });
    lines.collect::<Vec<_>>().join("\n")
}

/// The whole explanation.
pub fn text(told: &Value) -> String {
    let usual = told["usual_s"].as_f64().map(|usual| format!(" (usual {usual:.1} s)")).unwrap_or_default();
    let head = format!(
        "{} is {}, since {}{usual}",
        text_at(told, "name"),
        text_at(told, "run_state"),
        text_at(told, "since")
    );
    let mut lines = Vec::new();
    let mut say = |key: &str, value: String| lines.push((key.to_owned(), value));
    for why in items(told, "because") {
        say("because", why.as_str().unwrap_or_default().to_owned());
    }
    if let Some(owner) = owner(&told["owner"]) {
        say("owner", owner);
    }
    for wait in items(told, "waits") {
        say("waiting", waiting(&wait));
    }
    if let Some(asked) = asked(&told["asked_by"]) {
        say("asked by", asked);
    }
    for hold in items(told, "holds") {
        let memory = gib(hold["memory"].as_u64().unwrap_or(0));
        let (sled, what) = (text_at(&hold, "sled_name"), text_at(&hold, "what"));
        say("holds", format!("{} vCPU + {memory} on {sled} ({what})", hold["threads"]));
    }
    for next in items(told, "next") {
        let at = next["at"].as_str().map(|at| format!("{at}: ")).unwrap_or_default();
        say("next", format!("{at}{} -> {}", text_at(&next, "when"), text_at(&next, "then")));
    }
    for command in items(told, "can") {
        say("you can", command.as_str().unwrap_or_default().to_owned());
    }
    format!("{head}\n{}", text_of(&lines))
}

/// The page of a sled.
pub fn sled_text(told: &Value) -> String {
    let head = format!("{} is {}", text_at(&told["sled"], "name"), text_at(told, "state"));
    let mut lines = Vec::new();
    let mut say = |key: &str, value: String| lines.push((key.to_owned(), value));
    for why in items(told, "because") {
        say("because", why.as_str().unwrap_or_default().to_owned());
    }
    say("owner", text_at(told, "owner"));
    for wait in items(told, "waits") {
        let until = wait["until"].as_str().map(|until| format!(", until {until}")).unwrap_or_default();
        say("waiting", format!("for {}{until}", text_at(&wait, "for")));
    }
    let held = &told["sled"]["held"];
    let memory = gib(held["memory"].as_u64().unwrap_or(0));
    say("holds", format!("{} threads + {memory}, by {} instance(s)", held["threads"], told["holds_in_all"]));
    for one in items(told, "holds") {
        say("holds", format!("{} ({})", text_at(&one, "name"), text_at(&one, "run_state")));
    }
    for next in items(told, "next") {
        say("next", format!("{} -> {}", text_at(&next, "when"), text_at(&next, "then")));
    }
    for command in items(told, "can") {
        say("you can", command.as_str().unwrap_or_default().to_owned());
    }
    format!("{head}\n{}", text_of(&lines))
}

/// The page of a timer.
pub fn timer_text(told: &Value) -> String {
    let timer = &told["timer"];
    let head = format!(
        "{} runs every {} s ({}): {}",
        text_at(timer, "name"),
        timer["period_s"].as_f64().unwrap_or_default(),
        text_at(told, "setting"),
        text_at(timer, "does")
    );
    let mut lines = Vec::new();
    let mut say = |key: &str, value: String| lines.push((key.to_owned(), value));
    for why in items(told, "because") {
        say("because", why.as_str().unwrap_or_default().to_owned());
    }
    say("owner", text_at(told, "owner"));
    let last = timer["last_run"].as_str().map_or_else(
        || "not yet, since this daemon started".to_owned(),
        |last| {
            format!("at {last}, found {}; {} in {} runs", timer["last_found"], timer["found"], timer["runs"])
        },
    );
    say("last run", last);
    if let Some(trouble) = timer["last_trouble"].as_str() {
        say("trouble", trouble.to_owned());
    }
    if let (Some(from), Some(by)) = (told["next_from"].as_str(), told["next_by"].as_str()) {
        say("next run", format!("between {from} and {by}"));
    }
    for next in items(told, "next") {
        say("next", format!("{} -> {}", text_at(&next, "when"), text_at(&next, "then")));
    }
    for command in items(told, "can") {
        say("you can", command.as_str().unwrap_or_default().to_owned());
    }
    format!("{head}\n{}", text_of(&lines))
}

fn items(value: &Value, key: &str) -> Vec<Value> {
    value[key].as_array().cloned().unwrap_or_default()
}

fn owner(owner: &Value) -> Option<String> {
    match owner["kind"].as_str()? {
        "saga" => Some(format!(
            "saga {} {} is at step {} of {}, \"{}\", since {}",
            text_at(owner, "name"),
            text_at(owner, "id"),
            owner["step"],
            owner["steps"],
            text_at(owner, "does"),
            text_at(owner, "since")
        )),
        "instance" => Some(text_at(owner, "what")),
        "restart_policy" => {
            Some(format!("the restart policy: attempt {} at {}", owner["attempt"], text_at(owner, "at")))
        }
        _ => None,
    }
}

fn asked(by: &Value) -> Option<String> {
    let actor = by["actor"].as_str()?;
    let reason = by["reason"].as_str().map(|reason| format!(", because \"{reason}\"")).unwrap_or_default();
    let (event, time) = (text_at(by, "event"), text_at(by, "time"));
    Some(format!(
        "{actor}: {event} #{} at {time}{reason} (request {})",
        by["version"],
        text_at(by, "request_id")
    ))
}

fn waiting(wait: &Value) -> String {
    let contact = &wait["contact"];
    let heard = match (contact["unreachable"].as_object(), contact["last_heard"].as_str()) {
        (Some(_), _) => format!(
            "; it cannot be reached since {}: {}",
            text_at(&contact["unreachable"], "since"),
            text_at(&contact["unreachable"], "reason")
        ),
        (None, Some(heard)) => format!("; last heard from at {heard}"),
        (None, None) => "; not heard from since the daemon started".to_owned(),
    };
    let held_back = contact["held_back"].as_object().map(|_| {
        let held_back = &contact["held_back"];
        let next = held_back["next_probe"].as_str().unwrap_or("now");
        format!(" (requests held back since {}, next probe {next})", text_at(held_back, "since"))
    });
    let heard = heard + &held_back.unwrap_or_default();
    let until = wait["until"].as_str().map(|until| format!(", until {until}")).unwrap_or_default();
    format!(
        "for sled {} {} (VMM {}){until}{heard}",
        text_at(wait, "sled_name"),
        text_at(wait, "for"),
        text_at(wait, "vmm")
    )
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn an_explanation_reads_as_a_sentence_and_its_facts() {
        let told = json!({
            "name": "web-2", "run_state": "migrating", "since": "T0", "usual_s": 2.5,
            "because": ["its guest moves from sim-0 to sim-2", "it was called off"],
            "owner": {"kind": "instance", "what": "the migration"},
            "waits": [{"for": "to give up", "vmm": "4f1d", "sled_name": "sim-2", "until": null,
                       "contact": {"last_heard": "T1", "unreachable": null,
                                   "held_back": {"since": "T2", "next_probe": "T3"}}}],
            "holds": [{"sled_name": "sim-0", "threads": 2, "memory": 2_147_483_648_u64, "what": "active"}],
            "next": [{"when": "not decided by then", "then": "both are told", "at": "T9"}],
            "can": ["musher instance stop web-2"],
            "asked_by": {"actor": "user ada", "event": "MigrateBegan", "version": 7, "time": "T0",
                         "reason": "firmware", "request_id": "b38e"},
        });
        let expected = "web-2 is migrating, since T0 (usual 2.5 s)
  because   its guest moves from sim-0 to sim-2
            it was called off
  owner     the migration
  waiting   for sled sim-2 to give up (VMM 4f1d); last heard from at T1 (requests held back since T2, next probe T3)
  asked by  user ada: MigrateBegan #7 at T0, because \"firmware\" (request b38e)
  holds     2 vCPU + 2 GiB on sim-0 (active)
  next      T9: not decided by then -> both are told
  you can   musher instance stop web-2";
        assert_eq!(text(&told), expected);
    }
}
