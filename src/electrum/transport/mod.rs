//! How requests are cut out of a stream of bytes, where that stream comes from, and how what is sent is padded.
//! Pure: the sockets are in `io`.

mod line;
mod origin;
mod padding;
mod proxy;

pub use line::{LineDecoder, LineTooLong, MAX_REQUEST_BYTES};
pub use origin::{Origin, Transport};
pub use padding::{Framing, Padder};
pub use proxy::{Proxied, ProxyError, ProxyHeader};
