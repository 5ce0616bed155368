//! What carries lines: the same for plain TCP, TLS and websockets.
//!
//! A wire is polled and keeps nothing in a future, so `talk` may turn to something else at any time and nothing is
//! lost. A connection that says nothing holds no buffer.

use std::io;
use std::mem::MaybeUninit;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use bytes::{Buf, BytesMut};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

use crate::electrum::transport::LineDecoder;

/// What one read takes from a stream.
const READ_BYTES: usize = 16 * 1024;

pub trait Wire {
    /// Pushes what the wallet says; how many bytes that was, 0 once it has closed its side.
    fn poll_read(&mut self, context: &mut Context<'_>, lines: &mut LineDecoder) -> Poll<io::Result<usize>>;

    /// Takes whole or parts of lines from the front of `outgoing`, or moves on what was taken before; how many
    /// bytes were taken. Pending while the wallet takes nothing.
    fn poll_write(&mut self, context: &mut Context<'_>, outgoing: &mut BytesMut) -> Poll<io::Result<usize>>;

    /// Whether something that was taken has not left: go on with `poll_write`, though `outgoing` may be empty.
    fn holds_some(&self) -> bool;

    /// Tells the wallet, in the wire's own words, that nothing more will come.
    fn poll_close(&mut self, context: &mut Context<'_>) -> Poll<io::Result<()>>;
}

/// What `poll_write` says once it has taken so much and tried to move it on.
pub(super) fn written(
    taken: usize,
    flushed: Poll<io::Result<()>>,
    unflushed: &mut bool,
) -> Poll<io::Result<usize>> {
    match flushed {
        Poll::Ready(flushed) => {
            flushed?;
            *unflushed = false;
        }
        Poll::Pending if taken == 0 => return Poll::Pending,
        Poll::Pending => {}
    }
    Poll::Ready(Ok(taken))
}

/// A stream of bytes that is nothing but lines.
#[derive(Debug)]
pub struct Lines<S> {
    stream: S,
    /// TLS may hold records of what it took.
    unflushed: bool,
}

impl<S> Lines<S> {
    pub fn new(stream: S) -> Self {
        Self { stream, unflushed: false }
    }
}

impl<S: AsyncRead + AsyncWrite + Unpin> Wire for Lines<S> {
    fn poll_read(&mut self, context: &mut Context<'_>, lines: &mut LineDecoder) -> Poll<io::Result<usize>> {
        // On the stack, and only while there is something to read: ten thousand idle wallets need no buffers.
        let mut space = [MaybeUninit::uninit(); READ_BYTES];
        let mut read = ReadBuf::uninit(&mut space);
        ready!(Pin::new(&mut self.stream).poll_read(context, &mut read))?;
        lines.push(read.filled());
        Poll::Ready(Ok(read.filled().len()))
    }

    fn poll_write(&mut self, context: &mut Context<'_>, outgoing: &mut BytesMut) -> Poll<io::Result<usize>> {
        let mut taken = 0;
        if !outgoing.is_empty() {
            taken = ready!(Pin::new(&mut self.stream).poll_write(context, outgoing))?;
            if taken == 0 {
                return Poll::Ready(Err(io::ErrorKind::WriteZero.into()));
            }
            outgoing.advance(taken);
            self.unflushed = true;
        }
        if self.unflushed && outgoing.is_empty() {
            let flushed = Pin::new(&mut self.stream).poll_flush(context);
            return written(taken, flushed, &mut self.unflushed);
        }
        Poll::Ready(Ok(taken))
    }

    fn holds_some(&self) -> bool {
        self.unflushed
    }

    fn poll_close(&mut self, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(context)
    }
}
