//! Websockets: one request, or batch, a message; one line a message back.
//!
//! Text is what wallets send, and what they get; a binary message is taken as if it were text. Pings are answered
//! while reading. Messages are not compressed: nobody can send a megabyte that is a thousand times as much inside.
//! Source: RFC 6455; ElectrumX's `ws://` for what a message is.

use std::io;
use std::task::{Context, Poll, ready};

use bytes::BytesMut;
use futures_util::{SinkExt, StreamExt};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio_tungstenite::tungstenite::protocol::frame::coding::CloseCode;
use tokio_tungstenite::tungstenite::protocol::{CloseFrame, WebSocketConfig};
use tokio_tungstenite::tungstenite::{Error, Message, Utf8Bytes};
use tokio_tungstenite::{WebSocketStream, accept_async_with_config};

use super::wire::{Wire, written};
use crate::electrum::transport::LineDecoder;

/// What one read takes from the stream below; the library keeps so much for every connection.
const READ_BYTES: usize = 4096;
/// Messages are gathered up to this before they are written.
const WRITE_BYTES: usize = 16 * 1024;

#[derive(Debug)]
pub struct WebSocket<S> {
    stream: WebSocketStream<S>,
    /// The library holds messages that it took.
    unflushed: bool,
    /// Why we close, where the wallet should know.
    goodbye: Option<CloseFrame>,
}

/// Does the handshake over a stream. A message, of however many fragments, may have as many bytes as a request, its
/// newline counted.
pub async fn accept<S>(stream: S, max_request_bytes: usize) -> Result<WebSocket<S>, Error>
where
    S: AsyncRead + AsyncWrite + Unpin,
{
    let max_message_bytes = max_request_bytes.saturating_sub(1);
    let config = WebSocketConfig::default()
        .read_buffer_size(READ_BYTES)
        .write_buffer_size(WRITE_BYTES)
        .max_message_size(Some(max_message_bytes))
        .max_frame_size(Some(max_message_bytes));
    let stream = accept_async_with_config(stream, Some(config)).await?;
    Ok(WebSocket { stream, unflushed: false, goodbye: None })
}

impl<S: AsyncRead + AsyncWrite + Unpin> Wire for WebSocket<S> {
    fn poll_read(&mut self, context: &mut Context<'_>, lines: &mut LineDecoder) -> Poll<io::Result<usize>> {
        let count = match ready!(self.stream.poll_next_unpin(context)) {
            Some(Ok(Message::Text(text))) => push(lines, text.as_bytes()),
            Some(Ok(Message::Binary(bytes))) => push(lines, &bytes),
            // Answered by the library. Each counts, so that whoever sends nothing else is not waited for here.
            Some(Ok(Message::Ping(bytes) | Message::Pong(bytes))) => bytes.len() + 1,
            Some(Ok(Message::Frame(_))) => 1,
            Some(Ok(Message::Close(_)) | Err(Error::ConnectionClosed | Error::AlreadyClosed)) | None => 0,
            Some(Err(Error::Capacity(_))) => {
                let reason = Utf8Bytes::from_static("request too large");
                self.goodbye = Some(CloseFrame { code: CloseCode::Size, reason });
                0
            }
            Some(Err(error)) => return Poll::Ready(Err(io_error(error))),
        };
        Poll::Ready(Ok(count))
    }

    fn poll_write(&mut self, context: &mut Context<'_>, outgoing: &mut BytesMut) -> Poll<io::Result<usize>> {
        let mut taken = 0;
        while let Some(end) = outgoing.iter().position(|byte| *byte == b'\n') {
            match self.stream.poll_ready_unpin(context) {
                Poll::Ready(ready) => ready.map_err(io_error)?,
                Poll::Pending if taken == 0 => return Poll::Pending,
                Poll::Pending => return Poll::Ready(Ok(taken)),
            }
            let line = outgoing.split_to(end + 1).freeze().slice(..end);
            let text = Utf8Bytes::try_from(line).map_err(io::Error::other)?;
            self.stream.start_send_unpin(Message::Text(text)).map_err(io_error)?;
            self.unflushed = true;
            taken += end + 1;
        }
        if self.unflushed {
            let flushed = self.stream.poll_flush_unpin(context).map_err(io_error);
            return written(taken, flushed, &mut self.unflushed);
        }
        Poll::Ready(Ok(taken))
    }

    fn holds_some(&self) -> bool {
        self.unflushed
    }

    fn poll_close(&mut self, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        if let Some(frame) = self.goodbye.take() {
            self.stream.start_send_unpin(Message::Close(Some(frame))).map_err(io_error)?;
        }
        self.stream.poll_close_unpin(context).map_err(io_error)
    }
}

/// A message is one line, however it is laid out: a line's end inside of JSON means no more than a space. How many
/// bytes it was, never 0.
fn push(lines: &mut LineDecoder, message: &[u8]) -> usize {
    let message = message.strip_suffix(b"\n").unwrap_or(message);
    for (n, line) in message.split(|byte| *byte == b'\n').enumerate() {
        if n > 0 {
            lines.push(b" ");
        }
        lines.push(line);
    }
    lines.push(b"\n");
    message.len() + 1
}

fn io_error(error: Error) -> io::Error {
    match error {
        Error::Io(error) => error,
        other => io::Error::other(other),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_message_is_one_line() {
        for (message, line) in [
            (&b"{}"[..], &b"{}"[..]),
            (b"{}\n", b"{}"),
            (b"{\n  \"id\": 1\n}\n", b"{   \"id\": 1 }"),
            (b"", b""),
            (b"\n", b""),
        ] {
            let mut lines = LineDecoder::default();
            assert!(push(&mut lines, message) > 0);
            assert_eq!(lines.next_line(), Ok(Some(line)));
            assert_eq!(lines.next_line(), Ok(None));
        }
    }
}
