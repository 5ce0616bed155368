//! What is asked: methods, and requests made of bytes beforehand.

use std::io::Write;

use clap::ValueEnum;

use super::known::Known;

/// Longest history that counts as short.
const SHORT: usize = 100;

/// A method of the Electrum protocol.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Method {
    History,
    Balance,
    Unspent,
    Subscribe,
    Transaction,
    Merkle,
    Header,
}

impl Method {
    pub fn name(self) -> &'static str {
        match self {
            Self::History => "blockchain.scripthash.get_history",
            Self::Balance => "blockchain.scripthash.get_balance",
            Self::Unspent => "blockchain.scripthash.listunspent",
            Self::Subscribe => "blockchain.scripthash.subscribe",
            Self::Transaction => "blockchain.transaction.get",
            Self::Merkle => "blockchain.transaction.get_merkle",
            Self::Header => "blockchain.block.header",
        }
    }
}

/// One line of the table: what is asked, and by how many.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Load {
    #[value(name = "get_history")]
    History,
    #[value(name = "get_balance")]
    Balance,
    #[value(name = "listunspent")]
    Unspent,
    #[value(name = "subscribe")]
    Subscribe,
    #[value(name = "transaction.get")]
    Transaction,
    #[value(name = "transaction.get_merkle")]
    Merkle,
    #[value(name = "block.header")]
    Header,
    /// The longest history, one at a time.
    #[value(name = "long_history")]
    LongHistory,
    /// Short histories, one at a time.
    #[value(name = "short_history")]
    ShortHistory,
}

impl Load {
    pub fn method(self) -> Method {
        match self {
            Self::History | Self::LongHistory | Self::ShortHistory => Method::History,
            Self::Balance => Method::Balance,
            Self::Unspent => Method::Unspent,
            Self::Subscribe => Method::Subscribe,
            Self::Transaction => Method::Transaction,
            Self::Merkle => Method::Merkle,
            Self::Header => Method::Header,
        }
    }

    /// Whether one client asks, and waits for each answer.
    pub fn alone(self) -> bool {
        matches!(self, Self::LongHistory | Self::ShortHistory)
    }

    /// All that can be asked.
    pub fn questions(self, known: &Known) -> Vec<Question> {
        let method = self.method();
        let length = |&script: &usize| known.scripts[script].history.len();
        let subjects: Vec<usize> = match self {
            // The genesis block's is no ordinary transaction: servers give its proof, but not its bytes.
            Self::Transaction => {
                (0..known.transactions.len()).filter(|&place| known.transactions[place].height > 0).collect()
            }
            Self::Merkle => (0..known.transactions.len()).collect(),
            Self::Header => (0..known.blocks()).collect(),
            Self::LongHistory => (0..known.scripts.len()).max_by_key(length).into_iter().collect(),
            Self::ShortHistory => (0..known.scripts.len()).filter(|script| length(script) <= SHORT).collect(),
            _ => (0..known.scripts.len()).collect(),
        };
        subjects.into_iter().map(|subject| Question::new(method, subject, known)).collect()
    }

    /// Whether a question is asked while the time runs.
    pub fn is_timed(self, question: &Question, known: &Known) -> bool {
        match self {
            Self::History | Self::Balance | Self::Unspent | Self::Subscribe => {
                known.scripts[question.subject].history.len() <= SHORT
            }
            _ => true,
        }
    }
}

/// A request without its id.
#[derive(Clone, Debug)]
pub struct Question {
    pub method: Method,
    /// Place among the truth's scripts or transactions, or a height.
    pub subject: usize,
    /// All behind the id.
    tail: Vec<u8>,
}

impl Question {
    fn new(method: Method, subject: usize, known: &Known) -> Self {
        let parameters = match method {
            Method::History | Method::Balance | Method::Unspent | Method::Subscribe => {
                format!("\"{}\"", known.scripts[subject].scripthash)
            }
            Method::Transaction => format!("\"{}\"", known.transactions[subject].txid),
            Method::Merkle => {
                let transaction = &known.transactions[subject];
                format!("\"{}\",{}", transaction.txid, transaction.height)
            }
            Method::Header => subject.to_string(),
        };
        let tail = format!(",\"method\":\"{}\",\"params\":[{parameters}]}}\n", method.name());
        Self { method, subject, tail: tail.into_bytes() }
    }

    /// Appends the request.
    pub fn write(&self, id: u64, out: &mut Vec<u8>) {
        out.extend_from_slice(b"{\"jsonrpc\":\"2.0\",\"id\":");
        write!(out, "{id}").expect("memory takes all");
        out.extend_from_slice(&self.tail);
    }

    /// For messages: method and parameters.
    pub fn text(&self) -> String {
        String::from_utf8_lossy(&self.tail).trim_matches([',', '}', '\n']).to_owned()
    }
}
