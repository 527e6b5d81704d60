//! How a call can go wrong, sorted by what the caller may conclude.

use serde::{Deserialize, Serialize};
use thiserror::Error;

use crate::limits::{MESSAGE_BYTES_MAX, TEXT_BYTES_MAX};

/// Why a message was refused before anyone looked at what it asks.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum Invalid {
    /// An id that stands for nobody.
    #[error("`{field}` is the nil id; send the id of something that exists")]
    NilId {
        /// Path of the field.
        field: &'static str,
    },
    /// A number outside its bounds.
    #[error("`{field}` is {value}; it must be between {min} and {max}")]
    OutOfRange {
        /// Path of the field.
        field: &'static str,
        /// What came.
        value: u64,
        /// Smallest value allowed.
        min: u64,
        /// Largest value allowed.
        max: u64,
    },
    /// A text that is empty, too long or not printable.
    #[error("`{field}` must be 1 to {TEXT_BYTES_MAX} bytes without control characters; it has {bytes} bytes")]
    Text {
        /// Path of the field.
        field: &'static str,
        /// Length of what came, in bytes.
        bytes: usize,
    },
    /// A value of the wrong form.
    #[error("`{field}` is malformed; it must be {expected}")]
    Malformed {
        /// Path of the field.
        field: &'static str,
        /// What would have been right.
        expected: &'static str,
    },
    /// A list names one thing twice.
    #[error("`{field}` names one thing twice; name each once")]
    Twice {
        /// Path of the field.
        field: &'static str,
    },
    /// A VMM has ended while a side of its migrations has not.
    #[error("the VMM has ended but a migration of it has not; a VMM that ends fails its open migrations")]
    OpenMigrationOfEndedVmm,
    /// One migration is given as arrival and as departure of one VMM.
    #[error("one migration is both the VMM's arrival and its departure; a migration joins two VMMs")]
    SourceIsTarget,
}

pub(crate) fn check_range(field: &'static str, value: u64, min: u64, max: u64) -> Result<(), Invalid> {
    if value < min || value > max { Err(Invalid::OutOfRange { field, value, min, max }) } else { Ok(()) }
}

pub(crate) fn check_text(field: &'static str, text: &str) -> Result<(), Invalid> {
    if text.is_empty() || text.len() > TEXT_BYTES_MAX || text.chars().any(char::is_control) {
        return Err(Invalid::Text { field, bytes: text.len() });
    }
    Ok(())
}

/// Body of an answer that is not a success, in either direction.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct ErrorBody {
    /// Stable name of the refusal, such as `NO_SUCH_INSTANCE`.
    #[serde(default)]
    pub error_code: Option<String>,
    /// What happened, why, and what to do, for people.
    #[serde(default)]
    pub message: String,
}

/// Why a sled did not do what it was asked, or may not have.
#[derive(Clone, Debug, PartialEq, Eq, Error, Serialize, Deserialize)]
pub enum SledError {
    /// 400: the request is malformed.
    #[error("the sled refused the request as malformed: {0}")]
    Malformed(String),
    /// 400 `BAD_STATE`: the VMM's state does not allow it.
    #[error("the VMM's state does not allow this: {0}")]
    BadState(String),
    /// 404 `NO_SUCH_INSTANCE`: the sled knows no such VMM.
    #[error("the sled knows no such VMM")]
    NoSuchInstance,
    /// 409: the VMM id belongs to another instance.
    #[error("the VMM id belongs to another instance on this sled")]
    Conflict,
    /// 410: the VMM ended here before; it cannot come back.
    #[error("the VMM has ended on this sled and cannot be registered again")]
    Gone,
    /// 412: the request's epoch is not the sled's, or the sled has none.
    #[error("the request's lease epoch is not the sled's; ask its inventory for the current one")]
    StaleEpoch,
    /// 507: not enough threads or memory.
    #[error("the sled has no room for the VMM")]
    NoRoom,
    /// Another 4xx answer: refused, for a reason this version does not know.
    #[error("the sled refused with status {status}: {message}")]
    Refused {
        /// The HTTP status.
        status: u16,
        /// What the sled said.
        message: String,
    },
    /// 503 `INSTANCE_CHANNEL_FULL` or another 503: send it again later.
    #[error("the sled takes no request for this VMM for the moment; send it again")]
    ChannelFull,
    /// Another 5xx answer: the sled may have acted before it failed.
    #[error("the sled failed with status {status}: {message}")]
    ServerError {
        /// The HTTP status.
        status: u16,
        /// What the sled said.
        message: String,
    },
    /// No answer in time.
    #[error("the sled did not answer in time; it may have acted")]
    Timeout,
    /// The connection could not be made or broke.
    #[error("the sled could not be reached, or not until its answer: {0}")]
    Transport(String),
    /// It was not even tried, so the sled certainly did not act; it has refused nothing either.
    #[error("the sled was not asked: {0}")]
    NotSent(String),
    /// The answer could not be understood, though the sled took the request.
    #[error("the sled's answer is not one that the protocol allows: {0}")]
    BadAnswer(String),
}

impl SledError {
    /// Whether the sled has refused: the answer to the request, as against one that is to be sent again.
    pub const fn is_definite(&self) -> bool {
        match self {
            Self::Malformed(_)
            | Self::BadState(_)
            | Self::NoSuchInstance
            | Self::Conflict
            | Self::Gone
            | Self::StaleEpoch
            | Self::NoRoom
            | Self::Refused { .. } => true,
            Self::ChannelFull
            | Self::ServerError { .. }
            | Self::Timeout
            | Self::Transport(_)
            | Self::NotSent(_)
            | Self::BadAnswer(_) => false,
        }
    }

    /// The HTTP status with which a sled's server sends this; `None` for what no server says.
    pub const fn status(&self) -> Option<u16> {
        match self {
            Self::Malformed(_) | Self::BadState(_) => Some(400),
            Self::NoSuchInstance => Some(404),
            Self::Conflict => Some(409),
            Self::Gone => Some(410),
            Self::StaleEpoch => Some(412),
            Self::NoRoom => Some(507),
            Self::ChannelFull => Some(503),
            Self::Refused { status, .. } | Self::ServerError { status, .. } => Some(*status),
            Self::Timeout | Self::Transport(_) | Self::NotSent(_) | Self::BadAnswer(_) => None,
        }
    }

    /// The stable name that goes with the status, if it has one.
    pub const fn error_code(&self) -> Option<&'static str> {
        match self {
            Self::Malformed(_) => Some("MALFORMED"),
            Self::BadState(_) => Some("BAD_STATE"),
            Self::NoSuchInstance => Some("NO_SUCH_INSTANCE"),
            Self::Conflict => Some("CONFLICT"),
            Self::Gone => Some("GONE"),
            Self::StaleEpoch => Some("STALE_EPOCH"),
            Self::NoRoom => Some("NO_ROOM"),
            Self::ChannelFull => Some("INSTANCE_CHANNEL_FULL"),
            Self::Refused { .. }
            | Self::ServerError { .. }
            | Self::Timeout
            | Self::Transport(_)
            | Self::NotSent(_)
            | Self::BadAnswer(_) => None,
        }
    }

    /// The body with which a sled's server sends this.
    pub fn body(&self) -> ErrorBody {
        let message = match self {
            Self::Malformed(message)
            | Self::BadState(message)
            | Self::Refused { message, .. }
            | Self::ServerError { message, .. } => message.clone(),
            other => other.to_string(),
        };
        ErrorBody { error_code: self.error_code().map(String::from), message }
    }

    /// Reads a sled's answer that is not a success; `status` is whatever came.
    pub fn from_answer(status: u16, body: &ErrorBody) -> Self {
        let message = shortened(&body.message);
        match status {
            400 if body.error_code.as_deref() == Some("BAD_STATE") => Self::BadState(message),
            400 => Self::Malformed(message),
            404 if body.error_code.as_deref() == Some("NO_SUCH_INSTANCE") => Self::NoSuchInstance,
            409 => Self::Conflict,
            410 => Self::Gone,
            412 => Self::StaleEpoch,
            // A timeout or a throttle said by something in between is not the sled's word.
            408 | 425 | 429 | 503 => Self::ChannelFull,
            507 => Self::NoRoom,
            401..=499 => Self::Refused { status, message },
            _ => Self::ServerError { status, message },
        }
    }
}

impl From<Invalid> for SledError {
    fn from(invalid: Invalid) -> Self {
        Self::Malformed(invalid.to_string())
    }
}

/// Name of the refusal of a sled that belongs to a control plane with another log.
pub const OTHER_STORE: &str = "OTHER_STORE";

/// Why the control plane did not take what a sled said, or may not have.
#[derive(Clone, Debug, PartialEq, Eq, Error, Serialize, Deserialize)]
pub enum ControlPlaneError {
    /// 400: malformed, or about a VMM of another sled.
    #[error("the control plane refused the message: {0}")]
    Malformed(String),
    /// 404: the control plane never heard of the VMM or sled.
    #[error("the control plane knows no such VMM or sled")]
    Unknown,
    /// 409: another live sled has this id.
    #[error("another live sled has this id; give one of the two another id")]
    Conflict,
    /// 409 `OTHER_STORE`: it belongs to a control plane with another log.
    #[error("the sled belongs to another control plane; start it with --adopt to give it to this one")]
    OtherStore,
    /// 410: the operator removed the sled for good; it must stop its VMMs.
    #[error("the sled was expunged; it must stop its VMMs")]
    Expunged,
    /// 412: the lease has lapsed; register again.
    #[error("the lease has lapsed at the control plane; the sled must register again")]
    StaleEpoch,
    /// Another 4xx answer.
    #[error("the control plane refused with status {status}: {message}")]
    Refused {
        /// The HTTP status.
        status: u16,
        /// What it said.
        message: String,
    },
    /// 5xx, timeout or broken connection: send it again.
    #[error("the control plane could not be reached or cannot store at the moment: {0}")]
    Unavailable(String),
}

impl ControlPlaneError {
    /// Whether sending the same again is pointless.
    pub const fn is_definite(&self) -> bool {
        !matches!(self, Self::Unavailable(_))
    }

    /// The HTTP status with which the control plane sends this.
    pub const fn status(&self) -> u16 {
        match self {
            Self::Malformed(_) => 400,
            Self::Unknown => 404,
            Self::Conflict | Self::OtherStore => 409,
            Self::Expunged => 410,
            Self::StaleEpoch => 412,
            Self::Refused { status, .. } => *status,
            Self::Unavailable(_) => 503,
        }
    }

    /// Reads an answer that is not a success; `status` is whatever came.
    pub fn from_answer(status: u16, body: &ErrorBody) -> Self {
        let message = shortened(&body.message);
        match status {
            400 => Self::Malformed(message),
            404 => Self::Unknown,
            409 if body.error_code.as_deref() == Some(OTHER_STORE) => Self::OtherStore,
            409 => Self::Conflict,
            410 => Self::Expunged,
            412 => Self::StaleEpoch,
            408 | 425 | 429 => Self::Unavailable(format!("status {status}: {message}")),
            401..=499 => Self::Refused { status, message },
            _ => Self::Unavailable(format!("status {status}: {message}")),
        }
    }
}

/// Why the switch or the producer registry did not take a push, or may not have.
#[derive(Clone, Debug, PartialEq, Eq, Error, Serialize, Deserialize)]
pub enum PushError {
    /// Refused for good: the push is malformed.
    #[error("the push was refused with status {status}: {message}")]
    Refused {
        /// The HTTP status.
        status: u16,
        /// What the receiver said.
        message: String,
    },
    /// Not reached, too slow or failing: push again.
    #[error("the receiver could not be reached or did not answer: {0}")]
    Unavailable(String),
}

fn shortened(message: &str) -> String {
    let mut end = message.len().min(MESSAGE_BYTES_MAX);
    while !message.is_char_boundary(end) {
        end -= 1;
    }
    message[..end].chars().map(|c| if c.is_control() { ' ' } else { c }).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_status_a_sled_sends_is_read_back_as_the_same_error() {
        let errors = [
            SledError::Malformed("m".into()),
            SledError::BadState("b".into()),
            SledError::NoSuchInstance,
            SledError::Conflict,
            SledError::Gone,
            SledError::StaleEpoch,
            SledError::NoRoom,
            SledError::Refused { status: 418, message: "r".into() },
            SledError::ChannelFull,
            SledError::ServerError { status: 500, message: "s".into() },
        ];
        for error in errors {
            let status = error.status().unwrap();
            assert_eq!(SledError::from_answer(status, &error.body()), error);
            assert_eq!(error.is_definite(), status < 500 || status == 507, "{error:?}");
        }
    }

    #[test]
    fn what_no_sled_says_is_never_definite() {
        let unsaid = |of: fn(String) -> SledError| of("u".to_owned());
        for error in [
            SledError::Timeout,
            unsaid(SledError::Transport),
            unsaid(SledError::NotSent),
            unsaid(SledError::BadAnswer),
        ] {
            assert_eq!((error.status(), error.is_definite()), (None, false));
        }
        let proxy_says_404 = SledError::from_answer(404, &ErrorBody::default());
        assert!(
            matches!(proxy_says_404, SledError::Refused { status: 404, .. }),
            "only the sled knows its VMMs"
        );
    }

    #[test]
    fn a_peer_cannot_fill_our_logs() {
        let body = ErrorBody { error_code: None, message: "é\n".repeat(MESSAGE_BYTES_MAX) };
        let SledError::ServerError { message, .. } = SledError::from_answer(500, &body) else { panic!() };
        assert!(message.len() <= MESSAGE_BYTES_MAX && !message.contains('\n'));
    }
}
