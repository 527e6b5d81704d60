//! Both client traits over HTTP with JSON.
//!
//! Invariants:
//! * Every call ends within its timeout, connecting included.
//! * At most `limits::BODY_BYTES_MAX` of an answer is read, and nothing of it is used before it is validated.
//! * Proxies are not used, and redirects not followed: a sled that points elsewhere is not the sled that was asked.

use std::sync::Arc;
use std::time::Duration;

use futures::FutureExt;
use futures::future::BoxFuture;
use reqwest::header::{ETAG, IF_NONE_MATCH};
use reqwest::{Method, RequestBuilder, Response};
use serde::Serialize;
use serde::de::DeserializeOwned;

use crate::addr::AgentAddr;
use crate::client::{ControlPlaneClient, SledClient};
use crate::control::{Inventory, RegisterSled, RenewLease, SledLease};
use crate::error::{ControlPlaneError, ErrorBody, Invalid, SledError};
use crate::ids::{LeaseEpoch, PropolisId, SledId};
use crate::limits::{BODY_BYTES_MAX, MAPPING_PAGES_MAX, MAPPINGS_MAX};
use crate::listing::{InventoryTag, Listing};
use crate::network::V2pMapping;
use crate::secret::Token;
use crate::state::SledVmmState;
use crate::traffic::{CallCount, CallKind, Traffic};
use crate::vmm::{RegisterVmm, SerialData, SerialRange, SetState, UpdatedRuntime};
use crate::{AFTER_QUERY, LEASE_EPOCH_QUERY, LIMIT_QUERY, SLED_ID_HEADER};

/// How long an HTTP client waits.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct HttpTimeouts {
    /// For the connection.
    pub connect: Duration,
    /// For the whole call, from connecting to the last byte of the answer.
    pub call: Duration,
}

/// How long an idle connection is kept for the next call: shorter than any server of the protocol keeps it, so
/// that no call is sent into a connection that is being closed.
const IDLE: Duration = Duration::from_secs(10);

/// What a sled says whose inventory is the one that the sender knows.
const NOT_MODIFIED: u16 = 304;

/// Idle connections that are kept to one peer: enough for its usual calls. A thousand peers after a burst would
/// otherwise hold as many as the burst was wide, and a listener has bounds.
const IDLE_PER_PEER_MAX: usize = 4;

/// Connections to any number of peers, shared by the clients made from it; clones share them too.
#[derive(Clone, Debug)]
pub struct HttpTransport {
    client: reqwest::Client,
    traffic: Arc<Traffic>,
}

impl HttpTransport {
    /// Fails if the system offers no sockets to a client at all.
    pub fn new(timeouts: HttpTimeouts) -> Result<Self, SledError> {
        let client = reqwest::Client::builder()
            .connect_timeout(timeouts.connect)
            .timeout(timeouts.call)
            .pool_idle_timeout(IDLE)
            .pool_max_idle_per_host(IDLE_PER_PEER_MAX)
            .redirect(reqwest::redirect::Policy::none())
            .no_proxy()
            .build()
            .map_err(|error| SledError::Transport(error.to_string()))?;
        Ok(Self { client, traffic: Arc::default() })
    }

    /// What sleds have answered so far to the clients made from it.
    pub fn calls(&self) -> Vec<CallCount> {
        self.traffic.counts()
    }

    /// A client of the agent at this address.
    pub fn sled(&self, agent: &AgentAddr) -> HttpSledClient {
        HttpSledClient { http: self.to(&agent.base()), traffic: Arc::clone(&self.traffic) }
    }

    /// A client of the control plane at this address.
    pub fn control_plane(&self, addr: &AgentAddr) -> HttpControlPlaneClient {
        HttpControlPlaneClient { http: self.to(&addr.base()) }
    }

    /// Posts a message to another agent, whose answer says no more than whether it was taken.
    pub async fn post(
        &self,
        agent: &AgentAddr,
        path: &str,
        message: &(impl Serialize + Sync),
        token: Option<&Token>,
    ) -> Result<(), SledError> {
        let http = Http { token: token.cloned(), ..self.to(&agent.base()) };
        send(http.call(Method::POST, path).json(message)).await.map(drop)
    }

    fn to(&self, base: &str) -> Http {
        Http { base: base.trim_end_matches('/').to_owned(), client: self.client.clone(), token: None }
    }
}

/// Speaks to one sled's agent.
#[derive(Clone, Debug)]
pub struct HttpSledClient {
    http: Http,
    traffic: Arc<Traffic>,
}

impl HttpSledClient {
    /// A client of the agent at `base`, such as `http://127.0.0.1:7001`; fails if the system offers no
    /// sockets to a client at all.
    pub fn new(base: &str, timeouts: HttpTimeouts) -> Result<Self, SledError> {
        let transport = HttpTransport::new(timeouts)?;
        Ok(Self { http: transport.to(base), traffic: transport.traffic })
    }

    /// Sends this token with every call.
    #[must_use]
    pub fn with_token(mut self, token: Token) -> Self {
        self.http.token = Some(token);
        self
    }

    async fn ask<T: DeserializeOwned>(
        &self,
        kind: CallKind,
        request: RequestBuilder,
    ) -> Result<T, SledError> {
        let body = self.counted(kind, request).await.map_err(sled_error)?.body;
        serde_json::from_slice(&body).map_err(|error| SledError::BadAnswer(error.to_string()))
    }

    async fn counted(&self, kind: CallKind, request: RequestBuilder) -> Result<Success, Failure> {
        let outcome = exchange(request).await;
        match &outcome {
            Ok(success) => self.traffic.note(kind, success.body.len()),
            Err(Failure::Status(_, explained)) => self.traffic.note(kind, explained.message.len()),
            Err(Failure::Timeout | Failure::Transport(_) | Failure::TooLarge) => {}
        }
        outcome
    }

    async fn send_v2p(
        &self,
        method: Method,
        lease_epoch: LeaseEpoch,
        mappings: Vec<V2pMapping>,
    ) -> Result<(), SledError> {
        // One call may be given any number; the wire takes them in bounded requests.
        for batch in mappings.chunks(MAPPINGS_MAX) {
            let request = self.http.call(method.clone(), "/v2p").query(&[(LEASE_EPOCH_QUERY, lease_epoch)]);
            self.counted(CallKind::V2p, request.json(batch)).await.map_err(sled_error)?;
        }
        Ok(())
    }
}

impl SledClient for HttpSledClient {
    fn register(
        &self,
        vmm: PropolisId,
        request: RegisterVmm,
    ) -> BoxFuture<'_, Result<SledVmmState, SledError>> {
        async move {
            let call = self.http.call(Method::PUT, &format!("/vmms/{vmm}")).json(&request);
            valid(self.ask::<SledVmmState>(CallKind::Register, call).await?, SledVmmState::validate)
        }
        .boxed()
    }

    fn unregister(
        &self,
        vmm: PropolisId,
        lease_epoch: LeaseEpoch,
    ) -> BoxFuture<'_, Result<Option<SledVmmState>, SledError>> {
        async move {
            let call = self.http.call(Method::DELETE, &format!("/vmms/{vmm}"));
            let call = call.query(&[(LEASE_EPOCH_QUERY, lease_epoch)]);
            updated(self.ask(CallKind::Unregister, call).await?)
        }
        .boxed()
    }

    fn set_state(
        &self,
        vmm: PropolisId,
        request: SetState,
    ) -> BoxFuture<'_, Result<Option<SledVmmState>, SledError>> {
        async move {
            let call = self.http.call(Method::PUT, &format!("/vmms/{vmm}/state")).json(&request);
            updated(self.ask(CallKind::SetState, call).await?)
        }
        .boxed()
    }

    fn get_state(&self, vmm: PropolisId) -> BoxFuture<'_, Result<SledVmmState, SledError>> {
        async move {
            let call = self.http.call(Method::GET, &format!("/vmms/{vmm}/state"));
            valid(self.ask::<SledVmmState>(CallKind::GetState, call).await?, SledVmmState::validate)
        }
        .boxed()
    }

    fn inventory(&self) -> BoxFuture<'_, Result<Inventory, SledError>> {
        async move {
            match self.inventory_unless(None).await? {
                Listing::Whole(inventory, _) => Ok(inventory),
                Listing::Unchanged => Err(SledError::BadAnswer("unchanged, since nothing".to_owned())),
            }
        }
        .boxed()
    }

    fn inventory_unless(&self, known: Option<InventoryTag>) -> BoxFuture<'_, Result<Listing, SledError>> {
        async move {
            let mut call = self.http.call(Method::GET, "/inventory");
            if let Some(known) = &known {
                call = call.header(IF_NONE_MATCH, known.as_str());
            }
            let Success { tag, body } = match self.counted(CallKind::Inventory, call).await {
                Ok(success) => success,
                Err(Failure::Status(NOT_MODIFIED, _)) if known.is_some() => return Ok(Listing::Unchanged),
                Err(failure) => return Err(sled_error(failure)),
            };
            let inventory =
                serde_json::from_slice(&body).map_err(|error| SledError::BadAnswer(error.to_string()))?;
            Ok(Listing::Whole(valid(inventory, Inventory::validate)?, tag))
        }
        .boxed()
    }

    fn put_v2p(
        &self,
        lease_epoch: LeaseEpoch,
        mappings: Vec<V2pMapping>,
    ) -> BoxFuture<'_, Result<(), SledError>> {
        self.send_v2p(Method::PUT, lease_epoch, mappings).boxed()
    }

    fn delete_v2p(
        &self,
        lease_epoch: LeaseEpoch,
        mappings: Vec<V2pMapping>,
    ) -> BoxFuture<'_, Result<(), SledError>> {
        self.send_v2p(Method::DELETE, lease_epoch, mappings).boxed()
    }

    fn list_v2p(&self) -> BoxFuture<'_, Result<Vec<V2pMapping>, SledError>> {
        async move {
            let mut all: Vec<V2pMapping> = Vec::new();
            for _ in 0..MAPPING_PAGES_MAX {
                let mut call = self.http.call(Method::GET, "/v2p").query(&[(LIMIT_QUERY, MAPPINGS_MAX)]);
                let after = all.iter().map(V2pMapping::key).max();
                if let Some(after) = after {
                    call = call.query(&[(AFTER_QUERY, after.to_string())]);
                }
                let page: Vec<V2pMapping> = self.ask(CallKind::V2p, call).await?;
                let page = valid(page, |page| page.iter().try_for_each(V2pMapping::validate))?;
                if page.iter().any(|mapping| Some(mapping.key()) <= after) {
                    // This agent answers everything every time.
                    return Ok(all);
                }
                let is_last = page.len() != MAPPINGS_MAX;
                all.extend(page);
                if is_last {
                    return Ok(all);
                }
            }
            Err(SledError::BadAnswer("a list of mappings without an end".to_owned()))
        }
        .boxed()
    }

    fn serial(&self, vmm: PropolisId, range: SerialRange) -> BoxFuture<'_, Result<SerialData, SledError>> {
        async move {
            let call = self.http.call(Method::GET, &format!("/vmms/{vmm}/serial")).query(&range);
            valid(self.ask::<SerialData>(CallKind::Serial, call).await?, SerialData::validate)
        }
        .boxed()
    }
}

/// Speaks to the control plane, for a sled.
#[derive(Clone, Debug)]
pub struct HttpControlPlaneClient {
    http: Http,
}

impl HttpControlPlaneClient {
    /// A client of the control plane at `base`, such as `http://127.0.0.1:7000`; fails if the system offers
    /// no sockets to a client at all.
    pub fn new(base: &str, timeouts: HttpTimeouts) -> Result<Self, ControlPlaneError> {
        let transport = HttpTransport::new(timeouts)
            .map_err(|error| ControlPlaneError::Unavailable(error.to_string()))?;
        Ok(Self { http: transport.to(base) })
    }

    /// Sends this token with every call.
    #[must_use]
    pub fn with_token(mut self, token: Token) -> Self {
        self.http.token = Some(token);
        self
    }

    async fn send(&self, request: RequestBuilder) -> Result<Vec<u8>, ControlPlaneError> {
        match exchange(request).await {
            Ok(success) => Ok(success.body),
            Err(Failure::Status(status, body)) => Err(ControlPlaneError::from_answer(status, &body)),
            Err(other) => Err(ControlPlaneError::Unavailable(other.to_string())),
        }
    }
}

impl ControlPlaneClient for HttpControlPlaneClient {
    fn report(
        &self,
        sled: SledId,
        vmm: PropolisId,
        state: SledVmmState,
    ) -> BoxFuture<'_, Result<(), ControlPlaneError>> {
        async move {
            let call = self.http.call(Method::PUT, &format!("/vmms/{vmm}"));
            self.send(call.header(SLED_ID_HEADER, sled.to_string()).json(&state)).await.map(drop)
        }
        .boxed()
    }

    fn register(&self, request: RegisterSled) -> BoxFuture<'_, Result<SledLease, ControlPlaneError>> {
        async move {
            let call = self.http.call(Method::POST, "/sleds/register");
            let call = call.header(SLED_ID_HEADER, request.sled_id.to_string());
            let body = self.send(call.json(&request)).await?;
            // An answer that cannot be read is asked for again: registration may be repeated.
            let lease: SledLease = serde_json::from_slice(&body)
                .map_err(|error| ControlPlaneError::Unavailable(format!("unreadable answer: {error}")))?;
            lease.validate().map_err(|invalid| ControlPlaneError::Unavailable(invalid.to_string()))?;
            Ok(lease)
        }
        .boxed()
    }

    fn renew(&self, sled: SledId, request: RenewLease) -> BoxFuture<'_, Result<(), ControlPlaneError>> {
        async move {
            let call = self.http.call(Method::POST, &format!("/sleds/{sled}/renew"));
            self.send(call.header(SLED_ID_HEADER, sled.to_string()).json(&request)).await.map(drop)
        }
        .boxed()
    }
}

#[derive(Clone, Debug)]
struct Http {
    base: String,
    client: reqwest::Client,
    token: Option<Token>,
}

impl Http {
    fn call(&self, method: Method, path: &str) -> RequestBuilder {
        let request = self.client.request(method, format!("{}{path}", self.base));
        match &self.token {
            Some(token) => request.bearer_auth(token.as_str()),
            None => request,
        }
    }
}

#[derive(Debug, thiserror::Error)]
enum Failure {
    #[error("status {0}")]
    Status(u16, ErrorBody),
    #[error("no answer in time")]
    Timeout,
    #[error("{0}")]
    Transport(String),
    #[error("the answer is longer than {BODY_BYTES_MAX} bytes")]
    TooLarge,
}

impl From<reqwest::Error> for Failure {
    fn from(error: reqwest::Error) -> Self {
        // Without the address, which the caller knows and logs.
        let error = error.without_url();
        if error.is_timeout() { Self::Timeout } else { Self::Transport(error.to_string()) }
    }
}

/// What came, if it is no refusal.
struct Success {
    tag: Option<InventoryTag>,
    body: Vec<u8>,
}

/// Sends to a sled; what goes wrong is a sled's error.
async fn send(request: RequestBuilder) -> Result<Vec<u8>, SledError> {
    exchange(request).await.map(|success| success.body).map_err(sled_error)
}

fn sled_error(failure: Failure) -> SledError {
    match failure {
        Failure::Status(status, body) => SledError::from_answer(status, &body),
        Failure::Timeout => SledError::Timeout,
        Failure::Transport(message) => SledError::Transport(message),
        Failure::TooLarge => SledError::BadAnswer(Failure::TooLarge.to_string()),
    }
}

async fn exchange(request: RequestBuilder) -> Result<Success, Failure> {
    let mut response = request.send().await?;
    let status = response.status();
    let tag = response.headers().get(ETAG).and_then(|tag| InventoryTag::read(tag.to_str().ok()?));
    let body = read_bounded(&mut response).await;
    if status.is_success() {
        return Ok(Success { tag, body: body? });
    }
    // The status alone decides; a body that is missing or broken only costs the explanation.
    let explained = body.ok().and_then(|bytes| serde_json::from_slice(&bytes).ok()).unwrap_or_default();
    Err(Failure::Status(status.as_u16(), explained))
}

async fn read_bounded(response: &mut Response) -> Result<Vec<u8>, Failure> {
    let mut body = Vec::new();
    while let Some(chunk) = response.chunk().await? {
        if body.len() + chunk.len() > BODY_BYTES_MAX {
            return Err(Failure::TooLarge);
        }
        body.extend_from_slice(&chunk);
    }
    Ok(body)
}

fn valid<T>(answer: T, check: impl FnOnce(&T) -> Result<(), Invalid>) -> Result<T, SledError> {
    match check(&answer) {
        Ok(()) => Ok(answer),
        Err(invalid) => Err(SledError::BadAnswer(invalid.to_string())),
    }
}

fn updated(answer: UpdatedRuntime) -> Result<Option<SledVmmState>, SledError> {
    valid(answer.updated_runtime, |state| state.as_ref().map_or(Ok(()), SledVmmState::validate))
}
