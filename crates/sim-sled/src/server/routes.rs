//! What each method and path asks of the sled.
//!
//! Checks come in one order: the route, the body's size and time, a permit, the form, and then the machine's.

use std::sync::Arc;

use hyper::body::Incoming;
use hyper::header::{AUTHORIZATION, HeaderValue, IF_NONE_MATCH};
use hyper::{Method, Request, Response, StatusCode};
use serde::Serialize;
use serde::de::DeserializeOwned;
use sled_protocol::{
    AFTER_QUERY, AgentAddr, InventoryTag, LEASE_EPOCH_QUERY, LIMIT_QUERY, LeaseEpoch, Presented, PropolisId,
    RegisterVmm, RequestedState, SerialRange, SetState, SledClient, SledError, SledKey, Token,
    UpdatedRuntime, V2pKey, V2pMapping,
};
use tokio::sync::Semaphore;
use tokio::time::timeout;

use super::ServerLimits;
use super::answer::{Broken, Unread, Whole, done, listing, ok, read, refusal, stranger};
use super::query::{number, parsed};
use crate::embedded::EmbeddedSled;
use crate::machine::PeerMessage;
use crate::peers::PEER_PATH;

/// One sled and the bounds of its listener.
pub(super) struct Agent {
    sled: EmbeddedSled,
    limits: ServerLimits,
    permits: Arc<Semaphore>,
    /// What the control plane has to show, and what a peer has to.
    tokens: Option<(Token, Token)>,
}

/// What a request is for.
#[derive(Clone, Copy)]
enum Route {
    Register(PropolisId),
    Unregister(PropolisId),
    SetState(PropolisId),
    GetState(PropolisId),
    Serial(PropolisId),
    Inventory,
    PutV2p,
    DeleteV2p,
    ListV2p,
    Peer,
}

/// Why a request has no route.
enum Astray {
    Path,
    Method,
    Id,
}

fn route(method: &Method, path: &str) -> Result<Route, Astray> {
    let id = |text: &str| text.parse::<PropolisId>().map_err(|_| Astray::Id);
    let segments: Vec<&str> = path.trim_start_matches('/').splitn(4, '/').collect();
    match (segments.as_slice(), method) {
        (["vmms", vmm], &Method::PUT) => Ok(Route::Register(id(vmm)?)),
        (["vmms", vmm], &Method::DELETE) => Ok(Route::Unregister(id(vmm)?)),
        (["vmms", vmm, "state"], &Method::PUT) => Ok(Route::SetState(id(vmm)?)),
        (["vmms", vmm, "state"], &Method::GET) => Ok(Route::GetState(id(vmm)?)),
        (["vmms", vmm, "serial"], &Method::GET) => Ok(Route::Serial(id(vmm)?)),
        (["inventory"], &Method::GET) => Ok(Route::Inventory),
        (["v2p"], &Method::PUT) => Ok(Route::PutV2p),
        (["v2p"], &Method::DELETE) => Ok(Route::DeleteV2p),
        (["v2p"], &Method::GET) => Ok(Route::ListV2p),
        ([_], &Method::POST) if path == PEER_PATH => Ok(Route::Peer),
        (["vmms", _] | ["vmms", _, "state" | "serial"] | ["inventory" | "v2p" | "peer"], _) => {
            Err(Astray::Method)
        }
        _ => Err(Astray::Path),
    }
}

impl Agent {
    pub(super) fn new(sled: EmbeddedSled, limits: ServerLimits, key: Option<&SledKey>) -> Self {
        let permits = Arc::new(Semaphore::new(limits.requests_max));
        let tokens = key.map(|key| (key.to_sled(), key.to_peer()));
        Self { sled, limits, permits, tokens }
    }

    /// Whether the sender may ask for this at all; a path that is not there needs the control plane's token.
    fn presented(&self, request: &Request<Incoming>) -> Presented {
        let Some((to_sled, to_peer)) = &self.tokens else {
            return Presented::Right;
        };
        let expected = if request.uri().path() == PEER_PATH { to_peer } else { to_sled };
        expected.is_in(request.headers().get(AUTHORIZATION).map(HeaderValue::as_bytes))
    }

    pub(super) async fn answer(&self, request: Request<Incoming>) -> Result<Response<Whole>, Broken> {
        let refused = match self.presented(&request) {
            Presented::Right => None,
            Presented::Wrong => {
                Some((StatusCode::FORBIDDEN, "FORBIDDEN", "this token is not good for this sled"))
            }
            Presented::Missing => {
                Some((StatusCode::UNAUTHORIZED, "UNAUTHORIZED", "this sled wants a bearer token"))
            }
        };
        if let Some((status, code, message)) = refused {
            tracing::warn!(path = request.uri().path(), message, "a request was refused");
            return stranger(status, code, message.to_owned());
        }
        let route = match route(request.method(), request.uri().path()) {
            Ok(route) => route,
            Err(astray) => return strayed(&astray),
        };
        let query = request.uri().query().map(str::to_owned);
        let known =
            request.headers().get(IF_NONE_MATCH).and_then(|tag| InventoryTag::read(tag.to_str().ok()?));
        let body = match timeout(self.limits.body_time, read(request.into_body(), self.limits.body_bytes_max))
            .await
        {
            Ok(Ok(body)) => body,
            Ok(Err(Unread::TooLarge)) => {
                let message = format!("the body is larger than {} bytes", self.limits.body_bytes_max);
                return stranger(StatusCode::PAYLOAD_TOO_LARGE, "TOO_LARGE", message);
            }
            Ok(Err(Unread::Cut)) | Err(_) => return Err(Broken("the body did not arrive".to_owned())),
        };
        let Ok(_permit) = self.permits.try_acquire() else {
            return refusal(&SledError::ChannelFull);
        };
        let asked = Asked { query: query.as_deref(), known: known.as_ref(), body: &body };
        let worked = timeout(self.limits.request_time, self.perform(route, asked)).await;
        match worked {
            Ok(Ok(answer)) => Ok(answer),
            Ok(Err(Failure::Sled(error))) => refusal(&error),
            Ok(Err(Failure::Broken(broken))) => Err(broken),
            // Whether it took effect is not known, so nothing is said about it.
            Err(_) => Err(Broken("the request took too long".to_owned())),
        }
    }

    async fn perform(&self, route: Route, asked: Asked<'_>) -> Result<Response<Whole>, Failure> {
        let (sled, Asked { query, known, body }) = (&self.sled, asked);
        let updated = |updated_runtime| said(&UpdatedRuntime { updated_runtime });
        match route {
            Route::Register(vmm) => said(&sled.register(vmm, parse::<RegisterVmm>(body)?).await?),
            Route::Unregister(vmm) => {
                vmm.validate("propolis_id").map_err(SledError::from)?;
                updated(sled.unregister(vmm, epoch(query)?).await?)
            }
            Route::SetState(vmm) => updated(sled.set_state(vmm, parse_set_state(body)?).await?),
            Route::GetState(vmm) => said(&sled.get_state(vmm).await?),
            Route::Serial(vmm) => {
                let from_start = number(query, "from_start")?.unwrap_or(0);
                let range = SerialRange { from_start, max_bytes: number(query, "max_bytes")? };
                said(&sled.serial(vmm, range).await?)
            }
            Route::Inventory => listing(&sled.inventory().await?, known).map_err(Failure::Broken),
            Route::PutV2p => {
                sled.put_v2p(epoch(query)?, parse::<Vec<V2pMapping>>(body)?).await?;
                Ok(done())
            }
            Route::DeleteV2p => {
                sled.delete_v2p(epoch(query)?, parse::<Vec<V2pMapping>>(body)?).await?;
                Ok(done())
            }
            Route::ListV2p => said(&v2p_page(sled.list_v2p().await?, query)?),
            Route::Peer => {
                let message: PeerMessage = parse(body)?;
                message.validate().map_err(SledError::from)?;
                sled.take_from_peer(message);
                Ok(done())
            }
        }
    }
}

/// What a request says besides its route.
#[derive(Clone, Copy)]
struct Asked<'a> {
    query: Option<&'a str>,
    /// The inventory that the sender has already.
    known: Option<&'a InventoryTag>,
    body: &'a [u8],
}

/// Why there is no answer of the sled's own.
enum Failure {
    Sled(SledError),
    Broken(Broken),
}

impl From<SledError> for Failure {
    fn from(error: SledError) -> Self {
        Self::Sled(error)
    }
}

fn said(body: &impl Serialize) -> Result<Response<Whole>, Failure> {
    ok(body).map_err(Failure::Broken)
}

fn strayed(astray: &Astray) -> Result<Response<Whole>, Broken> {
    let say = |status, code, what: &str| stranger(status, code, what.to_owned());
    match astray {
        // Not the sled's word about a VMM, and so without its code.
        Astray::Path => say(StatusCode::NOT_FOUND, "NO_SUCH_PATH", "a sled serves no such path"),
        Astray::Method => {
            say(StatusCode::METHOD_NOT_ALLOWED, "NO_SUCH_METHOD", "this path has no such method")
        }
        Astray::Id => refusal(&SledError::Malformed("the VMM's id in the path must be a UUID".to_owned())),
    }
}

fn parse<T: DeserializeOwned>(body: &[u8]) -> Result<T, SledError> {
    serde_json::from_slice(body)
        .map_err(|error| SledError::Malformed(format!("the body cannot be read: {error}")))
}

/// Another process has no way to a sled by its name alone.
fn parse_set_state(body: &[u8]) -> Result<SetState, SledError> {
    let request: SetState = parse(body)?;
    if let RequestedState::MigrationTarget { src_addr, .. } = &request.state {
        AgentAddr::read("src_addr", src_addr)?;
    }
    Ok(request)
}

/// Those after the one that is named, by key, and at most so many; all of them without a limit.
fn v2p_page(mut mappings: Vec<V2pMapping>, query: Option<&str>) -> Result<Vec<V2pMapping>, SledError> {
    let after: Option<V2pKey> = parsed(query, AFTER_QUERY)?;
    let limit: Option<usize> = parsed(query, LIMIT_QUERY)?;
    mappings.retain(|mapping| Some(mapping.key()) > after);
    mappings.sort_by_key(V2pMapping::key);
    mappings.truncate(limit.unwrap_or(usize::MAX));
    Ok(mappings)
}

fn epoch(query: Option<&str>) -> Result<LeaseEpoch, SledError> {
    let given = number(query, LEASE_EPOCH_QUERY)?;
    let missing = || SledError::Malformed(format!("the query parameter `{LEASE_EPOCH_QUERY}` is missing"));
    let epoch = LeaseEpoch::new(given.ok_or_else(missing)?);
    epoch.validate(LEASE_EPOCH_QUERY)?;
    Ok(epoch)
}
