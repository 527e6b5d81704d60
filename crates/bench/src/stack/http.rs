//! The smallest client that drives the daemon: HTTP/1.1 over one kept connection, one request at a time.
//!
//! A general client takes more of the machine than the daemon that it measures.
//!
//! Invariants:
//! * a reply is at most [`REPLY_BYTES_MAX`]; one without a length has no body, unless it comes in chunks, which are
//!   counted and not looked at.

use crate::Failure;
use std::net::SocketAddr;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

/// Longest reply: the metrics are a few hundred lines, everything else is smaller.
const REPLY_BYTES_MAX: usize = 4 << 20;

/// A kept connection.
pub struct Connection {
    stream: TcpStream,
    address: SocketAddr,
    request: Vec<u8>,
    received: Vec<u8>,
}

/// What came back.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Reply {
    /// HTTP status.
    pub status: u16,
    /// Body.
    pub body: Vec<u8>,
}

impl Reply {
    /// The body of a reply that is 2xx; every other one is an error that says what came.
    pub fn success(self) -> Result<Vec<u8>, Failure> {
        if (200..300).contains(&self.status) {
            return Ok(self.body);
        }
        Err(format!("the daemon answered {}: {}", self.status, String::from_utf8_lossy(&self.body)).into())
    }

    /// The body of a success, as JSON.
    pub fn json(self) -> Result<serde_json::Value, Failure> {
        Ok(serde_json::from_slice(&self.success()?)?)
    }
}

/// What ends a body that comes in chunks.
const LAST_CHUNK: &[u8] = b"0\r\n\r\n";

/// Length of the head, status and length of the body, once the head is all there; of a body in chunks, once that is.
fn head(bytes: &[u8]) -> Result<Option<(usize, u16, usize)>, Failure> {
    let Some(end) = bytes.windows(4).position(|four| four == b"\r\n\r\n") else { return Ok(None) };
    let text = std::str::from_utf8(&bytes[..end])?;
    let mut lines = text.split("\r\n");
    let status = lines.next().and_then(|line| line.split(' ').nth(1)).and_then(|word| word.parse().ok());
    let status = status.ok_or_else(|| format!("this is no HTTP: {text}"))?;
    let (mut length, body) = (0, end + 4);
    for (name, value) in lines.filter_map(|line| line.split_once(':')) {
        if name.eq_ignore_ascii_case("transfer-encoding") {
            let is_whole = bytes[body..].ends_with(LAST_CHUNK);
            return Ok(is_whole.then(|| (body, status, bytes.len() - body)));
        }
        if name.eq_ignore_ascii_case("content-length") {
            length = value.trim().parse()?;
        }
    }
    if length > REPLY_BYTES_MAX {
        return Err(format!("a reply of {length} bytes; at most {REPLY_BYTES_MAX}").into());
    }
    Ok(Some((body, status, length)))
}

impl Connection {
    /// Connects.
    pub async fn open(address: SocketAddr) -> Result<Self, Failure> {
        let stream = TcpStream::connect(address).await?;
        stream.set_nodelay(true)?;
        Ok(Self { stream, address, request: Vec::new(), received: Vec::new() })
    }

    /// Sends a request and waits for its reply.
    pub async fn send(
        &mut self,
        method: &str,
        path: &str,
        headers: &[(&str, &str)],
        body: &[u8],
    ) -> Result<Reply, Failure> {
        use std::io::Write;
        self.request.clear();
        write!(self.request, "{method} {path} HTTP/1.1\r\nhost: {}\r\n", self.address)?;
        for (name, value) in headers {
            write!(self.request, "{name}: {value}\r\n")?;
        }
        if !body.is_empty() {
            write!(self.request, "content-type: application/json\r\ncontent-length: {}\r\n", body.len())?;
        }
        self.request.extend_from_slice(b"\r\n");
        self.request.extend_from_slice(body);
        self.stream.write_all(&self.request).await?;
        self.received.clear();
        loop {
            if let Some((start, status, length)) = head(&self.received)?
                && let Some(body) = self.received.get(start..start + length)
            {
                return Ok(Reply { status, body: body.to_vec() });
            }
            if self.received.len() > REPLY_BYTES_MAX {
                return Err("a reply without an end".into());
            }
            if self.stream.read_buf(&mut self.received).await? == 0 {
                return Err("the daemon closed the connection".into());
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_head_is_read_once_it_is_whole() {
        let whole = b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhello";
        for end in 0..whole.len() {
            let expected = (end >= 38).then_some((38, 200, 5));
            assert_eq!(head(&whole[..end]).unwrap(), expected, "{end}");
        }
        assert_eq!(head(b"HTTP/1.1 204 No Content\r\n\r\n").unwrap(), Some((27, 204, 0)));
        let chunks = b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n2\r\n10\r\n0\r\n\r\n";
        for end in 0..=chunks.len() {
            let expected = (end == chunks.len()).then_some((47, 200, 12));
            assert_eq!(head(&chunks[..end]).unwrap(), expected, "{end}");
        }
        for bad in ["gibberish\r\n\r\n", "HTTP/1.1 200 OK\r\ncontent-length: 99999999\r\n\r\n"] {
            assert!(head(bad.as_bytes()).is_err(), "{bad}");
        }
    }
}
