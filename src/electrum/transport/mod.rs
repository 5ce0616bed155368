//! How requests are cut out of a stream of bytes. Pure parsers: the sockets are in `io`.

mod line;

pub use line::{LineDecoder, LineTooLong, MAX_REQUEST_BYTES};
