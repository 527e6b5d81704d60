//! A connection that ends when its client stops taking what it asked for.
//!
//! Reading has its own bounds (head and body times); this bounds writing, for which hyper has none.

use std::io;
use std::pin::Pin;
use std::task::{Context, Poll, ready};
use std::time::Duration;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::time::{Instant, Sleep, sleep};

/// A stream whose writes fail once none of them has made progress for `limit`.
pub struct StallLimit<S> {
    stream: S,
    limit: Duration,
    /// Runs while a write is stuck.
    stuck: Option<Pin<Box<Sleep>>>,
}

impl<S> StallLimit<S> {
    /// Bounds the writes of a stream.
    pub const fn new(stream: S, limit: Duration) -> Self {
        Self { stream, limit, stuck: None }
    }

    fn watch<T>(&mut self, cx: &mut Context<'_>, progress: Poll<io::Result<T>>) -> Poll<io::Result<T>> {
        if progress.is_ready() {
            self.stuck = None;
            return progress;
        }
        let limit = self.limit;
        let stuck = self.stuck.get_or_insert_with(|| Box::pin(sleep(limit)));
        ready!(stuck.as_mut().poll(cx));
        // Were it polled again, it would be as stuck as before.
        stuck.as_mut().reset(Instant::now());
        Poll::Ready(Err(io::Error::new(io::ErrorKind::TimedOut, "the client does not take the answer")))
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for StallLimit<S> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_read(cx, buffer)
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for StallLimit<S> {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        let progress = Pin::new(&mut self.stream).poll_write(cx, bytes);
        self.watch(cx, progress)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let progress = Pin::new(&mut self.stream).poll_flush(cx);
        self.watch(cx, progress)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let progress = Pin::new(&mut self.stream).poll_shutdown(cx);
        self.watch(cx, progress)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffers: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let progress = Pin::new(&mut self.stream).poll_write_vectored(cx, buffers);
        self.watch(cx, progress)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use tokio::io::{AsyncReadExt, AsyncWriteExt, duplex};

    #[tokio::test(start_paused = true)]
    async fn a_client_that_takes_nothing_is_given_up() {
        let (server, mut client) = duplex(16);
        let mut server = StallLimit::new(server, Duration::from_secs(3));
        let began = Instant::now();
        let error = server.write_all(&[7; 64]).await.unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::TimedOut);
        assert_eq!(began.elapsed(), Duration::from_secs(3));
        let mut taken = [0; 16];
        client.read_exact(&mut taken).await.unwrap();
        assert_eq!(taken, [7; 16], "what fitted was written");
    }

    #[tokio::test(start_paused = true)]
    async fn a_slow_client_that_goes_on_taking_is_served() {
        let (server, mut client) = duplex(16);
        let mut server = StallLimit::new(server, Duration::from_secs(3));
        let slow = tokio::spawn(async move {
            let mut taken = 0;
            let mut piece = [0; 8];
            while taken < 64 {
                sleep(Duration::from_secs(2)).await;
                taken += client.read(&mut piece).await.unwrap();
            }
        });
        server.write_all(&[7; 64]).await.unwrap();
        slow.await.unwrap();
    }

    #[tokio::test(start_paused = true)]
    async fn a_slow_client_that_stops_taking_is_given_up_too() {
        let (stream, mut client) = duplex(16);
        let mut server = StallLimit::new(stream, Duration::from_secs(3));
        let slow = tokio::spawn(async move {
            for _ in 0..4 {
                sleep(Duration::from_secs(2)).await;
                client.read_exact(&mut [0; 16]).await.unwrap();
            }
            client
        });
        server.write_all(&[7; 64]).await.unwrap();
        let began = Instant::now();
        let _client = slow.await.unwrap();
        server.write_all(&[7; 16]).await.unwrap();
        let error = server.write_all(&[7; 1]).await.unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::TimedOut);
        assert!(began.elapsed() >= Duration::from_secs(3));
    }
}
