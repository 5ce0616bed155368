//! JSON-RPC 2.0 and 1.0: finds the requests in a line and writes the answers.
//!
//! Knows envelopes only; what a method means and what its arguments are is read elsewhere. Arguments and ids
//! stay slices of the line, so a line of any shape costs no more memory than itself; nesting costs no stack.
//! Source: the JSON-RPC 2.0 specification, its 1.0 of 2005, and what wallets really send (a missing or wrong
//! `jsonrpc`, `null` for no parameters).

use std::borrow::Cow;
use std::fmt;

use serde::Deserialize;
use serde::de::{Deserializer, SeqAccess, Visitor};
use serde_json::value::RawValue;

use super::error::RpcError;
use super::json::{Json, write_text};

/// What a line holds.
#[derive(Debug)]
pub(super) enum Incoming<'a> {
    Single(Item<'a>),
    /// Never empty. The second part holds the requests past the limit, to be refused one by one.
    Batch(Vec<Item<'a>>, Vec<Envelope<'a>>),
}

/// One member of a batch, or a line's only one.
#[derive(Debug)]
pub(super) enum Item<'a> {
    Request(Request<'a>),
    /// Nothing is answered to a notification, not even an error. `None` where its method cannot be read.
    Notification(Option<Cow<'a, str>>),
    Refused(Envelope<'a>, RpcError),
}

impl Item<'_> {
    /// Outlives its line: for batches that take time.
    pub(super) fn into_owned(self) -> Item<'static> {
        let owned = |text: Cow<'_, str>| Cow::Owned(text.into_owned());
        match self {
            Self::Request(Request { envelope, method, params, authorization }) => Item::Request(Request {
                envelope: envelope.into_owned(),
                method: owned(method),
                params: owned(params),
                authorization: authorization.map(owned),
            }),
            Self::Notification(method) => Item::Notification(method.map(owned)),
            Self::Refused(envelope, error) => Item::Refused(envelope.into_owned(), error),
        }
    }
}

/// A method called by name, to be answered.
#[derive(Debug)]
pub(super) struct Request<'a> {
    pub(super) envelope: Envelope<'a>,
    pub(super) method: Cow<'a, str>,
    /// JSON text of a list, an object or `null`; absent is `null`.
    pub(super) params: Cow<'a, str>,
    /// What proves who asks (`Bearer TOKEN`), as BDK's client sends it.
    pub(super) authorization: Option<Cow<'a, str>>,
}

/// What an answer repeats of its request.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Envelope<'a> {
    /// JSON text of a number, a string or `null`, as it was sent.
    id: Cow<'a, str>,
    dialect: Dialect,
}

/// How an answer is written; 1.0 has no `jsonrpc` member.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Dialect {
    V1,
    V2,
}

impl Envelope<'_> {
    /// For a message whose id could not be read.
    pub(super) fn unknown() -> Self {
        Self { id: Cow::Borrowed("null"), dialect: Dialect::V2 }
    }

    /// Outlives its line: for answers that take time.
    pub(super) fn into_owned(self) -> Envelope<'static> {
        Envelope { id: Cow::Owned(self.id.into_owned()), dialect: self.dialect }
    }

    /// The answer as one JSON object: `result` or `error`, never both, as some wallets take a mere
    /// `"error": null` for an error.
    pub(super) fn answer(&self, answer: &Result<Json, RpcError>) -> String {
        let result_bytes = answer.as_ref().map_or(0, |result| result.as_str().len());
        // With its newline, and nothing is moved on the way.
        let mut out = String::with_capacity(result_bytes + self.id.len() + 40);
        out.push_str(match self.dialect {
            Dialect::V1 => "{",
            Dialect::V2 => r#"{"jsonrpc":"2.0","#,
        });
        match answer {
            Ok(result) => {
                out.push_str("\"result\":");
                out.push_str(result.as_str());
            }
            Err(error) => {
                out.push_str(&format!("\"error\":{{\"code\":{},\"message\":", error.code));
                write_text(&mut out, &error.message);
                out.push('}');
            }
        }
        out.push_str(",\"id\":");
        out.push_str(&self.id);
        out.push('}');
        out
    }
}

/// A message that the wallet did not ask for and that it does not answer.
pub(super) fn notification(method: &str, params: &[Json]) -> String {
    let params_bytes: usize = params.iter().map(|param| param.as_str().len() + 1).sum();
    // With its newline, and nothing is moved on the way: a block is told to all sessions.
    let mut out = String::with_capacity(method.len() + params_bytes + 50);
    out.push_str(r#"{"jsonrpc":"2.0","method":"#);
    write_text(&mut out, method);
    out.push_str(r#","params":["#);
    for (index, param) in params.iter().enumerate() {
        if index > 0 {
            out.push(',');
        }
        out.push_str(param.as_str());
    }
    out.push_str("]}");
    out
}

/// Finds the requests in a line; in a batch, up to `max_batch` of them.
pub(super) fn parse(line: &[u8], max_batch: usize) -> Incoming<'_> {
    let refused = |error| Incoming::Single(Item::Refused(Envelope::unknown(), error));
    let Ok(text) = std::str::from_utf8(line) else {
        return refused(RpcError::parse("messages must be encoded in UTF-8"));
    };
    match text.trim_start_matches([' ', '\t', '\r', '\n']).as_bytes().first() {
        Some(b'[') => match read_batch(text, max_batch) {
            Ok(Batch { items, excess: _ }) if items.is_empty() => {
                refused(RpcError::invalid_request("batch is empty"))
            }
            Ok(Batch { items, excess }) => Incoming::Batch(items, excess),
            Err(_) => refused(RpcError::parse("invalid JSON")),
        },
        Some(_) => Incoming::Single(parse_item(text)),
        None => refused(RpcError::parse("invalid JSON")),
    }
}

/// The members of a request that mean something; others are skipped.
#[derive(Deserialize)]
struct Members<'a> {
    #[serde(borrow, default, deserialize_with = "present")]
    jsonrpc: Option<&'a RawValue>,
    #[serde(borrow, default, deserialize_with = "present")]
    method: Option<&'a RawValue>,
    #[serde(borrow, default, deserialize_with = "present")]
    params: Option<&'a RawValue>,
    #[serde(borrow, default, deserialize_with = "present")]
    id: Option<&'a RawValue>,
    #[serde(borrow, default, deserialize_with = "present")]
    authorization: Option<&'a RawValue>,
}

/// Keeps `null` apart from a missing member.
fn present<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<&'de RawValue>, D::Error> {
    <&RawValue>::deserialize(deserializer).map(Some)
}

fn parse_item(text: &str) -> Item<'_> {
    let is_object = text.trim_start_matches([' ', '\t', '\r', '\n']).starts_with('{');
    let members = match serde_json::from_str::<Members<'_>>(text) {
        Ok(members) if is_object => members,
        Err(error) if !error.is_data() => {
            return Item::Refused(Envelope::unknown(), RpcError::parse("invalid JSON"));
        }
        Ok(_) | Err(_) => {
            return Item::Refused(Envelope::unknown(), RpcError::invalid_request("not a request object"));
        }
    };
    let dialect = match members.jsonrpc.map(RawValue::get) {
        None | Some("null" | "\"1.0\"") => Dialect::V1,
        Some(_) => Dialect::V2,
    };
    let id = match members.id.map(RawValue::get) {
        Some(id) if is_id(id) => id,
        Some(_) => {
            let envelope = Envelope { id: Cow::Borrowed("null"), dialect };
            return Item::Refused(
                envelope,
                RpcError::invalid_request("id must be a number, a string or null"),
            );
        }
        None if members.method.is_some() => {
            return Item::Notification(members.method.and_then(|method| text_of(method.get())));
        }
        None => "null",
    };
    let envelope = Envelope { id: Cow::Borrowed(id), dialect };
    match members.method.and_then(|method| text_of(method.get())) {
        Some(method) => {
            let params = Cow::Borrowed(members.params.map_or("null", RawValue::get));
            let authorization = members.authorization.and_then(|given| text_of(given.get()));
            Item::Request(Request { envelope, method, params, authorization })
        }
        None => Item::Refused(envelope, RpcError::invalid_request("method must be a string")),
    }
}

fn is_id(json: &str) -> bool {
    json == "null"
        || json.starts_with('"')
        || json.starts_with(|first: char| first == '-' || first.is_ascii_digit())
}

/// The string that `json` is, if it is one; without a copy when nothing in it is escaped.
pub(super) fn text_of(json: &str) -> Option<Cow<'_, str>> {
    let inside = json.strip_prefix('"')?.strip_suffix('"')?;
    if inside.contains('\\') {
        serde_json::from_str(json).ok().map(Cow::Owned)
    } else {
        Some(Cow::Borrowed(inside))
    }
}

/// A list of requests.
struct Batch<'a> {
    items: Vec<Item<'a>>,
    excess: Vec<Envelope<'a>>,
}

fn read_batch(text: &str, max_batch: usize) -> serde_json::Result<Batch<'_>> {
    let mut reader = serde_json::Deserializer::from_str(text);
    let batch = reader.deserialize_seq(BatchVisitor { max_batch })?;
    reader.end()?;
    Ok(batch)
}

struct BatchVisitor {
    max_batch: usize,
}

impl<'de> Visitor<'de> for BatchVisitor {
    type Value = Batch<'de>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a list of requests")
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut members: A) -> Result<Self::Value, A::Error> {
        let (mut items, mut excess) = (Vec::new(), Vec::new());
        while let Some(member) = members.next_element::<&'de RawValue>()? {
            let item = parse_item(member.get());
            if items.len() < self.max_batch {
                items.push(item);
            } else if let Item::Request(request) = item {
                // What is no request cannot be told apart in the answers, so past the limit it gets none.
                excess.push(request.envelope);
            }
        }
        Ok(Batch { items, excess })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MAX_BATCH: usize = 1_000;

    fn single(line: &str) -> Item<'_> {
        match parse(line.as_bytes(), MAX_BATCH) {
            Incoming::Single(item) => item,
            Incoming::Batch(..) => panic!("a batch: {line}"),
        }
    }

    fn request(line: &str) -> Request<'_> {
        match single(line) {
            Item::Request(request) => request,
            other => panic!("{line} is {other:?}"),
        }
    }

    /// Code of the error, and the answer it leads to.
    fn refusal(line: &[u8]) -> (i32, String) {
        match parse(line, MAX_BATCH) {
            Incoming::Single(Item::Refused(envelope, error)) => (error.code, envelope.answer(&Err(error))),
            other => panic!("{} is {other:?}", String::from_utf8_lossy(line)),
        }
    }

    #[test]
    fn pitfall_1_keys_come_in_any_order_and_others_are_skipped() {
        for line in [
            r#"{"jsonrpc":"2.0","id":7,"method":"server.ping","params":[]}"#,
            r#"{"params":[],"method":"server.ping","id":7,"jsonrpc":"2.0"}"#,
            "\t{ \"authorization\" : {\"a\":[]}, \"id\" : 7 , \"params\":[], \"method\":\"server\\u002eping\"}\r",
        ] {
            let request = request(line);
            assert_eq!(
                (request.envelope.id.as_ref(), request.method.as_ref(), request.params.as_ref()),
                ("7", "server.ping", "[]")
            );
        }
    }

    #[test]
    fn ids_are_repeated_as_they_were_sent() {
        for id in
            ["0", "-1", "1.50", "1e400", "123456789012345678901234567890", "null", r#""""#, r#""a\"\u0000é""#]
        {
            let line = format!(r#"{{"jsonrpc":"2.0","method":"m","id":{id}}}"#);
            let answer = request(&line).envelope.answer(&Ok(Json::null()));
            assert_eq!(answer, format!(r#"{{"jsonrpc":"2.0","result":null,"id":{id}}}"#));
        }
        for id in ["[1]", "{}", "true"] {
            let (code, answer) = refusal(format!(r#"{{"method":"m","id":{id}}}"#).as_bytes());
            assert_eq!(code, INVALID);
            assert!(answer.ends_with(r#""id":null}"#), "{answer}");
        }
    }

    const PARSE: i32 = -32700;
    const INVALID: i32 = -32600;

    #[test]
    fn pitfall_17b_a_wrong_or_missing_jsonrpc_is_answered_in_kind() {
        for (member, answered) in [
            (r#""jsonrpc":"2.0","#, r#"{"jsonrpc":"2.0","result":1,"id":5}"#),
            (r#""jsonrpc":2,"#, r#"{"jsonrpc":"2.0","result":1,"id":5}"#),
            (r#""jsonrpc":"1.0","#, r#"{"result":1,"id":5}"#),
            (r#""jsonrpc":null,"#, r#"{"result":1,"id":5}"#),
            ("", r#"{"result":1,"id":5}"#),
        ] {
            let line = format!(r#"{{{member}"method":"m","id":5}}"#);
            assert_eq!(request(&line).envelope.answer(&Ok(Json::integer(1))), answered);
        }
    }

    #[test]
    fn pitfall_10_an_answer_has_a_result_or_an_error_never_both() {
        let envelope = Envelope::unknown();
        let good: serde_json::Value = serde_json::from_str(&envelope.answer(&Ok(Json::null()))).unwrap();
        let bad = envelope.answer(&Err(RpcError::bad_request("no \"such\" thing\n")));
        let bad: serde_json::Value = serde_json::from_str(&bad).unwrap();
        assert_eq!((good.get("result").is_some(), good.get("error")), (true, None));
        assert_eq!(bad.get("result"), None);
        assert_eq!(bad["error"], serde_json::json!({"code": 1, "message": "no \"such\" thing\n"}));
    }

    #[test]
    fn what_is_no_request_is_told_apart_from_what_is_no_json() {
        for line in [
            "",
            " ",
            "{",
            "}",
            "nonsense",
            r#"{"method":"m","id":1}}"#,
            r#"{"method":"m","id":01}"#,
            "[1,",
            "\u{feff}{}",
        ] {
            assert_eq!(refusal(line.as_bytes()).0, PARSE, "{line}");
        }
        assert_eq!(refusal(b"{\"method\":\"\xff\",\"id\":1}").0, PARSE);
        for line in [
            "1",
            "null",
            "\"text\"",
            "{}",
            "[]",
            r#"{"id":1}"#,
            r#"{"id":1,"method":5}"#,
            r#"{"id":1,"id":1,"method":"m"}"#,
            r#"{"result":1,"id":1}"#,
        ] {
            assert_eq!(refusal(line.as_bytes()).0, INVALID, "{line}");
        }
    }

    #[test]
    fn a_request_may_say_who_asks() {
        let line = r#"{"jsonrpc":"2.0","method":"m","id":1,"authorization":"Bearer \u0061b"}"#;
        assert_eq!(request(line).authorization.as_deref(), Some("Bearer ab"));
        assert_eq!(request(r#"{"method":"m","id":1,"authorization":[]}"#).authorization, None);
    }

    #[test]
    fn a_request_without_id_is_a_notification() {
        assert!(matches!(single(r#"{"jsonrpc":"2.0","method":"server.ping"}"#), Item::Notification(Some(_))));
        assert!(matches!(single(r#"{"jsonrpc":"2.0","method":"server.ping","id":null}"#), Item::Request(_)));
    }

    #[test]
    fn nesting_of_any_depth_costs_no_stack() {
        let deep = |open: &str, close: &str| open.repeat(300_000) + &close.repeat(300_000);
        let line = format!(r#"{{"method":"m","id":1,"params":[{}]}}"#, deep("[", "]"));
        assert_eq!(request(&line).params.len(), 600_002);
        assert_eq!(refusal("[".repeat(900_000).as_bytes()).0, PARSE);
        assert_eq!(refusal("{\"a\":".repeat(150_000).as_bytes()).0, PARSE);
        let nested = deep("[", "]");
        assert!(
            matches!(parse(nested.as_bytes(), MAX_BATCH), Incoming::Batch(items, _) if matches!(items[..], [Item::Refused(..)]))
        );
    }

    #[test]
    fn a_batch_past_the_limit_names_what_it_refuses() {
        let line = format!("[{},7]", vec![r#"{"method":"m","id":1}"#; MAX_BATCH + 3].join(","));
        let Incoming::Batch(items, excess) = parse(line.as_bytes(), MAX_BATCH) else { panic!("no batch") };
        assert_eq!((items.len(), excess.len()), (MAX_BATCH, 3));
    }
}
