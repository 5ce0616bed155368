//! What carries lines: two halves, the same for plain TCP, TLS and websockets.
//!
//! Both are polled and keep nothing in a future, so `talk` may turn to something else at any time and nothing is
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

/// The half that brings what the wallet says.
pub trait WireReader {
    /// Pushes what has arrived; how many bytes that was, 0 once the wallet has closed its side.
    fn poll_read(&mut self, context: &mut Context<'_>, lines: &mut LineDecoder) -> Poll<io::Result<usize>>;
}

/// The half that takes what the wallet is told.
pub trait WireWriter {
    /// Takes whole or parts of lines from the front of `outgoing`, or moves on what was taken before; how many
    /// bytes were taken. Pending while the other side takes nothing.
    fn poll_write(&mut self, context: &mut Context<'_>, outgoing: &mut BytesMut) -> Poll<io::Result<usize>>;

    /// Whether something that was taken has not left: go on with `poll_write`, though `outgoing` may be empty.
    fn holds_some(&self) -> bool;

    /// Tells the other side, in its own words, that nothing more will come.
    fn poll_close(&mut self, context: &mut Context<'_>) -> Poll<io::Result<()>>;
}

/// The two halves of a stream of bytes that is nothing but lines.
pub fn lines<R, W>(reader: R, writer: W) -> (StreamReader<R>, StreamWriter<W>) {
    (StreamReader(reader), StreamWriter { stream: writer, unflushed: false })
}

#[derive(Debug)]
pub struct StreamReader<R>(R);

impl<R: AsyncRead + Unpin> WireReader for StreamReader<R> {
    fn poll_read(&mut self, context: &mut Context<'_>, lines: &mut LineDecoder) -> Poll<io::Result<usize>> {
        // On the stack, and only while there is something to read: ten thousand idle wallets need no buffers.
        let mut space = [MaybeUninit::uninit(); READ_BYTES];
        let mut read = ReadBuf::uninit(&mut space);
        ready!(Pin::new(&mut self.0).poll_read(context, &mut read))?;
        lines.push(read.filled());
        Poll::Ready(Ok(read.filled().len()))
    }
}

#[derive(Debug)]
pub struct StreamWriter<W> {
    stream: W,
    /// TLS may hold records of what it took.
    unflushed: bool,
}

impl<W: AsyncWrite + Unpin> WireWriter for StreamWriter<W> {
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
            match Pin::new(&mut self.stream).poll_flush(context) {
                Poll::Ready(flushed) => {
                    flushed?;
                    self.unflushed = false;
                }
                Poll::Pending if taken == 0 => return Poll::Pending,
                Poll::Pending => {}
            }
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
