//! Migration messages between agents that are processes of their own: `POST /peer`, from agent to agent.
//!
//! This is not part of the control plane's protocol. A message that does not arrive is not sent again from
//! here: the target repeats its question, and both sides bear silence.
//!
//! Invariants:
//! * Nothing that arrives is trusted: ids, addresses, numbers and texts are validated.
//! * Messages wait in a bounded queue, and at most `POSTS_MAX` are under way.

use std::time::Duration;

use futures::StreamExt;
use sled_protocol::{AgentAddr, HttpTimeouts, HttpTransport, Invalid, SledError, Token, limits};
use tokio::sync::mpsc;
use tokio::time::sleep;

use crate::faults::Fault;
use crate::machine::{PeerBody, PeerMessage, Question};
use crate::weather::Weather;

/// Where agents take messages of their peers.
pub const PEER_PATH: &str = "/peer";

/// Most messages that wait: every VMM of a full sled asking at once.
pub const QUEUE_MAX: usize = limits::VMMS_MAX;

/// Most messages under way at once.
const POSTS_MAX: usize = 16;

/// How long a message may take: shorter than the silence that ends a migration, so that one peer that hangs
/// does not hold up the messages to others for long.
const TIMEOUTS: HttpTimeouts = HttpTimeouts { connect: Duration::from_secs(1), call: Duration::from_secs(2) };

impl PeerMessage {
    /// Refuses nil ids, addresses that are none, a VMM that speaks to itself, rounds that are not counted from
    /// 1, more bytes than a VMM has, and reasons that are no short line of text.
    pub fn validate(&self) -> Result<(), Invalid> {
        self.migration_id.validate("migration_id")?;
        self.instance_id.validate("instance_id")?;
        self.from_vmm.validate("from_vmm")?;
        self.to_vmm.validate("to_vmm")?;
        AgentAddr::read("from_addr", &self.from_addr)?;
        AgentAddr::read("to_addr", &self.to_addr)?;
        if self.from_vmm == self.to_vmm {
            return Err(Invalid::SourceIsTarget);
        }
        match &self.body {
            PeerBody::Ask(question) | PeerBody::Yes(question) => match question {
                Question::Copy { round } => check_round(*round),
                Question::Begin | Question::Pause | Question::Finish => Ok(()),
            },
            PeerBody::Copies { round, bytes } => {
                check_round(*round)?;
                let max = limits::MEMORY_BYTES_MAX;
                if *bytes > max {
                    return Err(Invalid::OutOfRange { field: "bytes", value: *bytes, min: 0, max });
                }
                Ok(())
            }
            PeerBody::Failed(reason) => {
                let bytes = reason.len();
                if bytes == 0 || bytes > limits::TEXT_BYTES_MAX || reason.chars().any(char::is_control) {
                    return Err(Invalid::Text { field: "failed", bytes });
                }
                Ok(())
            }
        }
    }
}

fn check_round(round: u32) -> Result<(), Invalid> {
    if round == 0 {
        return Err(Invalid::OutOfRange { field: "round", value: 0, min: 1, max: u32::MAX.into() });
    }
    Ok(())
}

/// Posts every message to the agent it is for, with the token if there is one, until the last sender is gone. Fails if the system offers no
/// sockets to a client at all.
pub async fn post_all(
    messages: mpsc::Receiver<PeerMessage>,
    weather: Option<Weather>,
    token: Option<Token>,
) -> Result<(), SledError> {
    let transport = HttpTransport::new(TIMEOUTS)?;
    let stream = futures::stream::unfold(messages, async |mut messages| {
        messages.recv().await.map(|message| (message, messages))
    });
    stream
        .zip(futures::stream::iter(0..))
        .for_each_concurrent(POSTS_MAX, async |(message, nth)| {
            match weather.and_then(|weather| weather.strike("to a peer", nth)) {
                Some(Fault::Slow(micros)) => sleep(Duration::from_micros(micros)).await,
                Some(_) => return,
                None => {}
            }
            post(&transport, &message, token.as_ref()).await;
        })
        .await;
    Ok(())
}

async fn post(transport: &HttpTransport, message: &PeerMessage, token: Option<&Token>) {
    let to = &message.to_addr;
    let posted = match AgentAddr::read("to_addr", to) {
        Ok(agent) => transport.post(&agent, PEER_PATH, message, token).await,
        Err(invalid) => Err(invalid.into()),
    };
    if let Err(error) = posted {
        tracing::debug!(to, migration = %message.migration_id, %error, "a message to a migration peer was lost");
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use sled_protocol::{InstanceId, MigrationId, PropolisId};
    use uuid::Uuid;

    fn message(body: PeerBody) -> PeerMessage {
        PeerMessage {
            migration_id: MigrationId::from_uuid(Uuid::from_u128(1)),
            instance_id: InstanceId::from_uuid(Uuid::from_u128(2)),
            from_addr: "127.0.0.1:7001".to_owned(),
            from_vmm: PropolisId::from_uuid(Uuid::from_u128(3)),
            to_addr: "[::1]:7002".to_owned(),
            to_vmm: PropolisId::from_uuid(Uuid::from_u128(4)),
            body,
        }
    }

    #[test]
    fn what_an_honest_peer_says_is_valid() {
        for body in [
            PeerBody::Ask(Question::Begin),
            PeerBody::Ask(Question::Copy { round: u32::MAX }),
            PeerBody::Yes(Question::Finish),
            PeerBody::Copies { round: 1, bytes: limits::MEMORY_BYTES_MAX },
            PeerBody::Failed("the source has given up".to_owned()),
        ] {
            message(body).validate().unwrap();
        }
    }

    #[test]
    fn what_no_honest_peer_says_is_refused() {
        let nil = PropolisId::from_uuid(Uuid::nil());
        let good = || message(PeerBody::Ask(Question::Begin));
        let same = good().from_vmm;
        for refused in [
            PeerMessage { from_vmm: nil, ..good() },
            PeerMessage { to_vmm: nil, ..good() },
            PeerMessage { to_vmm: same, ..good() },
            PeerMessage { migration_id: MigrationId::from_uuid(Uuid::nil()), ..good() },
            PeerMessage { instance_id: InstanceId::from_uuid(Uuid::nil()), ..good() },
            PeerMessage { from_addr: "sim-0".to_owned(), ..good() },
            PeerMessage { to_addr: "http://a:1/b".to_owned(), ..good() },
            message(PeerBody::Ask(Question::Copy { round: 0 })),
            message(PeerBody::Yes(Question::Copy { round: 0 })),
            message(PeerBody::Copies { round: 0, bytes: 0 }),
            message(PeerBody::Copies { round: 1, bytes: limits::MEMORY_BYTES_MAX + 1 }),
            message(PeerBody::Failed(String::new())),
            message(PeerBody::Failed("two\nlines".to_owned())),
            message(PeerBody::Failed("x".repeat(limits::TEXT_BYTES_MAX + 1))),
        ] {
            assert!(refused.validate().is_err(), "{refused:?}");
        }
    }
}
