//! Websockets: what a message is, over ws and wss, and what of it is refused.

use std::io::{Read, Write};
use std::net::TcpStream;
use std::time::{Duration, Instant};

use serde_json::{Value, json};
use tokio_tungstenite::tungstenite::protocol::WebSocketConfig;
use tokio_tungstenite::tungstenite::protocol::frame::Frame;
use tokio_tungstenite::tungstenite::protocol::frame::coding::{CloseCode, Data, OpCode};
use tokio_tungstenite::tungstenite::{Error, Message, WebSocket};

use super::clients::{certificate, read_text, request, tcp, tls, websocket};
use super::{SOON, serve, text_of};

fn version(text: &str) -> Value {
    let answer: Value = serde_json::from_str(text).unwrap();
    answer["result"][1].clone()
}

/// All that a wallet may send, and how it is answered.
fn converse<S: Read + Write>(mut socket: WebSocket<S>) {
    socket.send(Message::text(request("server.version", json!(["test", "1.4"])))).unwrap();
    let answer = read_text(&mut socket);
    assert!(!answer.contains('\n'), "{answer:?}");
    assert_eq!(version(&answer), "1.4");

    let ping = request("server.ping", json!([]));
    let pretty = "{\n  \"id\": 1,\n  \"method\": \"server.ping\"\n}\n".to_string();
    for text in [ping.clone() + "\n", pretty] {
        socket.send(Message::text(text)).unwrap();
        assert_eq!(serde_json::from_str::<Value>(&read_text(&mut socket)).unwrap()["id"], 1);
    }
    socket.send(Message::binary(ping.clone())).unwrap();
    assert_eq!(serde_json::from_str::<Value>(&read_text(&mut socket)).unwrap()["id"], 1);
    socket.send(Message::text(format!("[{ping},{ping}]"))).unwrap();
    assert_eq!(serde_json::from_str::<Value>(&read_text(&mut socket)).unwrap().as_array().unwrap().len(), 2);

    // In three fragments, with a ping between them.
    let (start, rest) = ping.split_at(7);
    let (middle, end) = rest.split_at(9);
    let fragment = |text: &str, code: Data, is_last: bool| {
        Message::Frame(Frame::message(text.as_bytes().to_vec(), OpCode::Data(code), is_last))
    };
    socket.send(fragment(start, Data::Text, false)).unwrap();
    socket.send(Message::Ping("are you there?".into())).unwrap();
    socket.send(fragment(middle, Data::Continue, false)).unwrap();
    socket.send(fragment(end, Data::Continue, true)).unwrap();
    assert_eq!(socket.read().unwrap(), Message::Pong("are you there?".into()));
    assert_eq!(serde_json::from_str::<Value>(&read_text(&mut socket)).unwrap()["id"], 1);

    // Many at once.
    for _ in 0..500 {
        socket.write(Message::text(ping.clone())).unwrap();
    }
    socket.flush().unwrap();
    for _ in 0..500 {
        read_text(&mut socket);
    }
    socket.close(None).unwrap();
    while let Ok(message) = socket.read() {
        assert!(message.is_close(), "{message:?}");
    }
}

#[test]
fn a_message_is_a_request_over_ws() {
    let served = serve("ws", &[]);
    converse(websocket(tcp(served.at)));
    served.server.stop();
}

#[test]
fn a_message_is_a_request_over_wss() {
    let served = serve("wss", &[]);
    let pinned = certificate(&text_of(&served.server.folder().join("ssl.pem")));
    converse(websocket(tls(served.at, &pinned)));
    served.server.stop();
}

/// Reads until the end; the code with which the server closed, if it said one.
fn closed(socket: &mut WebSocket<TcpStream>) -> Option<CloseCode> {
    let mut code = None;
    loop {
        match socket.read() {
            Ok(Message::Close(frame)) => code = frame.map(|frame| frame.code),
            Ok(_) => {}
            Err(Error::Io(error)) => {
                let is_late =
                    matches!(error.kind(), std::io::ErrorKind::WouldBlock | std::io::ErrorKind::TimedOut);
                assert!(!is_late, "it was not closed");
                return code;
            }
            Err(_) => return code,
        }
    }
}

#[test]
fn a_message_over_the_limit_is_refused_before_it_fills_the_memory() {
    let served = serve("ws", &[]);
    let before = served.server.peak_memory_bytes();
    // Announced, and never sent: from many.
    let mut sockets: Vec<_> = (0..20).map(|_| websocket(tcp(served.at))).collect();
    for socket in &mut sockets {
        let huge = [&[0x81, 0xff][..], &(1_u64 << 40).to_be_bytes(), &[1, 2, 3, 4]].concat();
        socket.get_mut().write_all(&huge).unwrap();
        assert_eq!(closed(socket), Some(CloseCode::Size));
    }
    // Just below the limit, announced by many and begun.
    let mut sockets: Vec<_> = (0..100).map(|_| websocket(tcp(served.at))).collect();
    for socket in &mut sockets {
        let large = [&[0x81, 0xff][..], &900_000_u64.to_be_bytes(), &[1, 2, 3, 4], b"x"].concat();
        socket.get_mut().write_all(&large).unwrap();
    }
    // In fragments without end.
    let mut socket = websocket(tcp(served.at));
    let piece = vec![b' '; 64 * 1024];
    let mut sent = 0;
    let mut code = Data::Text;
    loop {
        let frame = Frame::message(piece.clone(), OpCode::Data(code), false);
        code = Data::Continue;
        if socket.send(Message::Frame(frame)).is_err() || sent > 3_000_000 {
            break;
        }
        sent += piece.len();
    }
    closed(&mut socket);
    // Empty fragments cost nothing but time.
    let mut socket = websocket(tcp(served.at));
    socket.send(Message::Frame(Frame::message(Vec::new(), OpCode::Data(Data::Text), false))).unwrap();
    for _ in 0..20_000 {
        socket
            .write(Message::Frame(Frame::message(Vec::new(), OpCode::Data(Data::Continue), false)))
            .unwrap();
    }
    socket.flush().unwrap();
    converse(websocket(tcp(served.at)));
    let grown = served.server.peak_memory_bytes() - before;
    assert!(grown < 32 * 1024 * 1024, "grew by {grown}");
    served.server.stop();
}

#[test]
fn what_is_no_websocket_is_closed() {
    let served = serve("ws", &[]);
    let long_header = format!("GET / HTTP/1.1\r\nHost: a\r\nX: {}\r\n", "x".repeat(100_000));
    let many_headers = format!("GET / HTTP/1.1\r\n{}\r\n", "X: y\r\n".repeat(5_000));
    for garbage in [
        "{\"id\":1,\"method\":\"server.ping\"}\n\n",
        "GET / HTTP/1.1\r\nHost: a\r\n\r\n",
        "\u{16}\u{3}\u{1}\r\n\r\n",
        &long_header,
        &many_headers,
    ] {
        let mut stream = tcp(served.at);
        let _ = stream.write_all(garbage.as_bytes());
        let mut said = Vec::new();
        let start = Instant::now();
        let _ = stream.read_to_end(&mut said);
        assert!(start.elapsed() < SOON, "not closed: {}", &garbage[..30]);
        assert!(said.len() < 1000, "{said:?}");
    }
    // Frames that no client may send: without a mask, or of an unknown kind.
    for frame in [&[0x81, 0x02, b'{', b'}'][..], &[0x8b, 0x80, 0, 0, 0, 0], &[0xc1, 0x80, 0, 0, 0, 0]] {
        let mut socket = websocket(tcp(served.at));
        socket.get_mut().write_all(frame).unwrap();
        closed(&mut socket);
    }
    // Half a handshake disturbs nobody, and ends.
    let mut half = tcp(served.at);
    half.write_all(b"GET / HTTP/1.1\r\nHost: a\r\n").unwrap();
    half.set_read_timeout(Some(2 * SOON)).unwrap();
    let start = Instant::now();
    converse(websocket(tcp(served.at)));
    assert!(start.elapsed() < Duration::from_secs(5));
    assert!(matches!(half.read(&mut [0; 100]), Ok(_) | Err(_)));
    assert!(start.elapsed() < Duration::from_secs(15), "{:?}", start.elapsed());
    served.server.stop();
}

#[test]
fn a_websocket_that_never_reads_costs_bounded_memory() {
    let served = serve("ws", &[]);
    let before = served.server.peak_memory_bytes();
    let text = request("server.features", json!([]));
    let mut greedy: Vec<WebSocket<TcpStream>> = (0..4)
        .map(|_| {
            let stream = tcp(served.at);
            stream.set_write_timeout(Some(Duration::from_millis(300))).unwrap();
            let mut socket = websocket(stream);
            socket.set_config(|config: &mut WebSocketConfig| config.max_write_buffer_size = 1 << 20);
            socket
        })
        .collect();
    for socket in &mut greedy {
        for _ in 0..200_000 {
            if socket.send(Message::text(text.clone())).is_err() {
                break;
            }
        }
    }
    converse(websocket(tcp(served.at)));
    let grown = served.server.peak_memory_bytes() - before;
    assert!(grown < 48 * 1024 * 1024, "grew by {grown}");
}
