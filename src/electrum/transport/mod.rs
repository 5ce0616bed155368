//! How requests are cut out of a stream of bytes, and where that stream comes from. Pure: the sockets are in `io`.

mod line;
mod origin;
mod proxy;

pub use line::{LineDecoder, LineTooLong, MAX_REQUEST_BYTES};
pub use origin::{Origin, Transport};
pub use proxy::{Proxied, ProxyError, ProxyHeader};
