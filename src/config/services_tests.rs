use super::*;

#[test]
fn what_is_left_out_of_a_service_has_a_default() {
    for (text, shown) in [
        ("tcp://127.0.0.1:7", "tcp://127.0.0.1:7"),
        ("tcp://:50001", "tcp://:50001"),
        ("tcp://", "tcp://:50001"),
        ("ssl://", "ssl://:50002"),
        ("ws://localhost", "ws://localhost:50003"),
        ("wss://[::1]", "wss://[::1]:50004"),
        ("ssl://[::]:9", "ssl://[::]:9"),
        ("rpc://", "rpc://localhost:8000"),
        ("rpc://:9", "rpc://localhost:9"),
        ("rpc:///run/peerdex.sock", "rpc:///run/peerdex.sock"),
    ] {
        assert_eq!(service(text, Network::Bitcoin).unwrap().to_string(), shown, "{text}");
    }
    assert_eq!(service("wss://", Network::Signet).unwrap().to_string(), "wss://:60004");
    assert_eq!(service("ssl://", Network::Regtest).unwrap().to_string(), "ssl://:60402");
}

#[test]
fn the_operators_service_needs_no_protocol() {
    for (text, shown) in [
        ("8001", "rpc://localhost:8001"),
        ("localhost:8001", "rpc://localhost:8001"),
        ("[::1]", "rpc://[::1]:8000"),
        ("/run/peerdex.sock", "rpc:///run/peerdex.sock"),
        ("rpc://", "rpc://localhost:8000"),
    ] {
        assert_eq!(rpc(text, Network::Bitcoin).unwrap().to_string(), shown, "{text}");
    }
    assert!(rpc("tcp://localhost", Network::Bitcoin).unwrap_err().contains("rpc://"));
}

#[test]
fn a_service_that_cannot_be_says_what_to_give() {
    for (text, says) in [
        ("", "begin with tcp://, ssl://, ws://, wss:// or rpc://"),
        ("127.0.0.1:5", "begin with tcp://"),
        ("http://127.0.0.1:5", "begin with tcp://"),
        ("TCP://127.0.0.1:5", "begin with tcp://"),
        ("tcp://example.org:5", "names no address of this machine"),
        ("tcp://1.2.3:5", "names no address of this machine"),
        ("tcp://127.0.0.1:0", "no port from 1 to 65535, for example tcp://127.0.0.1:50001"),
        ("ssl://127.0.0.1:99999", "no port from 1 to 65535, for example ssl://127.0.0.1:50002"),
        ("tcp://127.0.0.1:", "no port"),
        ("tcp://::1:5", "brackets"),
        ("tcp://[::1", "brackets"),
        ("tcp://[::1]5", "brackets"),
        ("tcp://[127.0.0.1]:5", "brackets"),
        ("tcp:///run/peerdex.sock", "only rpc"),
    ] {
        let error = service(text, Network::Bitcoin).unwrap_err();
        assert!(error.contains(says), "{text}: {error}");
    }
}

#[test]
fn only_what_others_can_reach_is_reported() {
    for (text, shown) in [
        ("ssl://electrum.example.org", "ssl://electrum.example.org:50002"),
        ("tcp://Electrum.Example.ORG:1", "tcp://electrum.example.org:1"),
        ("wss://8.8.8.8", "wss://8.8.8.8:50004"),
        ("ssl://[2001:4860::8]:9", "ssl://[2001:4860::8]:9"),
        ("tcp://abcdefghijklmnop.onion:50001", "tcp://abcdefghijklmnop.onion:50001"),
    ] {
        assert_eq!(reported(text, Network::Bitcoin).unwrap().to_string(), shown, "{text}");
    }
    for text in [
        "rpc://electrum.example.org",
        "ssl://",
        "ssl://localhost",
        "ssl://LOCALHOST:5",
        "ssl://127.0.0.1",
        "ssl://0.0.0.0",
        "ssl://10.1.2.3",
        "ssl://192.168.1.2",
        "ssl://172.16.0.1",
        "ssl://100.64.0.1",
        "ssl://169.254.0.1",
        "ssl://224.0.0.1",
        "ssl://[::1]",
        "ssl://[::]",
        "ssl://[fd00::1]",
        "ssl://[fe80::1]",
        "ssl://[::ffff:10.0.0.1]",
        "ssl://1.2.3",
        "ssl://-a.org",
        "ssl://a..org",
        "ssl://a_b.org",
        "ssl://a b.org",
    ] {
        assert!(reported(text, Network::Bitcoin).is_err(), "{text}");
    }
}
