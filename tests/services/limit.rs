//! The session limit: listeners that close and open again, and sessions that fit the open files.

use std::net::TcpStream;
use std::time::Duration;

use super::clients::{Lines, tcp};
use super::support::{connect, free_address, wait_for};
use super::{SOON, options, serve};

#[test]
fn listeners_close_at_the_limit_and_open_at_95_percent() {
    let rpc = free_address();
    let mut served = serve("tcp", &["--max-sessions", "40", "--service", &format!("rpc://{rpc}")]);
    // The client that saw it start is gone soon.
    wait_for("nobody to be there", SOON, || {
        super::operator::sessions_at(rpc).as_array().unwrap().is_empty().then_some(())
    });
    let mut wallets: Vec<TcpStream> = (0..40).map(|_| tcp(served.at)).collect();
    served.server.wait_for_log(&["session limit is reached", "sessions=40", "reopen_at=38"], SOON);
    let refused = |at| connect(at).is_err_and(|error| error.kind() == std::io::ErrorKind::ConnectionRefused);
    wait_for("both listeners to be closed", SOON, || {
        (refused(served.at) && refused(served.server.address())).then_some(())
    });
    // Those who are in are served, and the operator is let in.
    Lines::new(wallets.pop().unwrap()).greet();
    let count = || super::operator::sessions_at(rpc).as_array().unwrap().len();
    wait_for("one to be gone", SOON, || (count() == 39).then_some(()));
    assert!(refused(served.at), "39 of 40 are more than 95 %");

    wallets.pop();

    served.server.wait_for_log(&["opening the listeners again", "sessions=38"], SOON);
    wait_for("both listeners to be open", SOON, || {
        (connect(served.at).is_ok() && connect(served.server.address()).is_ok()).then_some(())
    });
    served.server.stop();
}

#[test]
fn sessions_fit_the_limit_on_open_files_which_is_raised() {
    let at = free_address();
    let mut options = options(at, "tcp", &["--max-sessions", "400"]);
    options.open_files = Some((256, 500));
    let mut server = options.start();
    server.wait_for_log(&["--max-sessions 400 is more than", "open_files=500", "to 750"], SOON);
    // More than the soft limit that it began with would let in.
    let mut wallets: Vec<TcpStream> = (0..149).map(|_| tcp(at)).collect();
    Lines::new(wallets.pop().unwrap()).greet();
    let _more: Vec<_> = (0..5).filter_map(|_| connect(at).ok()).collect();
    server.wait_for_log(&["session limit is reached", "sessions=150"], SOON);
    std::thread::sleep(Duration::from_millis(200));
    drop(wallets);
    server.wait_for_log(&["opening the listeners again"], SOON);
    server.stop();
}
