//! The daemon's HTTP interface, from the command line's side.

use crate::cli::{HowArgs, ServerArgs};
use crate::exit::{Exit, Failure};
use crate::output::{self, Column, Format, text};
use bytes::Bytes;
use reqwest::{Method, StatusCode};
use serde_json::Value;
use std::io::Write as _;
use std::path::Path;
use std::time::Duration;

/// Longest wait for one answer: longer than the daemon ever holds one.
const ANSWER_MAX: Duration = Duration::from_secs(40);

/// Longest download: a day.
const DOWNLOAD_MAX: Duration = Duration::from_hours(24);

/// A connection to one daemon.
pub struct Client {
    http: reqwest::Client,
    server: String,
    token: Option<String>,
    how: HowArgs,
    format: Format,
}

/// An answer that is not a success.
#[derive(Debug)]
pub struct Refused {
    /// HTTP status.
    pub status: StatusCode,
    /// What the daemon said.
    pub message: String,
    /// The request.
    pub request_id: Option<String>,
}

/// What can go wrong with a request.
#[derive(Debug)]
pub enum ClientError {
    /// The daemon answered, with a refusal.
    Refused(Refused),
    /// No answer.
    Unreachable(String),
    /// It was a dry run; the plan has been shown, and there is nothing to go on with.
    Planned,
}

impl From<ClientError> for Failure {
    fn from(error: ClientError) -> Self {
        match error {
            ClientError::Refused(Refused { status, message, request_id }) => {
                let hint = Some(advice(status, &message).to_owned());
                Self { exit: Exit::Refused, what: message, hint, request_id }
            }
            ClientError::Planned => Self::new(Exit::Done, "it was a dry run"),
            ClientError::Unreachable(what) => Self::new(Exit::Unreachable, what)
                .hint("start it with `musher serve`, or name it with --server or MUSHER_SERVER"),
        }
    }
}

/// What to do about a refusal.
fn advice(status: StatusCode, message: &str) -> &'static str {
    const LISTS: [(&str, &str); 7] = [
        ("not found: instance", "`musher instance list` shows those of a project; name the project with -p"),
        ("not found: project", "`musher project list` shows what there is"),
        ("not found: sled", "`musher sled list` shows what there is"),
        (
            "not found: saga",
            "`musher saga list` shows what there is; `--under-way` what can still be changed",
        ),
        ("not found: migration", "`musher migration list` shows what there is"),
        (
            "not found: anti-affinity-group",
            "`musher group list` shows those of a project; name the project with -p",
        ),
        ("not found: timer", "`musher timer list` shows what there is"),
    ];
    match status {
        StatusCode::BAD_GATEWAY | StatusCode::GATEWAY_TIMEOUT => {
            "it is recorded and will be sent until the sled confirms; look with `musher instance show`"
        }
        StatusCode::UNAUTHORIZED => {
            "give a token with --token-file FILE or MUSHER_TOKEN; `musher token create` on the daemon's host makes one"
        }
        StatusCode::FORBIDDEN => {
            "use a token of that role; `musher token create --role ROLE` on the daemon's host makes one"
        }
        StatusCode::SERVICE_UNAVAILABLE => "try again in a moment",
        StatusCode::INSUFFICIENT_STORAGE => {
            "see `musher sled list` for what is free; stop something or add a sled"
        }
        StatusCode::INTERNAL_SERVER_ERROR => "the daemon's log says more under the request id",
        StatusCode::NOT_FOUND => {
            let listed = LISTS.into_iter().find(|(what, _)| message.starts_with(what)).map(|(_, hint)| hint);
            listed.unwrap_or("`musher whatis ID` says what an id stands for")
        }
        StatusCode::BAD_REQUEST if message.starts_with("already exists") => "choose another name",
        StatusCode::BAD_REQUEST | StatusCode::CONFLICT if message.ends_with("not yet fully stopped") => {
            "stop it first: `musher instance stop NAME --wait`"
        }
        StatusCode::BAD_REQUEST | StatusCode::CONFLICT if message.contains("instance is ") => {
            "`musher instance explain NAME` says why it is so, and what can be done"
        }
        StatusCode::BAD_REQUEST => {
            "mend what the message names; `--help` after the command says what each flag takes"
        }
        StatusCode::CONFLICT => {
            "`musher instance explain NAME` says what is under way; try again when it is over"
        }
        _ => "`musher doctor` looks whether the daemon is in order",
    }
}

impl Client {
    /// Connects to nobody yet. `OXIDE_TOKEN` counts where ours is not set.
    pub fn new(args: &ServerArgs) -> Result<Self, Failure> {
        let from_env = |name: &str| std::env::var(name).ok().filter(|value| !value.is_empty());
        let server = &args.server;
        let server = if server.contains("://") { server.clone() } else { format!("http://{server}") };
        if server.starts_with("https://") {
            return Err(Failure::new(Exit::Usage, format!("{server}: this build speaks plain HTTP"))
                .hint("use it on the daemon's host, or through `ssh -L 12220:127.0.0.1:12220 HOST`"));
        }
        let token = match &args.token_file {
            Some(file) => Some(token_in(file)?),
            None => args.token.clone().filter(|it| !it.is_empty()).or_else(|| from_env("OXIDE_TOKEN")),
        };
        let http = reqwest::Client::builder().timeout(ANSWER_MAX).build().map_err(|error| {
            Failure::new(Exit::Refused, format!("the HTTP client does not start: {error}"))
        })?;
        let server = server.trim_end_matches('/').to_owned();
        Ok(Self { http, server, token, how: HowArgs::default(), format: Format::default() })
    }

    /// The same for commands that are meant so; what would come of a dry run is shown in this format.
    #[must_use]
    pub fn meant(self, how: &HowArgs, format: Format) -> Self {
        Self { how: how.clone(), format, ..self }
    }

    /// GET.
    pub async fn get(&self, path: &str, query: &[(&str, &str)]) -> Result<Value, ClientError> {
        self.send(Method::GET, path, query, None).await
    }

    /// GET whose work follows the size of the log.
    pub async fn get_long(&self, path: &str) -> Result<Value, ClientError> {
        self.send_within(DOWNLOAD_MAX, Method::GET, path, &[], None).await
    }

    /// GET whose answer comes bit by bit, for as long as a day.
    pub async fn stream(
        &self,
        path: &str,
        query: &[(&str, String)],
    ) -> Result<reqwest::Response, ClientError> {
        let mut request = self.http.get(format!("{}{path}", self.server)).query(query).timeout(DOWNLOAD_MAX);
        if let Some(token) = &self.token {
            request = request.bearer_auth(token);
        }
        let answer = request.send().await.map_err(|error| self.unreachable(&error))?;
        if answer.status().is_success() { Ok(answer) } else { Err(refusal(answer).await) }
    }

    /// GET of something that is no JSON.
    pub async fn bytes(&self, path: &str, query: &[(&str, &str)]) -> Result<Bytes, ClientError> {
        let mut request = self.http.get(format!("{}{path}", self.server)).query(query);
        if let Some(token) = &self.token {
            request = request.bearer_auth(token);
        }
        let answer = request.send().await.map_err(|error| self.unreachable(&error))?;
        if !answer.status().is_success() {
            return Err(refusal(answer).await);
        }
        answer.bytes().await.map_err(|error| self.unreachable(&error))
    }

    fn unreachable(&self, error: &reqwest::Error) -> ClientError {
        let why = innermost(error);
        ClientError::Unreachable(format!("the daemon at {} does not answer: {why}", self.server))
    }

    /// POST, with a body if there is one.
    pub async fn post(
        &self,
        path: &str,
        query: &[(&str, &str)],
        body: Option<Value>,
    ) -> Result<Value, ClientError> {
        self.send(Method::POST, path, query, body).await
    }

    /// POST whose work follows the size of the log.
    pub async fn post_long(&self, path: &str, body: Option<Value>) -> Result<Value, ClientError> {
        self.send_within(DOWNLOAD_MAX, Method::POST, path, &[], body).await
    }

    /// PUT.
    pub async fn put(&self, path: &str, query: &[(&str, &str)], body: Value) -> Result<Value, ClientError> {
        self.send(Method::PUT, path, query, Some(body)).await
    }

    /// DELETE.
    pub async fn delete(&self, path: &str, query: &[(&str, &str)]) -> Result<Value, ClientError> {
        self.send(Method::DELETE, path, query, None).await
    }

    /// GET into a new file; answers its size in bytes.
    pub async fn download(&self, path: &str, query: &[(&str, &str)], to: &Path) -> Result<u64, Failure> {
        let mut request = self.http.get(format!("{}{path}", self.server)).query(query).timeout(DOWNLOAD_MAX);
        if let Some(token) = &self.token {
            request = request.bearer_auth(token);
        }
        let unreachable = |error: reqwest::Error| {
            let why = innermost(&error);
            Failure::from(ClientError::Unreachable(format!(
                "the daemon at {} ended the answer: {why}",
                self.server
            )))
        };
        let mut answer = request.send().await.map_err(unreachable)?;
        if !answer.status().is_success() {
            return Err(refusal(answer).await.into());
        }
        let written = |error: std::io::Error| {
            Failure::new(Exit::Refused, format!("{}: {error}", to.display()))
                .hint("name a new file, on a disk with room for it")
        };
        let mut file = std::fs::File::create_new(to).map_err(written)?;
        let mut bytes = 0;
        let taken = loop {
            match answer.chunk().await {
                Ok(None) => break file.sync_all().map_err(written),
                Ok(Some(piece)) => match file.write_all(&piece) {
                    Ok(()) => bytes += piece.len() as u64,
                    Err(error) => break Err(written(error)),
                },
                Err(error) => {
                    let why = innermost(&error);
                    break Err(Failure::new(
                        Exit::Refused,
                        format!("the daemon broke off the answer: {why}"),
                    )
                    .hint("its log says why; `musher log verify` on the stopped directory names damage"));
                }
            }
        };
        if taken.is_err() {
            // Half an export is none.
            let _ = std::fs::remove_file(to);
        }
        taken.map(|()| bytes)
    }

    async fn send(
        &self,
        method: Method,
        path: &str,
        query: &[(&str, &str)],
        body: Option<Value>,
    ) -> Result<Value, ClientError> {
        self.send_within(ANSWER_MAX, method, path, query, body).await
    }

    async fn send_within(
        &self,
        patience: Duration,
        method: Method,
        path: &str,
        query: &[(&str, &str)],
        body: Option<Value>,
    ) -> Result<Value, ClientError> {
        let is_command = method != Method::GET;
        let mut request =
            self.http.request(method, format!("{}{path}", self.server)).query(query).timeout(patience);
        if is_command {
            let reason = self.how.reason.iter().map(|reason| ("reason", reason.as_str()));
            let dry_run = self.how.dry_run.then_some(("dry_run", "true"));
            request = request.query(&reason.chain(dry_run).collect::<Vec<_>>());
        }
        if let Some(token) = &self.token {
            request = request.bearer_auth(token);
        }
        if let Some(body) = &body {
            request = request.json(body);
        }
        let answer = request.send().await.map_err(|error| self.unreachable(&error))?;
        if !answer.status().is_success() {
            return Err(refusal(answer).await);
        }
        let text = answer.text().await.map_err(|error| self.unreachable(&error))?;
        if text.is_empty() {
            return Ok(Value::Null);
        }
        let answer: Value = serde_json::from_str(&text).map_err(|error| {
            ClientError::Unreachable(format!("{} does not answer like a musher daemon: {error}", self.server))
        })?;
        if is_command && self.how.dry_run {
            show_plan(&answer, self.format);
            return Err(ClientError::Planned);
        }
        Ok(answer)
    }
}

/// What a dry run would have recorded.
fn show_plan(plan: &Value, format: Format) {
    if let Some(document) = output::document(format, plan) {
        output::line(document);
        return;
    }
    let events = plan["events"].as_array().cloned().unwrap_or_default();
    output::line(match events.len() {
        0 => "a dry run: nothing would change".to_owned(),
        1 => "a dry run: this event would be recorded".to_owned(),
        many => format!("a dry run: these {many} events would be recorded, together"),
    });
    let columns =
        [Column::new("event", |it| text(it, "event")), Column::new("data", |it| it["data"].to_string())];
    if !events.is_empty() {
        output::line(output::list(format, false, &events, &columns));
    }
}

/// The token that a file holds.
fn token_in(file: &Path) -> Result<String, Failure> {
    let failed = |why: String| {
        Failure::new(Exit::Usage, format!("token file {}: {why}", file.display()))
            .hint("it holds one token, as `musher token create` prints it")
    };
    let text = std::fs::read_to_string(file).map_err(|error| failed(error.to_string()))?;
    let token = text.trim();
    let is_one = !token.is_empty() && token.bytes().all(|byte| byte.is_ascii_graphic());
    if is_one { Ok(token.to_owned()) } else { Err(failed("it does not hold one token".to_owned())) }
}

/// What an answer that is not a success says.
async fn refusal(answer: reqwest::Response) -> ClientError {
    let status = answer.status();
    let request_id =
        answer.headers().get("x-request-id").and_then(|id| id.to_str().ok()).map(ToOwned::to_owned);
    let body: Value = answer.json().await.unwrap_or(Value::Null);
    let message = body["message"].as_str().map_or_else(|| format!("status {status}"), ToOwned::to_owned);
    ClientError::Refused(Refused { status, message, request_id })
}

/// The cause that says something to people.
fn innermost(error: &dyn std::error::Error) -> String {
    let mut current = error;
    while let Some(source) = current.source() {
        current = source;
    }
    current.to_string()
}
