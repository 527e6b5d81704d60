//! Both client traits over HTTP with JSON.
//!
//! Invariants:
//! * Every call ends within its timeout, connecting included.
//! * At most `limits::BODY_BYTES_MAX` of an answer is read, and nothing of it is used before it is validated.
//! * Proxies are not used, and redirects not followed: a sled that points elsewhere is not the sled that was asked.

use std::time::Duration;

use futures::FutureExt;
use futures::future::BoxFuture;
use reqwest::{Method, RequestBuilder, Response};
use serde::Serialize;
use serde::de::DeserializeOwned;

use crate::addr::AgentAddr;
use crate::client::{ControlPlaneClient, SledClient};
use crate::control::{Inventory, RegisterSled, RenewLease, SledLease};
use crate::error::{ControlPlaneError, ErrorBody, Invalid, SledError};
use crate::ids::{LeaseEpoch, PropolisId, SledId};
use crate::limits::{BODY_BYTES_MAX, MAPPINGS_MAX};
use crate::network::V2pMapping;
use crate::secret::Token;
use crate::state::SledVmmState;
use crate::vmm::{RegisterVmm, SerialData, SerialRange, SetState, UpdatedRuntime};
use crate::{LEASE_EPOCH_QUERY, SLED_ID_HEADER};

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

/// Connections to any number of peers, shared by the clients made from it; clones share them too.
#[derive(Clone, Debug)]
pub struct HttpTransport {
    client: reqwest::Client,
}

impl HttpTransport {
    /// Fails if the system offers no sockets to a client at all.
    pub fn new(timeouts: HttpTimeouts) -> Result<Self, SledError> {
        let client = reqwest::Client::builder()
            .connect_timeout(timeouts.connect)
            .timeout(timeouts.call)
            .pool_idle_timeout(IDLE)
            .redirect(reqwest::redirect::Policy::none())
            .no_proxy()
            .build()
            .map_err(|error| SledError::Transport(error.to_string()))?;
        Ok(Self { client })
    }

    /// A client of the agent at this address.
    pub fn sled(&self, agent: &AgentAddr) -> HttpSledClient {
        HttpSledClient { http: self.to(&agent.base()) }
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
}

impl HttpSledClient {
    /// A client of the agent at `base`, such as `http://127.0.0.1:7001`; fails if the system offers no
    /// sockets to a client at all.
    pub fn new(base: &str, timeouts: HttpTimeouts) -> Result<Self, SledError> {
        Ok(Self { http: HttpTransport::new(timeouts)?.to(base) })
    }

    /// Sends this token with every call.
    #[must_use]
    pub fn with_token(mut self, token: Token) -> Self {
        self.http.token = Some(token);
        self
    }

    async fn ask<T: DeserializeOwned>(&self, request: RequestBuilder) -> Result<T, SledError> {
        let body = send(request).await?;
        serde_json::from_slice(&body).map_err(|error| SledError::BadAnswer(error.to_string()))
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
            send(request.json(batch)).await?;
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
            valid(self.ask::<SledVmmState>(call).await?, SledVmmState::validate)
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
            updated(self.ask(call.query(&[(LEASE_EPOCH_QUERY, lease_epoch)])).await?)
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
            updated(self.ask(call).await?)
        }
        .boxed()
    }

    fn get_state(&self, vmm: PropolisId) -> BoxFuture<'_, Result<SledVmmState, SledError>> {
        async move {
            let call = self.http.call(Method::GET, &format!("/vmms/{vmm}/state"));
            valid(self.ask::<SledVmmState>(call).await?, SledVmmState::validate)
        }
        .boxed()
    }

    fn inventory(&self) -> BoxFuture<'_, Result<Inventory, SledError>> {
        async move {
            let call = self.http.call(Method::GET, "/inventory");
            valid(self.ask::<Inventory>(call).await?, Inventory::validate)
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
            let call = self.http.call(Method::GET, "/v2p");
            let mappings: Vec<V2pMapping> = self.ask(call).await?;
            valid(mappings, |all| all.iter().try_for_each(V2pMapping::validate))
        }
        .boxed()
    }

    fn serial(&self, vmm: PropolisId, range: SerialRange) -> BoxFuture<'_, Result<SerialData, SledError>> {
        async move {
            let call = self.http.call(Method::GET, &format!("/vmms/{vmm}/serial")).query(&range);
            valid(self.ask::<SerialData>(call).await?, SerialData::validate)
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
            Ok(body) => Ok(body),
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

/// Sends to a sled; what goes wrong is a sled's error.
async fn send(request: RequestBuilder) -> Result<Vec<u8>, SledError> {
    match exchange(request).await {
        Ok(body) => Ok(body),
        Err(Failure::Status(status, body)) => Err(SledError::from_answer(status, &body)),
        Err(Failure::Timeout) => Err(SledError::Timeout),
        Err(Failure::Transport(message)) => Err(SledError::Transport(message)),
        Err(Failure::TooLarge) => Err(SledError::BadAnswer(Failure::TooLarge.to_string())),
    }
}

async fn exchange(request: RequestBuilder) -> Result<Vec<u8>, Failure> {
    let mut response = request.send().await?;
    let status = response.status();
    let body = read_bounded(&mut response).await;
    if status.is_success() {
        return body;
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
