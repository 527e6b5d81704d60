//! Server-sent events, as the daemon's feed writes them: blocks of lines, each behind the one before.

use crate::client::ClientError;
use reqwest::Response;
use std::time::Duration;
use tokio::time::timeout;

/// Longest silence: the daemon says at least every 15 s that it is there.
const SILENCE_MAX: Duration = Duration::from_secs(45);

/// Longest block, bytes: an event is at most a mebibyte in the log, and JSON takes more room.
const BLOCK_BYTES_MAX: usize = 16 << 20;

/// One block.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Block {
    /// Log position that the reader has seen with this block.
    pub id: Option<u64>,
    /// The event as JSON.
    pub data: Option<String>,
    /// Why the daemon ended the feed, if it did.
    pub ended: Option<String>,
}

/// The blocks of one answer.
pub struct Blocks {
    response: Response,
    pending: Vec<u8>,
    /// How far `pending` is known to hold no end.
    searched: usize,
}

impl Blocks {
    /// Reads an answer.
    pub const fn new(response: Response) -> Self {
        Self { response, pending: Vec::new(), searched: 0 }
    }

    /// The next block; none at the end of the answer.
    pub async fn next(&mut self) -> Result<Option<Block>, ClientError> {
        let broken = |why: String| ClientError::Unreachable(format!("the feed broke off: {why}"));
        loop {
            let end = self.pending[self.searched..].windows(2).position(|pair| pair == b"\n\n");
            if let Some(end) = end {
                let block: Vec<u8> = self.pending.drain(..self.searched + end + 2).collect();
                self.searched = 0;
                return read(&String::from_utf8_lossy(&block)).map(Some).map_err(broken);
            }
            self.searched = self.pending.len().saturating_sub(1);
            if self.pending.len() > BLOCK_BYTES_MAX {
                return Err(broken("an event has no end".to_owned()));
            }
            match timeout(SILENCE_MAX, self.response.chunk()).await {
                Ok(Ok(Some(piece))) => self.pending.extend_from_slice(&piece),
                Ok(Ok(None)) => return Ok(None),
                Ok(Err(error)) => return Err(broken(error.to_string())),
                Err(_) => return Err(broken("the daemon is silent".to_owned())),
            }
        }
    }
}

fn read(text: &str) -> Result<Block, String> {
    let mut block = Block::default();
    for line in text.lines() {
        if let Some(number) = line.strip_prefix("id: ") {
            block.id = Some(number.parse().map_err(|_| format!("\"{number}\" is no position"))?);
        } else if let Some(data) = line.strip_prefix("data: ") {
            block.data = Some(data.to_owned());
        } else if let Some(why) = line.strip_prefix(": ended: ") {
            block.ended = Some(why.to_owned());
        }
    }
    Ok(block)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_block_is_its_lines_and_comments_are_none() {
        let event = Block { id: Some(7), data: Some("{}".to_owned()), ended: None };
        assert_eq!(read("id: 7\ndata: {}\n\n"), Ok(event));
        assert_eq!(read(": heartbeat\nid: 9\n\n"), Ok(Block { id: Some(9), ..Block::default() }));
        assert_eq!(read(": events after 3\nretry: 1000\n\n"), Ok(Block::default()));
        assert_eq!(read(": ended: closed\n\n").unwrap().ended.as_deref(), Some("closed"));
        assert!(read("id: x\n\n").is_err());
    }
}
