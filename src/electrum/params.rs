//! The arguments of a request: brought into the method's order, then read one by one.
//!
//! A wrong number or name of arguments is -32602; a bad value is error 1 with the words that ElectrumX uses.
//! Numbers are also taken as strings of digits, and 0 and 1 as booleans, as ElectrumX does.

use std::borrow::Cow;
use std::fmt;

use bitcoin::address::NetworkUnchecked;
use bitcoin::hashes::Hash;
use bitcoin::hex::FromHex;
use bitcoin::{Address, Network, Txid};
use chainstore::ScriptHash;
use serde::Deserialize;
use serde::de::{Deserializer, MapAccess, SeqAccess, Visitor};
use serde_json::value::RawValue;

use super::error::{RpcError, shortened};
use super::jsonrpc::text_of;
use super::methods::{Extra, Method, Param};

/// JSON text of each argument, in the order in which the method names them; defaults are filled in.
#[derive(Debug)]
pub(super) struct Args<'a>(Vec<&'a str>);

impl<'a> Args<'a> {
    /// Matches `params` (a list, an object or `null`) with what `method` takes.
    pub(super) fn match_with(method: &Method, params: &'a str) -> Result<Self, RpcError> {
        let given: Given<'a> = match params.as_bytes().first() {
            Some(b'[' | b'{') => {
                let mut reader = serde_json::Deserializer::from_str(params);
                let given = reader.deserialize_any(GivenVisitor { method });
                given.map_err(|_| RpcError::invalid_params("the arguments cannot be read"))?
            }
            _ if params == "null" => Given::default(),
            _ => return Err(RpcError::invalid_params("params must be a list or an object")),
        };
        if let (Some(surplus), Extra::Refused) = (given.surplus, method.extra) {
            return Err(RpcError::invalid_params(format!("{} {surplus}", method.name)));
        }
        let filled = method.params.iter().enumerate().map(|(index, param)| {
            given.values.get(index).copied().flatten().or(param.default).ok_or_else(|| {
                RpcError::invalid_params(format!("{} needs the argument \"{}\"", method.name, param.name))
            })
        });
        Ok(Self(filled.collect::<Result<_, _>>()?))
    }

    /// JSON text of an argument.
    pub(super) fn json(&self, index: usize) -> &'a str {
        // `match_with` filled one for each parameter that the method names.
        self.0.get(index).copied().unwrap_or("null")
    }

    /// A whole number from 0; what is beyond `u64` is not in any chain, and refused alike.
    pub(super) fn integer(&self, index: usize) -> Result<u64, RpcError> {
        let json = self.json(index);
        let digits = text_of(json).unwrap_or(Cow::Borrowed(json));
        let is_number = !digits.is_empty() && digits.bytes().all(|byte| byte.is_ascii_digit());
        let value = if is_number { digits.parse().ok() } else { None };
        value.ok_or_else(|| self.bad(index, "should be a non-negative integer"))
    }

    pub(super) fn boolean(&self, index: usize) -> Result<bool, RpcError> {
        match self.json(index) {
            "true" | "1" => Ok(true),
            "false" | "0" => Ok(false),
            _ => Err(self.bad(index, "should be a boolean value")),
        }
    }

    pub(super) fn text(&self, index: usize) -> Option<Cow<'a, str>> {
        text_of(self.json(index))
    }

    pub(super) fn hex(&self, index: usize) -> Result<Vec<u8>, RpcError> {
        self.text(index)
            .and_then(|text| Vec::from_hex(&text).ok())
            .ok_or_else(|| self.bad(index, "should be a hex string"))
    }

    /// A list of texts in hex.
    pub(super) fn hex_list(&self, index: usize) -> Result<Vec<Vec<u8>>, RpcError> {
        let list: Vec<&RawValue> =
            serde_json::from_str(self.json(index)).map_err(|_| self.bad(index, "should be a list"))?;
        let bytes = |item: &RawValue| text_of(item.get()).and_then(|text| Vec::from_hex(&text).ok());
        let wrong =
            |item: &RawValue| RpcError::bad_request(format!("{} should be a hex string", shown(item.get())));
        list.into_iter().map(|item| bytes(item).ok_or_else(|| wrong(item))).collect()
    }

    /// Hex in which a half byte may be left over: noise of any length.
    pub(super) fn hex_noise(&self, index: usize) -> Result<(), RpcError> {
        let is_hex = |text: Cow<'_, str>| text.bytes().all(|byte| byte.is_ascii_hexdigit());
        match self.text(index).is_some_and(is_hex) {
            true => Ok(()),
            false => Err(self.bad(index, "should be a hex string")),
        }
    }

    /// An address of the network.
    pub(super) fn address(&self, index: usize, network: Network) -> Result<Address, RpcError> {
        let address = self.text(index).and_then(|text| text.parse::<Address<NetworkUnchecked>>().ok());
        address
            .and_then(|address| address.require_network(network).ok())
            .ok_or_else(|| self.bad(index, "is not a valid address"))
    }

    pub(super) fn txid(&self, index: usize) -> Result<Txid, RpcError> {
        let bytes =
            self.reversed_hash(index).ok_or_else(|| self.bad(index, "should be a transaction hash"))?;
        Ok(Txid::from_byte_array(bytes))
    }

    pub(super) fn script_hash(&self, index: usize) -> Result<ScriptHash, RpcError> {
        let bytes = self.reversed_hash(index).ok_or_else(|| self.bad(index, "is not a valid script hash"))?;
        Ok(ScriptHash(bytes))
    }

    fn reversed_hash(&self, index: usize) -> Option<[u8; 32]> {
        let mut bytes = <[u8; 32]>::from_hex(&self.text(index)?).ok()?;
        bytes.reverse();
        Some(bytes)
    }

    /// Error 1: the value, then what is wrong with it.
    fn bad(&self, index: usize, what: &str) -> RpcError {
        RpcError::bad_request(format!("{} {what}", self.shown(index)))
    }

    /// The argument as an error shows it: strings without quotes, and not all of a long one.
    pub(super) fn shown(&self, index: usize) -> String {
        shown(self.json(index))
    }
}

fn shown(json: &str) -> String {
    shortened(&text_of(json).unwrap_or(Cow::Borrowed(json)))
}

/// What a request gave, in the method's order. Nothing is kept of what the method does not take.
#[derive(Default)]
struct Given<'a> {
    values: Vec<Option<&'a str>>,
    /// What is wrong when there was more than the method takes.
    surplus: Option<String>,
}

struct GivenVisitor<'m> {
    method: &'m Method,
}

impl<'de> Visitor<'de> for GivenVisitor<'_> {
    type Value = Given<'de>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a list or an object of arguments")
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut list: A) -> Result<Self::Value, A::Error> {
        let (mut values, mut count) = (Vec::new(), 0);
        while let Some(value) = list.next_element::<&'de RawValue>()? {
            if values.len() < self.method.params.len() {
                values.push(Some(value.get()));
            }
            count += 1;
        }
        let surplus = (count > values.len())
            .then(|| format!("takes at most {} arguments, {count} were given", self.method.params.len()));
        Ok(Given { values, surplus })
    }

    fn visit_map<A: MapAccess<'de>>(self, mut object: A) -> Result<Self::Value, A::Error> {
        let mut values = vec![None; self.method.params.len()];
        let mut surplus = None;
        while let Some((Name(name), value)) = object.next_entry::<Name<'de>, &'de RawValue>()? {
            let is_named =
                |param: &Param| param.name == name || param.alias.is_some_and(|alias| alias == name);
            match self.method.params.iter().position(is_named) {
                Some(index) => values[index] = Some(value.get()),
                None => surplus = Some(format!("takes no argument \"{}\"", shortened(&name))),
            }
        }
        Ok(Given { values, surplus })
    }
}

/// The name of an argument, without a copy when nothing in it is escaped.
#[derive(Deserialize)]
struct Name<'a>(#[serde(borrow)] Cow<'a, str>);
