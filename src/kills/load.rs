//! Clients: each has one instance at a time, and asks one thing at a time, under a key of its own.

use super::Found;
use crate::exit::Failure;
use reqwest::Method;
use serde_json::{Value, json};
use std::fs::File;
use std::io::Write as _;
use std::path::Path;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;
use tokio::time::sleep;

/// Wait before something is asked again.
const AGAIN: Duration = Duration::from_millis(20);
/// How often something is asked again: half a minute in all, beside what the answers take.
const ATTEMPTS_MAX: usize = 1_500;

/// Most accepted requests of an instance that a client remembers.
const ACCEPTED_MAX: usize = 64;

/// What all clients have seen so far.
#[derive(Debug, Default)]
pub struct Counts {
    acknowledged: AtomicU64,
    put_off: AtomicU64,
}

impl Counts {
    /// Requests that were carried out.
    pub fn acknowledged(&self) -> u64 {
        self.acknowledged.load(Ordering::SeqCst)
    }

    /// Answers that said "later".
    pub fn put_off(&self) -> u64 {
        self.put_off.load(Ordering::SeqCst)
    }
}

/// What was found when everything was looked at after a start.
#[derive(Clone, Copy, Debug, Default)]
pub struct Checked {
    /// Requests that were open, and are settled.
    pub settled: u64,
    /// Requests that were accepted long ago, and were asked again.
    pub repeated: u64,
}

/// How often it is looked whether a wish has come true: longer than the deadline of a start, which is what ends one
/// whose sled says nothing.
const REST_ATTEMPTS_MAX: usize = 9_000;

/// Draws of one client, or of the campaign.
pub struct Dice {
    seed: u64,
    drawn: u64,
}

impl Dice {
    /// Dice of a seed and whoever rolls them.
    pub const fn new(seed: u64, whose: u64) -> Self {
        Self { seed: seed ^ whose.wrapping_mul(0x9e37_79b9_7f4a_7c15), drawn: 0 }
    }

    /// A number below `sides`.
    pub const fn roll(&mut self, sides: u64) -> u64 {
        self.drawn = self.drawn.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.seed.wrapping_add(self.drawn);
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        (z ^ (z >> 31)) % sides
    }
}

/// What is asked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Verb {
    Create,
    Start,
    Stop,
    Delete,
}

#[derive(Clone, Debug)]
struct Request {
    key: String,
    verb: Verb,
    /// The instance's id; its name for a create.
    about: String,
}

impl Request {
    fn send(&self, http: &reqwest::Client, url: &str) -> reqwest::RequestBuilder {
        let about = &self.about;
        let (method, path) = match self.verb {
            Verb::Create => (Method::POST, "/v1/instances?project=demo".to_owned()),
            Verb::Start => (Method::POST, format!("/v1/instances/{about}/start")),
            Verb::Stop => (Method::POST, format!("/v1/instances/{about}/stop")),
            Verb::Delete => (Method::DELETE, format!("/v1/instances/{about}")),
        };
        let request = http.request(method, format!("{url}{path}")).header("idempotency-key", &self.key);
        if self.verb != Verb::Create {
            return request;
        }
        let body = json!({
            "name": about, "description": "", "hostname": about, "ncpus": 2, "memory": 4_u64 << 30, "start": true,
        });
        request.json(&body)
    }
}

/// An answer that settles a request: not "later", not "unknown".
#[derive(Clone, Debug, PartialEq, Eq)]
struct Answer {
    status: u16,
    id: Option<String>,
}

/// None if the daemon is gone; `Ok(None)` if it is to be asked again.
async fn ask(request: &Request, http: &reqwest::Client, url: &str) -> Option<Option<Answer>> {
    let response = request.send(http, url).send().await.ok()?;
    let status = response.status().as_u16();
    let text = response.text().await.ok()?;
    let body: Value = serde_json::from_str(&text).unwrap_or(Value::Null);
    let id = body["id"].as_str().map(str::to_owned);
    // 5xx but for "no room": not done, not confirmed, or nobody knows. The key makes asking again safe.
    let is_settled = status < 500 || status == 507;
    Some(is_settled.then_some(Answer { status, id }))
}

/// What everybody did, one JSON line each, synced before a request leaves.
#[derive(Clone)]
struct History(Arc<Mutex<File>>);

impl History {
    fn note(&self, what: &str, request: &Request, answer: Option<&Answer>) -> Result<(), Found> {
        let line = json!({
            "event": what, "key": request.key, "verb": format!("{:?}", request.verb), "about": request.about,
            "status": answer.map(|answer| answer.status), "id": answer.and_then(|answer| answer.id.clone()),
        });
        let mut file = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let written = writeln!(file, "{line}").and_then(|()| file.sync_data());
        written.map_err(|error| Found::new("I6", format!("the history cannot be written: {error}")))
    }
}

/// One client.
struct Client {
    nth: u64,
    count: u64,
    dice: Dice,
    history: History,
    /// Its instance, and what it is wished to be.
    instance: Option<(String, &'static str)>,
    /// Asked, and not settled.
    pending: Option<Request>,
    /// What was accepted about the instance and changed something, with the answers: what changes nothing leaves
    /// nothing in the log by which a repeat could be told.
    accepted: Vec<(Request, Answer)>,
    /// Whether the last of these is the last that was accepted at all.
    is_last_known: bool,
    deleted: Vec<String>,
    counts: Arc<Counts>,
}

impl Client {
    fn next(&mut self) -> Request {
        let about = self.instance.as_ref().map(|(id, _)| id.clone());
        self.count += 1;
        let key = format!("c{}-{}", self.nth, self.count);
        let (verb, about) = match (about, self.dice.roll(10)) {
            (None, _) => (Verb::Create, format!("i-{}-{}", self.nth, self.count)),
            (Some(id), 0..=3) => (Verb::Stop, id),
            (Some(id), 4..=7) => (Verb::Start, id),
            (Some(id), _) => (Verb::Delete, id),
        };
        Request { key, verb, about }
    }

    fn settle(&mut self, request: &Request, answer: &Answer) -> Result<(), Found> {
        self.history.note("answered", request, Some(answer))?;
        // A delete needs no key: one that finds nothing has been done before.
        let is_gone = request.verb == Verb::Delete && answer.status == 404;
        let is_done = answer.status < 300 || is_gone;
        let before = self.instance.as_ref().map(|(_, wish)| *wish);
        match (request.verb, is_done) {
            (Verb::Create, true) => {
                let Some(id) = answer.id.clone() else {
                    return Err(Found::new("I6", format!("{} was created without an id", request.about)));
                };
                self.instance = Some((id, "running"));
            }
            (Verb::Start, true) => self.instance = Some((request.about.clone(), "running")),
            (Verb::Stop, true) => self.instance = Some((request.about.clone(), "stopped")),
            (Verb::Delete, true) => {
                self.instance = None;
                self.deleted.push(request.about.clone());
            }
            (_, false) => {}
        }
        if is_done {
            self.counts.acknowledged.fetch_add(1, Ordering::SeqCst);
            let is_change = self.instance.as_ref().map(|(_, wish)| *wish) != before;
            self.is_last_known = is_change && self.instance.is_some();
            if self.instance.is_none() || request.verb == Verb::Create || self.accepted.len() == ACCEPTED_MAX
            {
                self.accepted.clear();
            }
            if self.is_last_known {
                self.accepted.push((request.clone(), answer.clone()));
            }
        }
        Ok(())
    }

    /// Works until the daemon is gone.
    async fn work(&mut self, http: &reqwest::Client, url: &str) -> Result<(), Found> {
        loop {
            let request = match self.pending.take() {
                Some(request) => request,
                None => self.next(),
            };
            self.history.note("asked", &request, None)?;
            match ask(&request, http, url).await {
                None => {
                    self.pending = Some(request);
                    return Ok(());
                }
                Some(None) => {
                    self.pending = Some(request);
                    self.counts.put_off.fetch_add(1, Ordering::SeqCst);
                    sleep(AGAIN).await;
                }
                Some(Some(answer)) => self.settle(&request, &answer)?,
            }
        }
    }

    /// Asks until there is an answer that settles it.
    async fn insist(request: &Request, http: &reqwest::Client, url: &str) -> Result<Answer, Found> {
        for _ in 0..ATTEMPTS_MAX {
            if let Some(Some(answer)) = ask(request, http, url).await {
                return Ok(answer);
            }
            sleep(AGAIN).await;
        }
        Err(Found::new("I18", format!("{request:?} is not settled")))
    }

    /// After a start: what was open is settled, what was acknowledged is there.
    async fn check(&mut self, http: &reqwest::Client, url: &str) -> Result<Checked, Found> {
        let mut checked = Checked::default();
        // The last that was accepted first: what is pending may change the instance.
        if self.is_last_known
            && let Some(last) = self.accepted.last()
        {
            self.repeat(last, http, url).await?;
        }
        // One of long ago must be answered as it was, and do nothing: what it asked for may be over.
        if self.accepted.len() > 1 {
            let nth = self.dice.roll(self.accepted.len() as u64 - 1) as usize;
            self.repeat(&self.accepted[nth], http, url).await?;
            checked.repeated += 1;
        }
        if let Some((id, _)) = &self.instance
            && self.pending.as_ref().is_none_or(|pending| pending.verb != Verb::Delete)
            && look(http, url, id).await?.is_none()
        {
            return Err(Found::new("I6", format!("{id} was acknowledged and is lost")));
        }
        for id in self.deleted.drain(..) {
            if look(http, url, &id).await?.is_some() {
                return Err(Found::new("I6", format!("{id} was deleted and is back")));
            }
        }
        let Some(request) = self.pending.take() else { return Ok(checked) };
        let answer = Self::insist(&request, http, url).await?;
        self.settle(&request, &answer)?;
        checked.settled += 1;
        Ok(checked)
    }

    /// Asks again what was accepted: its key has one outcome for ever.
    async fn repeat(
        &self,
        (request, answer): &(Request, Answer),
        http: &reqwest::Client,
        url: &str,
    ) -> Result<(), Found> {
        let again = Self::insist(request, http, url).await?;
        self.history.note("answered", request, Some(&again))?;
        if again != *answer {
            return Err(Found::new("I8", format!("{request:?} was answered {answer:?}, and now {again:?}")));
        }
        Ok(())
    }

    /// The wish comes true.
    async fn come_to_rest(&self, http: &reqwest::Client, url: &str) -> Result<(), Found> {
        let Some((id, wish)) = &self.instance else { return Ok(()) };
        let mut seen = None;
        for _ in 0..REST_ATTEMPTS_MAX {
            seen = look(http, url, id).await?;
            if seen.as_deref() == Some(wish) {
                return Ok(());
            }
            sleep(AGAIN).await;
        }
        Err(Found::new("I18", format!("{id} shall be {wish} and is {seen:?}")))
    }
}

/// The visible state of an instance; none if there is none.
async fn look(http: &reqwest::Client, url: &str, id: &str) -> Result<Option<String>, Found> {
    for _ in 0..ATTEMPTS_MAX {
        if let Ok(response) = http.get(format!("{url}/v1/instances/{id}")).send().await {
            let status = response.status().as_u16();
            let body: Value = response.json().await.unwrap_or(Value::Null);
            match status {
                200 => return Ok(body["run_state"].as_str().map(str::to_owned)),
                404 => return Ok(None),
                _ => {}
            }
        }
        sleep(AGAIN).await;
    }
    Err(Found::new("I18", format!("{id} cannot be looked at")))
}

/// All clients.
pub struct Clients {
    clients: Vec<Client>,
    counts: Arc<Counts>,
}

impl Clients {
    /// Clients that have done nothing yet, with their history in a file.
    pub fn new(seed: u64, count: u64, history: &Path) -> Result<Self, Failure> {
        let history = History(Arc::new(Mutex::new(File::create(history).map_err(anyhow::Error::from)?)));
        let counts = Arc::new(Counts::default());
        let client = |nth| Client {
            nth,
            count: 0,
            dice: Dice::new(seed, nth),
            history: history.clone(),
            instance: None,
            pending: None,
            accepted: Vec::new(),
            is_last_known: false,
            deleted: Vec::new(),
            counts: Arc::clone(&counts),
        };
        Ok(Self { clients: (0..count).map(client).collect(), counts })
    }

    /// Everybody works until the daemon is gone, while `meanwhile` goes on and makes it so.
    pub async fn work(
        &mut self,
        http: &reqwest::Client,
        url: &str,
        meanwhile: impl Future<Output = Result<(), Found>>,
    ) -> Result<(), Found> {
        let mut tasks = tokio::task::JoinSet::new();
        for mut client in self.clients.drain(..) {
            let (http, url) = (http.clone(), url.to_owned());
            tasks.spawn(async move {
                let worked = client.work(&http, &url).await;
                (client, worked)
            });
        }
        let mut found = meanwhile.await;
        while let Some(ended) = tasks.join_next().await {
            let (client, worked) = ended.map_err(|error| Found::new("I18", format!("a client: {error}")))?;
            self.clients.push(client);
            found = found.and(worked);
        }
        self.clients.sort_by_key(|client| client.nth);
        found
    }

    /// What was acknowledged is there, what was open is settled.
    pub async fn check(&mut self, http: &reqwest::Client, url: &str) -> Result<Checked, Found> {
        let mut all = Checked::default();
        for client in &mut self.clients {
            let checked = client.check(http, url).await?;
            all.settled += checked.settled;
            all.repeated += checked.repeated;
        }
        Ok(all)
    }

    /// Every wish comes true.
    pub async fn come_to_rest(&self, http: &reqwest::Client, url: &str) -> Result<(), Found> {
        for client in &self.clients {
            client.come_to_rest(http, url).await?;
        }
        Ok(())
    }

    /// What they have seen, also while they work.
    pub fn counts(&self) -> Arc<Counts> {
        Arc::clone(&self.counts)
    }
}

/// Reads a history again: whatever a key was answered with first, it was answered with ever after.
pub fn check_history(path: &Path) -> Result<u64, Found> {
    let text = std::fs::read_to_string(path);
    let text = text.map_err(|error| Found::new("I6", format!("the history cannot be read: {error}")))?;
    let mut outcomes = std::collections::BTreeMap::new();
    for line in text.lines() {
        let entry: Value = serde_json::from_str(line)
            .map_err(|error| Found::new("I6", format!("history: {error}: {line}")))?;
        if entry["event"] != "answered" {
            continue;
        }
        let key = entry["key"].as_str().unwrap_or_default().to_owned();
        let outcome = (entry["status"].clone(), entry["id"].clone());
        let first = outcomes.entry(key).or_insert_with(|| outcome.clone());
        if *first != outcome {
            return Err(Found::new("I8", format!("{line}: it had {first:?} before")));
        }
    }
    Ok(outcomes.len() as u64)
}
